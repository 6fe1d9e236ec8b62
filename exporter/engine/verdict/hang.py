"""Is a ready engine hung? Pure verdicts from (policy, what was seen so far, an observation, now).

A wedged vLLM answers `/health`, `/metrics` and `/v1/models` with 200 for as long as one watches; only its progress
stops. A saturated one may take half a minute for `/health`, and queues a canary behind its users, while it works hard.
So: work was wanted, the counters stood still for a set time, a one-token canary got no answer either, and the counters
still stand. One of these alone is no verdict. `running` alone misleads: a wedged engine has been seen at 0, so demand
that nobody served stays demand until the counters move.

Where nobody asks, the daemon's own questions are the demand: two in a row without an answer are as good as a user's
request that waits since the first of them. Tokens that reach users through the gateway are progress, whatever the page
says.

Only time that the daemon was awake for counts: after a gap in `now` (a stopped or suspended daemon, a frozen machine)
watching starts over. All times are seconds of one monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol


class Progress(Protocol):
    """What a scrape says of the engine's work; None where its page does not tell."""

    @property
    def running(self) -> float | None: ...
    @property
    def waiting(self) -> float | None: ...
    @property
    def counter(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class HangPolicy:
    """`timeout`, `grace` and `canary_timeout` as in the settings; a gap between two inputs longer than `gap` means
    that the daemon itself was stopped."""

    timeout: float
    grace: float
    canary_timeout: float
    gap: float


class Verdict(StrEnum):
    NOTHING = "nothing"
    SEND_CANARY = "send_canary"
    HUNG = "hung"
    RECOVERED = "recovered"
    """A hung engine makes progress again."""


class CanaryOutcome(StrEnum):
    """What became of the one-token request."""

    ANSWERED = "answered"
    FAILED = "failed"
    """No answer in time, no connection, or an internal server error."""
    INCONCLUSIVE = "inconclusive"
    """The API server refused it (not a completion model, overloaded, not authorized): the engine was not asked."""


class _Canary(StrEnum):
    NONE = "none"
    OUT = "out"
    MOOT = "moot"
    """Still out, but the counters moved meanwhile: its end will mean nothing."""
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class HangWatch:
    """What was seen since ready."""

    ready_since: float
    last_input: float
    woke_at: float | None = None
    """When the daemon was last found to have slept."""
    awake: float = 0.0
    """Seconds watched since the last scrape."""
    counter: float | None = None
    demand: bool = False
    flat_for: float | None = None
    """Seconds watched in which wanted work made no progress; None without suspicion."""
    moved_at: float | None = None
    """When the counter last moved."""
    canary: _Canary = _Canary.NONE
    hung: bool = False


def watch_from(ready_since: float) -> HangWatch:
    """Nothing seen yet of an engine that is ready since then."""
    return HangWatch(ready_since=ready_since, last_input=ready_since)


def tick(policy: HangPolicy, watch: HangWatch, now: float) -> HangWatch:
    """The daemon is awake at `now`; call it before anything that was seen at `now` is judged."""
    gap = now - watch.last_input
    if gap > policy.gap:
        calm = _Canary.MOOT if watch.canary is _Canary.OUT else watch.canary
        return replace(watch, last_input=now, woke_at=now, awake=0.0, flat_for=None, canary=calm)
    return replace(watch, last_input=max(now, watch.last_input), awake=watch.awake + max(gap, 0.0))


def judge_scrape(
    policy: HangPolicy, watch: HangWatch, progress: Progress | None, now: float
) -> tuple[HangWatch, Verdict]:
    """A scrape landed, or failed (None). Silence is no progress, but it starts no suspicion by itself: the demand must
    have been seen before it."""
    watch = tick(policy, watch, now)
    awake, watch = watch.awake, replace(watch, awake=0.0)
    demand, counter = watch.demand, watch.counter
    if progress is not None:
        demand = (progress.running or 0.0) > 0.0 or (progress.waiting or 0.0) > 0.0
        if progress.counter is not None:
            counter = progress.counter
        if watch.counter is not None and counter != watch.counter:
            return _moved(replace(watch, demand=demand, counter=counter), now)
    watch = replace(watch, demand=demand, counter=counter)
    if watch.hung or counter is None or now - watch.ready_since < policy.grace:
        return watch, Verdict.NOTHING
    if watch.flat_for is None:
        return (replace(watch, flat_for=0.0) if demand else watch), Verdict.NOTHING
    flat_for = watch.flat_for + awake
    watch = replace(watch, flat_for=flat_for)
    if watch.canary is _Canary.NONE and flat_for >= policy.timeout:
        return replace(watch, canary=_Canary.OUT), Verdict.SEND_CANARY
    if watch.canary is _Canary.INCONCLUSIVE and flat_for >= 2.0 * policy.timeout:
        return replace(watch, canary=_Canary.NONE, hung=True), Verdict.HUNG
    return watch, Verdict.NOTHING


def judge_canary(
    policy: HangPolicy, watch: HangWatch, outcome: CanaryOutcome, now: float, *, took: float
) -> tuple[HangWatch, Verdict]:
    """The canary came back after `took` seconds. When it took much longer than it may, the daemon slept meanwhile, and
    its silence says nothing. Refused canaries leave the counters to decide alone, over twice the time."""
    watch = tick(policy, watch, now)
    if watch.canary is not _Canary.OUT or watch.flat_for is None:
        return replace(watch, canary=_Canary.NONE), Verdict.NOTHING
    if outcome is CanaryOutcome.ANSWERED or took > policy.canary_timeout + policy.gap:
        return replace(watch, canary=_Canary.NONE, flat_for=None), Verdict.NOTHING
    if outcome is CanaryOutcome.INCONCLUSIVE:
        return replace(watch, canary=_Canary.INCONCLUSIVE), Verdict.NOTHING
    return replace(watch, canary=_Canary.NONE, hung=True), Verdict.HUNG


def judge_unanswered(policy: HangPolicy, watch: HangWatch, since: float, now: float) -> HangWatch:
    """Two different questions in a row got no answer, the first asked at `since`: wanted work without progress.

    No verdict by itself. From here on it is as with users: the time with demand and flat counters, and then the canary.
    It says nothing where the counters moved meanwhile (busy), cannot be read, or where the daemon slept.
    """
    watch = tick(policy, watch, now)
    slept = watch.woke_at is not None and watch.woke_at > since
    moved = watch.moved_at is not None and watch.moved_at >= since
    if slept or moved or watch.hung or watch.counter is None or now - watch.ready_since < policy.grace:
        return watch
    # The scrapes' own time since the last one is added by the next of them.
    flat_for = max(watch.flat_for or 0.0, now - since - watch.awake)
    return replace(watch, demand=True, flat_for=flat_for)


def judge_progress(policy: HangPolicy, watch: HangWatch, at: float, now: float) -> tuple[HangWatch, Verdict]:
    """The engine gave out a token at `at`, as somebody saw who is not its page: the gateway, or who asked it."""
    watch = tick(policy, watch, now)
    if watch.moved_at is not None and at <= watch.moved_at:
        return watch, Verdict.NOTHING
    return _moved(watch, at)


def _moved(watch: HangWatch, now: float) -> tuple[HangWatch, Verdict]:
    canary = _Canary.MOOT if watch.canary in (_Canary.OUT, _Canary.MOOT) else _Canary.NONE
    verdict = Verdict.RECOVERED if watch.hung else Verdict.NOTHING
    return replace(watch, flat_for=None, moved_at=now, canary=canary, hung=False), verdict
