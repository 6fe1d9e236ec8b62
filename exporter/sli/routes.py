"""A compiled layout: which column of a page feeds which total, so that a row costs only its changed columns.

Everything here is linear. Each counter column adds what it gained to one accumulator; the bucket columns of all engines
of a model that have the same bounds share accumulators at these bounds, which a `BucketMap` turns into ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from exporter.sli.buckets import BucketMap
from exporter.sli.memory import Key, Scope

Total = tuple[str, str]
"""Name of a total and its model."""


@dataclass(slots=True)
class HistogramRoute:
    """The accumulators of one histogram: one per source bound from `start`, then the count and the sum."""

    total: Total
    buckets: BucketMap
    start: int
    stop: int
    ragged: bool = False
    """Whether bucket columns are missing for now, so that the counts may not rise with `le`."""


@dataclass(slots=True)
class Routes:
    """Per column: `target` is the accumulator it feeds, 0 for none; `last` its value when it last counted."""

    target: list[int]
    last: list[float]
    columns: list[int] = field(default_factory=list)
    keys: dict[int, Key] = field(default_factory=dict)
    scopes: dict[int, Scope] = field(default_factory=dict)
    sums: set[int] = field(default_factory=set)
    size: int = 1
    counters: dict[Total, int] = field(default_factory=dict)
    histograms: list[HistogramRoute] = field(default_factory=list)
    gauges: dict[Total, list[int]] = field(default_factory=dict)
    signs: list[int] = field(default_factory=list)
    awake: list[int] = field(default_factory=list)
    """Columns that are 0 while an engine sleeps."""
    sources: set[tuple[str, str]] = field(default_factory=set)
    models: list[str] = field(default_factory=list)
    returned: set[Total] = field(default_factory=set)
    """Totals with a column that was away, and now brings the gains of several intervals at once."""
    dropped: dict[str, int] = field(default_factory=dict)

    def counter(self, total: Total) -> int:
        """The accumulator of a counter, made when it is new."""
        index = self.counters.get(total)
        if index is None:
            index = self.counters[total] = self.size
            self.size += 1
        return index
