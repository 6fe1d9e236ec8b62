"""When failing `/health` probes make a ready engine unresponsive: pure verdicts, times in monotonic seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Health(StrEnum):
    """What one probe of `/health` met."""

    OK = "ok"
    REFUSED = "refused"
    """No connection, or one that broke."""
    SILENT = "silent"
    """Connected, and no answer in time."""
    ERROR = "error"
    """An answer that is not 200: vLLM says 503 once its core is dead."""


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """`failures` and `timeout` as in the settings; `grace` after ready, in which silence is forgiven; `gap` as in
    `HangPolicy`."""

    failures: int
    timeout: float
    grace: float
    gap: float


@dataclass(frozen=True, slots=True)
class HealthWatch:
    """Misses in a row, and whether they were enough."""

    ready_since: float
    misses: int = 0
    down: bool = False


def judge_health(
    policy: HealthPolicy,
    watch: HealthWatch,
    health: Health,
    now: float,
    *,
    took: float,
    moved_at: float | None,
) -> HealthWatch:
    """Count one probe that ended at `now` after `took` seconds; `moved_at`: when the progress counters last moved.

    Silence is the weak sign: a busy `/health` takes 30 to 40 s, compiling stalls of 30 to 70 s have got healthy workers
    killed, and eight false restarts a day came from 2 s probes. So it does not count in the grace period, nor when the
    counters moved during the probe, nor when the daemon itself slept through it.
    """
    if health is Health.OK:
        return replace(watch, misses=0, down=False)
    if took > policy.timeout + policy.gap:
        return watch
    if health is Health.SILENT:
        if moved_at is not None and moved_at >= now - took:
            return replace(watch, misses=0)
        if now - watch.ready_since < policy.grace:
            return watch
    misses = watch.misses + 1
    return replace(watch, misses=misses, down=watch.down or misses >= policy.failures)
