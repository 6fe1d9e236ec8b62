"""Aggregators that keep series or count values: topk, bottomk, count_values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from exporter.promql.aggregate import Grouping, groups_of
from exporter.promql.labels import merged
from exporter.promql.model import Memo, QueryError, Scalar, Vector
from exporter.promql.numbers import plain_float
from exporter.promql.plan import Evaluation, Kind, Node
from exporter.storage.model import Labels

if TYPE_CHECKING:
    from exporter.storage.model import F64

_INT64 = 2.0**63


@dataclass(slots=True)
class Rank:
    """`topk(k, …)` and `bottomk(k, …)`: the k series of each group with the largest or smallest values, NaN last.

    Labels are kept whole. At one step the series come in order, group after group; over several they have none.
    """

    largest: bool
    parameter: Node
    part: Node
    grouping: Grouping
    memo: Memo = field(default_factory=Memo)
    orders: Memo = field(default_factory=Memo)
    kind: Kind = "vector"
    invariant: bool = field(init=False)

    def __post_init__(self) -> None:
        self.invariant = self.part.invariant and self.parameter.invariant

    def evaluate(self, run: Evaluation) -> Vector:
        limit, vector = self.parameter.evaluate(run), self.part.evaluate(run)
        assert isinstance(limit, Scalar) and isinstance(vector, Vector)
        self._check(limit.values)
        labels = vector.labels
        groups = self.memo.of("groups", (labels,), lambda: groups_of(labels, self.grouping))
        present = vector.present if vector.present is not None else np.ones(vector.values.shape, np.bool_)
        ascending = -vector.values if self.largest else vector.values
        chosen = np.zeros(vector.values.shape, np.bool_)
        order: list[int] = []
        with np.errstate(invalid="ignore"):
            # no more than there are, and whole
            limits = np.clip(np.trunc(limit.values), 0, max(len(labels), 1)).astype(np.int64)
        for group in range(len(groups.labels)):
            rows = groups.members(group)
            ranked = _ranked(ascending[rows], present[rows])
            places = np.empty_like(ranked)
            np.put_along_axis(places, ranked, np.arange(len(rows))[:, None], axis=0)
            chosen[rows] = (places < limits) & present[rows]
            if len(limits) == 1:
                order.extend(row for row in rows[ranked[: limits[0], 0]].tolist() if chosen[row, 0])
        if run.steps.interval or len(limits) != 1:
            return Vector(labels, vector.values, chosen)
        kept = self.orders.of("order", (labels,), dict[tuple[int, ...], tuple[Labels, ...]])
        key = tuple(order)
        if key not in kept:
            kept.clear()
            kept[key] = tuple(labels[row] for row in order)
        return Vector(kept[key], vector.values[order])

    def _check(self, limits: F64) -> None:
        if np.fmax.reduce(limits) < 1:
            return
        if np.isnan(limits).any():
            raise QueryError("execution", "Parameter value is NaN")
        if limits.min() <= -_INT64:
            raise QueryError("execution", f"Scalar value {plain_float(float(limits.min()))} underflows int64")
        if limits.max() >= _INT64:
            raise QueryError("execution", f"Scalar value {plain_float(float(limits.max()))} overflows int64")


def _ranked(
    ascending: F64, present: np.ndarray[tuple[int, int], np.dtype[np.bool_]]
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """For each step the rows, smallest first: numbers, then NaN, then the absent."""
    keys = np.where(present, np.where(np.isnan(ascending), 1, 0), 2)
    result: np.ndarray[tuple[int, int], np.dtype[np.int64]] = np.lexsort(
        (np.where(keys == 0, ascending, 0.0), keys), axis=0
    )
    return result


@dataclass(slots=True)
class CountValues:
    """`count_values("label", …)`: how often each value occurs in a group, the value as a label."""

    label: str
    part: Node
    grouping: Grouping
    memo: Memo = field(default_factory=Memo)
    kind: Kind = "vector"
    invariant: bool = field(init=False)

    def __post_init__(self) -> None:
        self.invariant = self.part.invariant

    def evaluate(self, run: Evaluation) -> Vector:
        vector = self.part.evaluate(run)
        assert isinstance(vector, Vector)
        steps = vector.values.shape[1]
        run.budget.spend(vector.values.size)
        grouping = self.grouping
        if not grouping.without:
            grouping = Grouping(grouping.names | {self.label})
        counts: dict[Labels, list[float]] = {}
        known: dict[tuple[int, float | None], Labels] = {}
        rows, columns = (
            np.indices(vector.values.shape).reshape(2, -1)
            if vector.present is None
            else np.nonzero(vector.present)
        )
        cells = zip(rows.tolist(), columns.tolist(), vector.values[rows, columns].tolist(), strict=True)
        for row, column, value in cells:
            key = (row, None if math.isnan(value) else value)
            labels = known.get(key)
            if labels is None or value == 0:  # 0 and -0 are equal, but not written alike
                labels = grouping.of(merged(vector.labels[row], [(self.label, plain_float(value))]))
                known[key] = labels
            held = counts.get(labels)
            if held is None:
                run.budget.spend(steps)  # each value makes a row over all steps
                held = counts[labels] = [0.0] * steps
            held[column] += 1
        values = np.array(list(counts.values())).reshape(len(counts), steps)
        return Vector(tuple(counts), values, values > 0)
