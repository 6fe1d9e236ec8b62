"""When an engine is asked for a token although nobody wants one, and what its answers say; pure.

All times are seconds of one monotonic clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from exporter.engine.verdict.hang import Progress
from exporter.engine.verdict.question import TokenAnswer

DEFAULT_INTERVAL = 30.0
"""Seconds without traffic after which the engine is probed, where there is a gateway and no setting."""
SETTLE_SECONDS = 1.0
"""How long after a probe a page may still tell of nothing but it."""
QUESTIONS = ("1", "Hi")
"""What the probe says, and what it says when that went unanswered: so short that no prompt cache answers for the engine."""


@dataclass(frozen=True, slots=True)
class ProbePolicy:
    """`interval` without traffic before a probe, at most `timeout` for its answer; both in seconds."""

    interval: float
    timeout: float

    @classmethod
    def of(cls, interval: float | None, timeout: float, *, gateway: bool) -> ProbePolicy | None:
        """What the settings say; None for no probe. Without a gateway only a setting turns it on."""
        if interval is None:
            interval = DEFAULT_INTERVAL if gateway else 0.0
        return cls(interval, timeout) if interval > 0 else None


@dataclass(frozen=True, slots=True)
class Quiet:
    """Since when nobody asked the engine for anything, as far as can be seen."""

    since: float
    counter: float | None = None
    """Progress as the last page has it; None where the page does not tell."""
    probed_at: float = -math.inf
    """When the last probe ended."""
    own_until: float = -math.inf
    """Until then a page that tells of work tells of the probe's."""


def landed(quiet: Quiet, progress: Progress | None, now: float, *, asleep: bool = False) -> Quiet:
    """A page landed, or failed (None). `asleep`: somebody put the engine to sleep, where a request would wait, or break it."""
    if progress is None:
        return replace(quiet, counter=None)
    moved = quiet.counter is not None and progress.counter is not None and progress.counter != quiet.counter
    at_work = (progress.running or 0.0) > 0.0 or (progress.waiting or 0.0) > 0.0
    is_traffic = asleep or ((moved or at_work) and now > quiet.own_until)
    return replace(quiet, since=now if is_traffic else quiet.since, counter=progress.counter)


def looked(quiet: Quiet, in_flight: int, now: float) -> Quiet:
    """The gateway has so many requests at the engine."""
    return replace(quiet, since=now) if in_flight else quiet


def due(policy: ProbePolicy, quiet: Quiet, now: float, *, gateway: bool) -> bool:
    """Whether to probe now. Without a gateway and a page that tells of work, nobody knows whether the engine is idle."""
    if quiet.counter is None and not gateway:
        return False
    return now - max(quiet.since, quiet.probed_at) >= policy.interval


def asked(quiet: Quiet) -> Quiet:
    """A probe is out."""
    return replace(quiet, own_until=math.inf)


def ended(quiet: Quiet, now: float, *, busy: bool) -> Quiet:
    """The probe is over. `busy`: the engine worked for others meanwhile."""
    since = now if busy else quiet.since
    return replace(quiet, since=since, probed_at=now, own_until=now + SETTLE_SECONDS)


class Finding(StrEnum):
    """What a question that is over says of the engine."""

    WORKS = "works"
    REFUSED = "refused"
    """The server before the engine turned it away: the engine was not asked."""
    BUSY = "busy"
    """No answer, and yet the counters moved: it works, for somebody else or too slowly."""
    DOUBTFUL = "doubtful"
    """No answer, and nothing moved. Once may be an accident; twice in a row is work that is wanted and not done."""


def judge(answer: TokenAnswer, *, moved: bool) -> Finding:
    """`moved`: whether the counters, or tokens at the gateway, moved since the first of the questions."""
    if answer.outcome == "success":
        return Finding.WORKS
    if not answer.outcome.went_unanswered:
        return Finding.REFUSED
    return Finding.BUSY if moved else Finding.DOUBTFUL


def fades(policy: ProbePolicy, quiet: Quiet, now: float) -> bool:
    """Whether the last probe says nothing any more: users' requests have taken its place."""
    return now - quiet.probed_at > 2.0 * policy.interval + 2.0 * policy.timeout
