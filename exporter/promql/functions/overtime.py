"""The `*_over_time` functions, and what counts or compares neighbours: changes, resets, irate, idelta."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.promql.functions.arguments import scalar, window
from exporter.promql.functions.naming import all_or, without_name
from exporter.promql.functions.quantiles import quantiles
from exporter.promql.functions.summation import means, sums
from exporter.promql.functions.windows import over_time, over_windows
from exporter.promql.model import Argument, CallSite, Vector
from exporter.storage.model import Samples

if TYPE_CHECKING:
    from exporter.storage.model import F64


def last_over_time(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """The newest sample in the window, under its own name."""
    asked = window(arguments)
    labels = asked.selection.labels
    call.budget.spend(len(labels) * len(asked.hi))
    edges = asked.selection.edges(asked.lo, asked.hi)
    return Vector(labels, edges.last, all_or(edges.counts > 0))


def count_over_time(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """How many samples the window holds."""
    asked = window(arguments)
    labels = asked.selection.labels
    call.budget.spend(len(labels) * len(asked.hi))
    counts = asked.selection.edges(asked.lo, asked.hi).counts
    return without_name(call, labels, counts.astype(np.float64), all_or(counts > 0))


def present_over_time(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """1 where the window holds any sample."""
    asked = window(arguments)
    labels = asked.selection.labels
    call.budget.spend(len(labels) * len(asked.hi))
    counts = asked.selection.edges(asked.lo, asked.hi).counts
    return without_name(call, labels, np.ones(counts.shape), all_or(counts > 0))


def quantile_over_time(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    q = scalar(arguments, 0).tolist()
    return over_windows(call, window(arguments, 1), lambda step, group: quantiles(q[step], group.values))


def irate(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """Growth of a counter per second between the window's last two samples; after a reset, what it has grown since."""

    def last_two(_step: int, group: Samples) -> F64:
        before, now = group.values[:, -2], group.values[:, -1]
        grown: F64 = np.where(now < before, now, now - before)
        grown /= int(group.times[-1] - group.times[-2]) / 1000.0
        return grown

    return over_windows(call, window(arguments), last_two, least=2)


def variances(values: F64) -> F64:
    """The variance of each row; of equal values exactly 0."""
    apart = values - values[:, :1]
    variance: F64 = sums(np.square(apart - means(apart)[:, np.newaxis])) / values.shape[1]
    return variance


def changed(values: F64) -> F64:
    """How often a value differs from the one before; NaN is like NaN."""
    before, now = values[:, :-1], values[:, 1:]
    different = (now != before) & ~(np.isnan(now) & np.isnan(before))
    count: F64 = np.sum(different, axis=1, dtype=np.float64)
    return count


sum_over_time = over_time(sums)
avg_over_time = over_time(means)
min_over_time = over_time(lambda values: np.fmin.reduce(values, axis=1))
max_over_time = over_time(lambda values: np.fmax.reduce(values, axis=1))
stdvar_over_time = over_time(variances)
stddev_over_time = over_time(lambda values: np.sqrt(variances(values)))
changes = over_time(changed)
resets = over_time(lambda values: np.sum(values[:, 1:] < values[:, :-1], axis=1, dtype=np.float64))
idelta = over_time(lambda values: values[:, -1] - values[:, -2], least=2)
