"""How fast a failing endpoint is tried again: exponential backoff with full jitter, and a circuit breaker. Seconds.

Sources: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ for the jitter,
https://martinfowler.com/bliki/CircuitBreaker.html for the circuit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class Pace:
    """Limits of retrying; one set for every endpoint."""

    first_wait: float = 1.0
    """Upper bound of the wait after a first failure; it doubles with each one."""
    longest_wait: float = 300.0
    longest_retry_after: float = 3600.0
    """An endpoint that asks for more gets this."""
    open_after: int = 5
    """Failures in a row, whatever they were of, after which an endpoint is left alone."""
    first_trial: float = 30.0
    longest_trial: float = 300.0
    fresh_trial: float = 5.0
    """After a failure of an open circuit, what was never tried is reason enough for a trial so soon."""
    parallel: int = 4
    """Groups of an endpoint that are sent side by side."""
    crowded_lane: int = 8
    """Notifications of one group that wait for a failing endpoint, above which newer ones supersede even what was never
    tried: nobody wants to hear, all at once, of everything that began and ended while the line was dead."""
    crowded_alerts: int = 20_000
    """Alerts, all notifications of an endpoint together, above which newer ones supersede even what was never tried."""
    most_alerts: int = 50_000
    """Alerts, likewise, above which the oldest notifications are given up."""


def wait_after(attempts: int, retry_after: float | None, draw: float, pace: Pace) -> float:
    """How long to wait after so many failed attempts; `draw` is random, from 0 to 1."""
    bound = min(pace.longest_wait, pace.first_wait * 2.0 ** min(attempts - 1, 60))
    asked = 0.0 if retry_after is None else min(retry_after, pace.longest_retry_after)
    return max(asked, draw * bound)


@dataclass(frozen=True, slots=True)
class Circuit:
    """Whether an endpoint is tried.

    `closed`: freely. `open`: not before `trial_at`, of the timer. `half_open`: one trial is under way.
    """

    state: State = "closed"
    failures: int = 0
    """In a row."""
    wait: float = 0.0
    """Between the last failure and the next trial."""
    trial_at: float = 0.0
    fresh_at: float = 0.0
    """From when on a notification that was never tried is reason enough for a trial: news does not wait for long."""

    def failed(self, now: float, pace: Pace) -> Circuit:
        """After an attempt that may be made again."""
        if self.state == "closed" and self.failures + 1 < pace.open_after:
            return replace(self, failures=self.failures + 1)
        if self.state == "open":  # an attempt from before it opened
            return replace(self, failures=self.failures + 1)
        wait = pace.first_trial if self.state == "closed" else min(self.wait * 2, pace.longest_trial)
        return Circuit("open", self.failures + 1, wait, now + wait, now + min(wait, pace.fresh_trial))

    def trying(self) -> Circuit:
        """The trial begins."""
        return replace(self, state="half_open")

    def due(self, *, fresh: bool) -> float:
        """When the next trial may be made."""
        return min(self.trial_at, self.fresh_at) if fresh else self.trial_at
