"""When a crashed engine is started again, and when it is given up.

Pure: times are seconds of one monotonic clock, the random number is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How patient to be. Delays and windows in seconds; the fields are those of the engine's settings."""

    delay: float
    delay_max: float
    stable_after: float
    crash_limit: int
    crash_window: float


@dataclass(frozen=True, slots=True)
class RestartHistory:
    """What the next decision needs to know of the past: crash times inside the window, and two streaks."""

    crashes: tuple[float, ...] = ()
    streak: int = 0
    """Crashes since the last stable run; the delay doubles with each."""
    never_ready: int = 0
    """Starts in a row that ended before ready."""


@dataclass(frozen=True, slots=True)
class RestartPlan:
    """`delay` in seconds before the next start, or None: give the engine up, `because` of this."""

    history: RestartHistory
    delay: float | None
    because: str = ""


def plan_restart(
    policy: RestartPolicy, history: RestartHistory, *, now: float, ready_for: float | None, jitter: float
) -> RestartPlan:
    """What to do after a crash that a retry may mend.

    `ready_for`: seconds since the engine became ready, None when it never did. `jitter` in [0, 1) takes up to a fifth
    off the delay, so that engines that fell together do not come back together and no delay exceeds its setting.

    The budget is `crash_limit` crashes within `crash_window`. A model that takes minutes to load would never reach it,
    and blind restarts have taken whole hosts down after about 35, so `crash_limit` starts in a row that never became
    ready end it as well, however long each took.
    """
    streak = 0 if ready_for is not None and ready_for >= policy.stable_after else history.streak
    crashes = (*(at for at in history.crashes if at > now - policy.crash_window), now)
    never_ready = history.never_ready + 1 if ready_for is None else 0
    after = replace(history, crashes=crashes, streak=streak + 1, never_ready=never_ready)
    if len(crashes) >= policy.crash_limit:
        return RestartPlan(after, None, f"{len(crashes)} crashes within {policy.crash_window:g} s")
    if never_ready >= policy.crash_limit:
        return RestartPlan(after, None, f"{never_ready} starts in a row ended before the engine was ready")
    doubled = policy.delay * 2.0 ** min(streak, 60)
    return RestartPlan(after, min(doubled, policy.delay_max) * (1.0 - 0.2 * jitter))
