"""Selectors: the series that fit some matchers, at each step or over a window before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from exporter.promql.labels import drop_name
from exporter.promql.model import Matrix, Memo, RangeVector, Steps, Vector
from exporter.promql.plan import Evaluation, Kind
from exporter.promql.unique import unique
from exporter.storage.model import Matcher, Selection

if TYPE_CHECKING:
    from exporter.storage.model import I64


@dataclass(frozen=True, slots=True)
class When:
    """The modifiers that say which time a selector or subquery looks at, in milliseconds."""

    offset: int = 0
    at: int | Literal["start", "end"] | None = None

    def times(self, steps: Steps) -> I64:
        """The times looked at, one per step."""
        if self.at is None:
            return steps.times - self.offset if self.offset else steps.times
        fixed = steps.start if self.at == "start" else steps.end if self.at == "end" else self.at
        return np.full(len(steps.times), fixed - self.offset, np.int64)


@dataclass(slots=True)
class VectorSelector:
    """The newest sample of each series at each step."""

    matchers: tuple[Matcher, ...]
    when: When
    kind: Kind = "vector"
    invariant: bool = field(init=False)

    def __post_init__(self) -> None:
        self.invariant = self.when.at is not None

    def evaluate(self, run: Evaluation) -> Vector:
        selection = run.storage.select(self.matchers)
        labels = selection.labels
        times = self.when.times(run.steps)
        run.budget.spend(len(labels) * len(times))
        latest = selection.latest(times, run.lookback)
        return Vector(labels, latest.values, None if latest.present.all() else latest.present)


@dataclass(slots=True)
class SampleTimes:
    """`timestamp()` of a selector: when each series' newest sample was taken, in seconds, not when the step is."""

    selector: VectorSelector
    memo: Memo = field(default_factory=Memo)
    kind: Kind = "vector"
    invariant: bool = field(init=False)

    def __post_init__(self) -> None:
        self.invariant = self.selector.invariant

    def evaluate(self, run: Evaluation) -> Vector:
        selection = run.storage.select(self.selector.matchers)
        labels = selection.labels
        times = self.selector.when.times(run.steps)
        run.budget.spend(len(labels) * len(times))
        latest = selection.latest(times, run.lookback)
        nameless = self.memo.of("nameless", (labels,), lambda: tuple(map(drop_name, labels)))
        seconds = np.broadcast_to(latest.times / 1000.0, latest.values.shape)
        return unique(Vector(nameless, seconds, latest.present), self.memo)


@dataclass(slots=True)
class RangeSelector:
    """The samples of each series in a window that ends at each step."""

    matchers: tuple[Matcher, ...]
    when: When
    range: int
    kind: Kind = "matrix"
    invariant: bool = field(init=False)

    def __post_init__(self) -> None:
        self.invariant = self.when.at is not None

    def evaluate(self, run: Evaluation) -> RangeVector:
        selection = run.storage.select(self.matchers)
        hi = self.when.times(run.steps)
        run.budget.spend(len(selection.labels) * len(hi))
        return RangeVector(selection, hi - self.range, hi)


def matrix(selection: Selection, lo: int, hi: int) -> Matrix:
    """All samples in the window `(lo, hi]`, series by series; those without any are left out."""
    found: list[tuple[int, I64, np.ndarray[tuple[int], np.dtype[np.float64]]]] = []
    for group in selection.samples(lo, hi):
        for place, row in enumerate(group.rows):
            found.append((int(row), group.times, group.values[place]))
    found.sort(key=lambda one: selection.labels[one[0]])
    return Matrix(
        [selection.labels[row] for row, _, _ in found],
        [times for _, times, _ in found],
        [values for _, _, values in found],
    )
