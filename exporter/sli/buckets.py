"""Histogram arithmetic: cumulative counts at one set of bounds seen at another, and quantiles out of them.

Inside a bucket observations count as spread evenly, which is what Prometheus' `histogram_quantile` assumes
(https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile). Bounds are finite and rise; the
`+Inf` bucket is the count beside them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from operator import itemgetter

_TRACE = 1e-6
"""Less than this of an observation is what rounding left, not an observation."""


class BucketMap:
    """From cumulative counts at `source` bounds to those at `bounds`: each is a weighted sum of two neighbours.

    Above the source's last finite bound nothing is known: what lies there counts in `+Inf` alone. `exact` tells that
    no bound of ours lies inside a source's bucket.
    """

    def __init__(self, source: Sequence[float], bounds: Sequence[float]) -> None:
        zero = len(source)  # stands for the count below every bucket
        plan: list[tuple[int, int, float]] = []
        for bound in bounds:
            above = bisect_left(source, bound)
            if above < zero and source[above] == bound:
                plan.append((above, above, 0.0))
            elif above == zero:
                last = zero - 1 if source else zero
                plan.append((last, last, 0.0))
            else:
                low = above - 1 if above else zero
                start = source[above - 1] if above else min(0.0, source[0])
                width = source[above] - start
                weight = (bound - start) / width if width > 0 and bound > start else 0.0
                plan.append((low, above, weight))
        indexes = [low for low, _, _ in plan]
        # A getter of one index would give no tuple, hence the index twice.
        self._pick = itemgetter(*indexes, indexes[0])
        self._between = [
            (place, low, high, weight) for place, (low, high, weight) in enumerate(plan) if weight > 0.0
        ]
        self.exact = not self._between

    def map(self, counts: Sequence[float]) -> list[float]:
        """Our cumulative counts, given one cumulative count per bound of the source."""
        padded = [*counts, 0.0]
        mapped = [*self._pick(padded)]
        mapped.pop()
        for place, low, high, weight in self._between:
            mapped[place] += (padded[high] - padded[low]) * weight
        return mapped


def quantile(q: float, bounds: Sequence[float], cumulative: Sequence[float], count: float) -> float | None:
    """The `q` quantile as `histogram_quantile` has it; None when nothing was observed.

    In the `+Inf` bucket it is the last finite bound, below a first bound that is not positive it is that bound.
    """
    if not count > 0 or not bounds:
        return None
    rank = q * count
    index = bisect_left(cumulative, rank)
    if index == len(bounds):
        return bounds[-1]
    upper = bounds[index]
    if index == 0:
        if upper <= 0:
            return upper
        lower, below = 0.0, 0.0
    else:
        lower, below = bounds[index - 1], cumulative[index - 1]
    inside = cumulative[index] - below
    return lower + (upper - lower) * (rank - below) / inside if inside > 0 else lower


def edges(bounds: Sequence[float], cumulative: Sequence[float], count: float) -> tuple[float, float] | None:
    """What every observation lies between: the lower edge of the first bucket that has one, the upper of the last.

    In the `+Inf` bucket the upper edge is the last finite bound. None when nothing was observed.
    """
    if not count > 0 or not bounds:
        return None
    first = bisect_right(cumulative, _TRACE)
    last = bisect_left(cumulative, count - _TRACE)
    return (min(0.0, bounds[0]) if first == 0 else bounds[first - 1]), bounds[min(last, len(bounds) - 1)]
