"""The numbers of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

HOUR_SECONDS = 3600
ROUNDING = 1e-9
"""What sums of floats may be off by, in a ratio."""
WORST = 3
"""Most hours that are named for an objective."""


@dataclass(frozen=True, slots=True)
class Hour:
    """One hour of the period, from `start` in unix seconds, and the share of its events that were bad.

    `bad`: how many that were, in whatever unit the objective counts its events; compares hours of one objective.
    """

    start: float
    error_ratio: float
    bad: float


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective over the period, for one set of labels such as a model.

    `target`: the share of events that should be good. `error_ratio` None: there were no events. `budget_left`: share of
    the error budget of 30 days, below 0 when it is overspent; None where nobody knows.
    """

    service: str
    name: str
    labels: Mapping[str, str]
    target: float
    error_ratio: float | None = None
    budget_left: float | None = None
    worst: Sequence[Hour] = ()

    @property
    def missed(self) -> bool:
        """Whether more events were bad than may be."""
        return self.error_ratio is not None and self.error_ratio > 1 - self.target + ROUNDING


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything that a report speaks of; what is None or empty was not recorded.

    `start`, `end`, and `since` when the records begin, in unix seconds. `restarts`, `requests`: numbers by reason and
    by outcome.
    """

    start: float
    end: float
    since: float | None = None
    objectives: Sequence[Objective] = ()
    restarts: Mapping[str, int] | None = None
    requests: Mapping[str, int] = field(default_factory=dict)
    output_tokens: float | None = None
    energy_joules: float | None = None


def worst_hours(hours: Sequence[Hour], target: float) -> tuple[Hour, ...]:
    """The hours that cost the most budget, of those in which it burned faster than it may; in the order of time.

    By bad events and not by their share: one failure among two requests at night is no bad hour.
    """
    burning = [hour for hour in hours if hour.error_ratio > 1 - target + ROUNDING and hour.bad > 0]
    burning.sort(key=lambda hour: (-hour.bad, hour.start))
    return tuple(sorted(burning[:WORST], key=lambda hour: hour.start))
