"""Subqueries: an expression evaluated on its own grid of times, and offered as if the result had been stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from exporter.promql.model import RangeVector, Vector
from exporter.promql.pieces import evaluated
from exporter.promql.plan import Evaluation, Kind, Node
from exporter.promql.selectors import When
from exporter.storage.model import Edges, Labels, Latest, Matcher, Samples

if TYPE_CHECKING:
    from exporter.storage.model import F64, I64, Bool


class MatrixSelection:
    """Series by times, as a `Selection`: no staleness markers, holes where a series had no value."""

    def __init__(self, labels: Sequence[Labels], times: I64, values: F64, present: Bool | None) -> None:
        self.labels = labels
        self._times = times
        self._values = values
        self._present = present

    def latest(self, times: I64, lookback: int) -> Latest:
        """For each time t the newest value in `(t - lookback, t]`."""
        edges = self.edges(times - lookback, times)
        return Latest(edges.last, edges.last_time, edges.counts > 0)

    def edges(self, lo: I64, hi: I64) -> Edges:
        """The first and last values in each window, and the rise between them."""
        begin: I64 = np.searchsorted(self._times, lo, side="right").astype(np.int64)
        end: I64 = np.searchsorted(self._times, hi, side="right").astype(np.int64)
        rows, points = self._values.shape
        if not rows or not points:
            empty, zero = np.zeros((rows, len(lo))), np.zeros((rows, len(lo)), np.int64)
            return Edges(zero, zero, empty, zero, empty, empty)
        if self._present is None:
            first, last = np.minimum(begin, points - 1), np.maximum(end - 1, 0)
            counts = np.broadcast_to(np.maximum(end - begin, 0), (rows, len(lo)))
            lost = _lost(self._values, None)
            head, tail = self._values[:, first], self._values[:, last]
            with np.errstate(invalid="ignore"):
                rise = tail - head + (lost[:, last] - lost[:, first])
            wide = (rows, len(lo))
            return Edges(
                counts,
                np.broadcast_to(self._times[first], wide),
                head,
                np.broadcast_to(self._times[last], wide),
                tail,
                rise,
            )
        place = np.arange(points)
        before = np.maximum.accumulate(np.where(self._present, place, -1), axis=1)
        after = np.minimum.accumulate(np.where(self._present, place, points)[:, ::-1], axis=1)[:, ::-1]
        total = np.zeros((rows, points + 1), np.int64)
        np.cumsum(self._present, axis=1, out=total[:, 1:])
        counts = total[:, end] - total[:, np.minimum(begin, end)]
        first = np.minimum(after[:, np.minimum(begin, points - 1)], points - 1)
        last = np.maximum(before[:, np.maximum(end - 1, 0)], 0)
        lost = _lost(self._values, before)
        head = np.take_along_axis(self._values, first, axis=1)
        tail = np.take_along_axis(self._values, last, axis=1)
        with np.errstate(invalid="ignore"):
            rise = (
                tail
                - head
                + (np.take_along_axis(lost, last, axis=1) - np.take_along_axis(lost, first, axis=1))
            )
        return Edges(counts, self._times[first], head, self._times[last], tail, rise)

    def samples(self, lo: int, hi: int) -> list[Samples]:
        """Everything in the window `(lo, hi]`: the series without holes together, the others by what they have."""
        begin, end = (int(one) for one in np.searchsorted(self._times, (lo, hi), side="right"))
        if begin >= end or not len(self.labels):
            return []
        times, values = self._times[begin:end], self._values[:, begin:end]
        if self._present is None:
            return [Samples(range(len(self.labels)), times, values)]
        groups: dict[bytes, list[int]] = {}
        for row, held in enumerate(self._present[:, begin:end]):
            if held.any():
                groups.setdefault(held.tobytes(), []).append(row)
        found = []
        for rows in groups.values():
            held = self._present[rows[0], begin:end]
            found.append(Samples(rows, times[held], values[rows][:, held]))
        return found


def _lost(values: F64, before: I64 | None) -> F64:
    """What a counter lost in resets up to each point: where it falls, its value before the fall.

    `before` gives for each point the last one that is there; where it is None all are.
    """
    filled = values if before is None else np.take_along_axis(values, np.maximum(before, 0), axis=1)
    result = np.zeros_like(values)
    with np.errstate(invalid="ignore"):
        falls = filled[:, 1:] < filled[:, :-1]
        if before is not None:
            falls &= before[:, :-1] >= 0
        np.cumsum(np.where(falls, filled[:, :-1], 0.0), axis=1, out=result[:, 1:])
    return result


@dataclass(slots=True)
class Subquery:
    """`expression[range:step]`: values at the multiples of the step in a window that ends at each outer step."""

    part: Node
    when: When
    range: int
    step: int
    selectors: tuple[tuple[Matcher, ...], ...]
    """Those of the part."""
    kind: Kind = "matrix"
    invariant: bool = field(init=False)

    def __post_init__(self) -> None:
        self.invariant = self.when.at is not None

    def evaluate(self, run: Evaluation) -> RangeVector:
        hi = self.when.times(run.steps)
        lo = hi - self.range
        first, last = lo // self.step + 1, hi // self.step + 1  # multiples of the step, from and to
        if len(hi) == 1 or hi[1] - hi[0] <= self.range:
            first, last = first[:1], last[-1:]
        sizes = last - first  # else what lies between the windows is read by nobody
        run.budget.spend(int(sizes.sum()))
        grid = (np.arange(sizes.sum()) + np.repeat(first - np.cumsum(sizes) + sizes, sizes)) * self.step
        if not len(grid):
            return RangeVector(MatrixSelection((), grid, np.empty((0, 0)), None), lo, hi)
        value = evaluated(self.part, run, grid, self.step, self.selectors)
        assert isinstance(value, Vector)
        run.budget.spend(value.values.size)
        return RangeVector(MatrixSelection(value.labels, grid, value.values, value.present), lo, hi)
