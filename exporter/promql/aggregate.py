"""Aggregators that make one series of each group: sum, avg, min, max, count, group, stddev, stdvar, quantile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from exporter.promql.labels import drop, keep
from exporter.promql.model import Memo, Scalar, Vector
from exporter.promql.plan import Evaluation, Kind, Node
from exporter.storage.model import NAME, Labels

if TYPE_CHECKING:
    from exporter.storage.model import F64, I64, Bool

_CANCELLED = 1e3
"""How much larger than its result a sum's terms may be before rounding is made up for."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """`by (names)`, or `without (names)`, which also drops the metric name."""

    names: frozenset[str] = frozenset()
    without: bool = False

    def of(self, labels: Labels) -> Labels:
        """The label set of the group that a series falls into."""
        return drop(labels, self.names | {NAME}) if self.without else keep(labels, self.names)


@dataclass(frozen=True, slots=True)
class Groups:
    """Which rows of a vector make which group: rows in the order of their groups, and where each group starts."""

    labels: tuple[Labels, ...]  # g groups
    order: I64  # [n] rows, group by group
    starts: I64  # [g] places in `order`
    sizes: I64  # [g]
    in_order: bool
    """Whether `order` changes nothing."""

    def sorted(self, values: F64) -> F64:
        """The rows [n, s] in the order of their groups."""
        return values if self.in_order else values[self.order]

    def members(self, group: int) -> I64:
        """The rows of one group."""
        start = self.starts[group]
        return self.order[start : start + self.sizes[group]]


def groups_of(labels: Sequence[Labels], grouping: Grouping) -> Groups:
    """The groups of some series, in the order in which they first appear."""
    places: dict[Labels, list[int]] = {}
    for row, one in enumerate(labels):
        places.setdefault(grouping.of(one), []).append(row)
    order = np.array([row for rows in places.values() for row in rows], np.int64)
    sizes = np.array([len(rows) for rows in places.values()], np.int64)
    starts = np.cumsum(sizes) - sizes
    return Groups(tuple(places), order, starts, sizes, bool((order == np.arange(len(order))).all()))


@dataclass(slots=True)
class Aggregation:
    """One of `REDUCERS` over the groups of a vector."""

    operator: str
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
        labels = vector.labels
        if not labels:
            return Vector((), np.empty((0, len(run.steps.times))))
        groups = self.memo.of("groups", (labels,), lambda: groups_of(labels, self.grouping))
        values = groups.sorted(vector.values)
        present: Bool | None = None
        counts: F64 = groups.sizes[:, None].astype(np.float64)
        if vector.present is not None:
            present = vector.present if groups.in_order else vector.present[groups.order]
            counts = np.add.reduceat(present, groups.starts, axis=0, dtype=np.float64)
        with np.errstate(all="ignore"):
            result = REDUCERS[self.operator](values, present, counts, groups)
        if result.shape[1] != values.shape[1]:
            result = np.repeat(result, values.shape[1], axis=1)
        return Vector(groups.labels, result, None if present is None else counts > 0)


def _sum(values: F64, present: Bool | None, counts: F64, groups: Groups) -> F64:
    """Sums of each group; rounding errors are made up for where terms cancel, as Prometheus' Kahan summation does."""
    terms = values if present is None else np.where(present, values, 0.0)
    total: F64 = np.add.reduceat(terms, groups.starts, axis=0)
    if len(terms) > len(total) and (terms < 0).any():  # only terms of unlike signs cancel
        size = np.add.reduceat(np.abs(terms), groups.starts, axis=0)
        for group, step in np.argwhere(size > _CANCELLED * np.abs(total)):
            if math.isfinite(size[group, step]):
                start = groups.starts[group]
                total[group, step] = math.fsum(terms[start : start + groups.sizes[group], step].tolist())
    return total


def _avg(values: F64, present: Bool | None, counts: F64, groups: Groups) -> F64:
    total = _sum(values, present, counts, groups)
    mean: F64 = total / counts
    for group, step in np.argwhere(np.isinf(total)):
        start = groups.starts[group]
        terms = values[start : start + groups.sizes[group], step]
        if present is not None:
            terms = terms[present[start : start + groups.sizes[group], step]]
        if np.isfinite(terms).all():  # the sum is too large for a float, the mean is not
            mean[group, step] = math.fsum((terms / len(terms)).tolist())
    return mean


def _min(values: F64, present: Bool | None, counts: F64, groups: Groups) -> F64:
    terms = values if present is None else np.where(present, values, np.nan)
    result: F64 = np.fmin.reduceat(terms, groups.starts, axis=0)
    return result


def _max(values: F64, present: Bool | None, counts: F64, groups: Groups) -> F64:
    terms = values if present is None else np.where(present, values, np.nan)
    result: F64 = np.fmax.reduceat(terms, groups.starts, axis=0)
    return result


def _count(values: F64, present: Bool | None, counts: F64, groups: Groups) -> F64:
    return counts


def _group(values: F64, present: Bool | None, counts: F64, groups: Groups) -> F64:
    return np.ones_like(counts)


def _stdvar(values: F64, present: Bool | None, counts: F64, groups: Groups) -> F64:
    """The population variance, in two passes around each group's minimum, so that equal values give exactly 0."""
    base = np.repeat(_min(values, present, counts, groups), groups.sizes, axis=0)
    away = values - base if present is None else np.where(present, values - base, 0.0)
    mean = np.repeat(np.add.reduceat(away, groups.starts, axis=0) / counts, groups.sizes, axis=0)
    square = (away - mean) ** 2 if present is None else np.where(present, (away - mean) ** 2, 0.0)
    result: F64 = np.add.reduceat(square, groups.starts, axis=0) / counts
    return result


def _stddev(values: F64, present: Bool | None, counts: F64, groups: Groups) -> F64:
    result: F64 = np.sqrt(_stdvar(values, present, counts, groups))
    return result


REDUCERS: dict[str, Callable[[F64, Bool | None, F64, Groups], F64]] = {
    "sum": _sum,
    "avg": _avg,
    "min": _min,
    "max": _max,
    "count": _count,
    "group": _group,
    "stddev": _stddev,
    "stdvar": _stdvar,
}


@dataclass(slots=True)
class Quantile:
    """`quantile(q, …)`: interpolated between the two values around the rank, NaN counted as smaller than any."""

    parameter: Node
    part: Node
    grouping: Grouping
    memo: Memo = field(default_factory=Memo)
    kind: Kind = "vector"
    invariant: bool = field(init=False)

    def __post_init__(self) -> None:
        self.invariant = self.part.invariant and self.parameter.invariant

    def evaluate(self, run: Evaluation) -> Vector:
        level, vector = self.parameter.evaluate(run), self.part.evaluate(run)
        assert isinstance(level, Scalar) and isinstance(vector, Vector)
        labels = vector.labels
        steps = len(run.steps.times)
        groups = self.memo.of("groups", (labels,), lambda: groups_of(labels, self.grouping))
        result = np.empty((len(groups.labels), steps))
        present = None if vector.present is None else np.empty(result.shape, np.bool_)
        for group in range(len(groups.labels)):
            rows = groups.members(group)
            held = None if vector.present is None else vector.present[rows]
            result[group] = quantile(level.values, vector.values[rows], held)
            if present is not None and held is not None:
                present[group] = held.any(axis=0)
        return Vector(groups.labels, result, present)


def quantile(level: F64, values: F64, present: Bool | None) -> F64:
    """The quantile `level` [s] of the present values in each column of [k, s].

    promql/quantile.go in prometheus/prometheus: rank `level * (n - 1)`, linear between neighbours; below 0 it is -Inf,
    above 1 +Inf.
    """
    missing = np.isnan(values)
    steps = np.arange(values.shape[1])
    if present is None:
        count = np.full(values.shape[1], values.shape[0])
    else:
        count = present.sum(axis=0)
        missing &= present
    # NaN first and absent last, so that the others stand in order between them
    keyed = np.where(missing, -np.inf, values if present is None else np.where(present, values, np.inf))
    ordered = np.sort(keyed, axis=0)
    if missing.any():
        ordered[np.arange(len(values))[:, None] < missing.sum(axis=0)] = np.nan
    with np.errstate(all="ignore"):
        rank = np.where((level >= 0) & (level <= 1), level, 0.0) * (count - 1)
        low = np.maximum(np.floor(rank), 0).astype(np.int64)
        high = np.clip(low + 1, 0, np.maximum(count - 1, 0))
        weight = rank - np.floor(rank)
        result = ordered[low, steps] * (1 - weight) + ordered[high, steps] * weight
    result = np.where(level < 0, -np.inf, np.where(level > 1, np.inf, result))
    return np.where(np.isnan(level), np.nan, result)
