"""histogram_quantile and histogram_fraction of classic histograms: series of cumulative counts, one per `le`.

The arithmetic is Prometheus' (https://github.com/prometheus/prometheus/blob/main/promql/quantile.go), done for all
histograms with the same bounds at all steps at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exporter.promql.functions.arguments import scalar, vector
from exporter.promql.functions.naming import all_or, without_name
from exporter.promql.model import Argument, CallSite, Vector
from exporter.storage.model import Labels

if TYPE_CHECKING:
    from exporter.storage.model import F64, I64, Bool

BOUND = "le"
TOLERANCE = 1e-12
"""Neighbouring counts closer than this, relative to their sum, are the same count with another rounding error."""
SMALLEST = 2.0**-1022
"""The smallest normal float."""

OfCounts = Callable[["F64", "F64", "I64"], "F64"]
"""Rising bounds [b], cumulative counts [b, m], and which step each of the m columns is of: m results."""


@dataclass(frozen=True, slots=True)
class Family:
    """The histograms that have the same bounds."""

    bounds: F64  # [b], rising; the same one twice where `le="1"` and `le="1.0"` are both there
    rows: I64  # [b, g] the series of each bucket of each histogram
    places: I64  # [g] the histograms among all


@dataclass(frozen=True, slots=True)
class Histograms:
    """The histograms of a vector; `labels` without `le`, but with the name."""

    labels: Sequence[Labels]
    families: Sequence[Family]


def histogram_quantile(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """The value below which the fraction `q` of the observations lies, taken as evenly spread within a bucket."""
    q = scalar(arguments, 0)

    def of(bounds: F64, counts: F64, steps: I64) -> F64:
        return bucket_quantile(q[steps], bounds, counts)

    return _of_histograms(call, vector(arguments, 1), of)


def histogram_fraction(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """The fraction of the observations between two values, taken as evenly spread within a bucket."""
    lower, upper = scalar(arguments, 0), scalar(arguments, 1)

    def of(bounds: F64, counts: F64, steps: I64) -> F64:
        return bucket_fraction(lower[steps], upper[steps], bounds, counts)

    return _of_histograms(call, vector(arguments, 2), of)


def bucket_quantile(q: F64, bounds: F64, counts: F64) -> F64:
    """The q-quantile [m] of the histograms in `counts` [b, m]; `bounds` rise.

    NaN where there are no observations, fewer than two buckets, or no bucket for +Inf. In the highest bucket it is
    that bucket's lower bound; in the lowest one, counts are spread from 0 on, if its bound is above 0.
    """
    if bounds[-1] == np.inf:
        bounds, counts = coalesced(bounds, counts)
    if bounds[-1] != np.inf or len(bounds) < 2:
        result = np.full(counts.shape[1], np.nan)
    else:
        result = _interpolated(q, bounds, monotonic(counts))
    usual = (q >= 0.0) & (q <= 1.0)
    if not usual.all():
        result = np.where(usual, result, np.where(q < 0.0, -np.inf, np.where(q > 1.0, np.inf, np.nan)))
    return result


def _interpolated(q: F64, bounds: F64, counts: F64) -> F64:
    observations = counts[-1]
    rank = q * observations
    bucket = len(bounds) - 1 - np.count_nonzero(counts[:-1] >= rank, axis=0)
    columns = np.arange(counts.shape[1])
    below = np.where(bucket > 0, counts[bucket - 1, columns], 0.0)
    start = np.where(bucket > 0, bounds[bucket - 1], 0.0)
    share = (rank - below) / (counts[bucket, columns] - below)
    result: F64 = start + (bounds[bucket] - start) * share
    result = np.where(bucket == len(bounds) - 1, bounds[-2], result)
    if bounds[0] <= 0.0:
        result = np.where(bucket == 0, bounds[0], result)
    result[observations == 0.0] = np.nan
    return result


def bucket_fraction(lower: F64, upper: F64, bounds: F64, counts: F64) -> F64:
    """The fraction [m] of observations between `lower` and `upper` in `counts` [b, m]; `bounds` rise."""
    if bounds[-1] != np.inf:
        return np.full(counts.shape[1], np.nan)
    bounds, counts = coalesced(bounds, counts)
    observations = counts[-1]
    between = (_rank(upper, bounds, counts) - _rank(lower, bounds, counts)) / observations
    between = np.where(lower >= upper, 0.0, between)
    return np.where((observations == 0.0) | np.isnan(lower) | np.isnan(upper), np.nan, between)


def _rank(value: F64, bounds: F64, counts: F64) -> F64:
    """How many observations are at most `value`, [m]."""
    columns = np.arange(counts.shape[1])
    bucket = np.minimum(np.searchsorted(bounds, value), len(bounds) - 1)
    count = counts[bucket, columns]
    start = np.where(bucket > 0, bounds[bucket - 1], -np.inf if bounds[0] <= 0.0 else 0.0)
    below = np.where(bucket > 0, counts[bucket - 1, columns], 0.0)
    inside = below + (count - below) * (value - start) / (bounds[bucket] - start)
    rank = np.where((bounds[bucket] == value) | np.isneginf(start), count, inside)
    rank = np.where(value <= start, below, rank)
    return np.where(rank > counts[-1], counts[-1], rank)


def coalesced(bounds: F64, counts: F64) -> tuple[F64, F64]:
    """Buckets of equal bounds made one, with the sum of their counts."""
    new = np.empty(len(bounds), dtype=np.bool_)
    new[:1] = True
    np.not_equal(bounds[1:], bounds[:-1], out=new[1:])
    if new.all():
        return bounds, counts
    starts = np.flatnonzero(new)
    return bounds[starts], np.add.reduceat(counts, starts, axis=0)


def monotonic(counts: F64) -> F64:
    """Cumulative counts [b, m] that never fall: a count below an earlier one, or as good as equal to it, becomes it."""
    steps = counts[1:] - counts[:-1]
    same = TOLERANCE * (np.abs(counts[1:]) + np.abs(counts[:-1]))
    doubtful = ((steps < same) & (steps != 0.0)).any(axis=0)
    if not doubtful.any():
        return counts
    fixed = counts.copy()
    part = fixed[:, doubtful]
    highest = part[0]
    for count in part[1:]:
        count[...] = highest = np.where((count < highest) | _almost_equal(count, highest), highest, count)
    fixed[:, doubtful] = part
    return fixed


def _almost_equal(a: F64, b: F64) -> Bool:
    """As Prometheus compares: https://github.com/prometheus/prometheus/blob/main/util/almost/almost.go"""
    apart, together = np.abs(a - b), np.abs(a) + np.abs(b)
    tiny = (a == 0.0) | (b == 0.0) | (together < SMALLEST)
    relative = apart / np.minimum(together, np.finfo(np.float64).max)
    equal: Bool = (a == b) | np.where(tiny, apart < TOLERANCE * SMALLEST, relative < TOLERANCE)
    return equal


def bound(text: str | None) -> float | None:
    """What an `le` label says, as Go reads floats; None where that is no number."""
    if text is None or not _NUMBER.fullmatch(text):
        return None
    value = float(text)
    if value == value and (abs(value) != float("inf") or "i" in text.lower()):
        return value
    return None


_NUMBER = re.compile(
    r"[+-]?(?:inf|infinity|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)", re.IGNORECASE | re.ASCII
)


def histograms(series: Sequence[Labels]) -> Histograms:
    """The histograms that the series are the buckets of; a series without a bound is of none."""
    buckets: dict[Labels, list[tuple[float, int]]] = {}
    for row, labels in enumerate(series):
        at = bound(dict(labels).get(BOUND))
        if at is not None:
            others = tuple(pair for pair in labels if pair[0] != BOUND)
            buckets.setdefault(others, []).append((at, row))
    alike: dict[tuple[float, ...], list[tuple[int, list[int]]]] = {}
    for place, own in enumerate(buckets.values()):
        own.sort(key=lambda pair: pair[0])
        alike.setdefault(tuple(at for at, _ in own), []).append((place, [row for _, row in own]))
    families = [
        Family(
            np.array(bounds),
            np.array([rows for _, rows in members], dtype=np.int64).T,
            np.array([place for place, _ in members], dtype=np.int64),
        )
        for bounds, members in alike.items()
    ]
    return Histograms(list(buckets), families)


def _of_histograms(call: CallSite, given: Vector, of: OfCounts) -> Vector:
    found = call.memo.of("histograms", (given.labels,), lambda: histograms(given.labels))
    steps = given.values.shape[1]
    values = np.zeros((len(found.labels), steps))
    present: Bool | None = None
    with np.errstate(all="ignore"):
        for family in found.families:
            counts = given.values[family.rows].reshape(len(family.bounds), -1)  # [b, g * s]
            call.budget.spend(counts.size)
            which = np.tile(np.arange(steps), len(family.places))
            here = None if given.present is None else given.present[family.rows].reshape(counts.shape)
            if here is None or here.all():
                results, some = of(family.bounds, counts, which), None
            else:
                results, some = np.zeros(counts.shape[1]), here.any(axis=0)
                for buckets, columns in _patterns(here):
                    results[columns] = of(
                        family.bounds[buckets], counts[np.ix_(buckets, columns)], which[columns]
                    )
            values[family.places] = results.reshape(-1, steps)
            if some is not None:
                if present is None:
                    present = np.ones(values.shape, dtype=np.bool_)
                present[family.places] = some.reshape(-1, steps)
    return without_name(call, found.labels, values, None if present is None else all_or(present))


def _patterns(here: Bool) -> Iterator[tuple[I64, I64]]:
    """Which buckets are there, [b, m], as few sets of buckets, each with the columns that have just these."""
    packed = np.ascontiguousarray(np.packbits(here, axis=0).T)
    keys = packed.view(np.dtype((np.void, packed.shape[1])))[:, 0]
    _, firsts, inverse = np.unique(keys, return_index=True, return_inverse=True)
    for pattern, first in enumerate(firsts):
        buckets = np.flatnonzero(here[:, first])
        if len(buckets):
            yield buckets, np.flatnonzero(inverse == pattern)
