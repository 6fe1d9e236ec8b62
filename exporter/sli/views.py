"""From totals to the series of a block: what is shown of each model, written only where it moved."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from operator import add
from typing import Any

from exporter.exposition.block import HistogramSlot
from exporter.sli.buckets import BucketMap
from exporter.sli.routes import HistogramRoute

ROUNDING = 1e-6
"""Interpolated counts are shown rounded down, but what is this close below an integer is that integer."""


class HistogramView:
    """One histogram of one model: our counts, as they stood at the last layout plus what the routes brought since.

    `vector` is the unrounded total: a cumulative count per bound, the count, the sum. Shown counts are integers that
    rise with `le` and with time.
    """

    def __init__(self, slot: HistogramSlot) -> None:
        self.slot = slot
        self._shown: list[int] = [0] * len(slot.bounds)
        self._count = 0
        self._seen: list[float] = []
        self._base: list[float] = []
        self._routes: list[HistogramRoute] = []
        self._from_zero = self._whole = True
        self._lifted = False  # whether counts have been shown higher than they are, to keep their order
        self._rebased = False
        self.vector: list[float] = []

    def bind(self, base: list[float], routes: list[HistogramRoute]) -> None:
        """Another layout: show `base` plus what these routes bring from now on."""
        self._base, self._routes = base, routes
        self._from_zero = not any(base)
        self._whole = self._from_zero and all(route.buckets.exact for route in routes)
        self._lifted = self._lifted or any(route.ragged for route in routes)
        self._rebased = True

    def refresh(self, values: Sequence[float]) -> bool:
        """Show the totals if the count or the sum moved; whether they did."""
        seen = [values[place] for route in self._routes for place in (route.stop, route.stop + 1)]
        if seen == self._seen and not self._rebased:
            return False
        vector = self._base
        for route in self._routes:
            mapped = route.buckets.map(values[route.start : route.stop])
            mapped += values[route.stop : route.stop + 2]
            first = vector is self._base and self._from_zero
            vector = mapped if first else list(map(add, vector, mapped))
        self.vector = vector
        counts = vector[:-2]
        shown = list(map(int, counts)) if self._whole else [int(count + ROUNDING) for count in counts]
        if self._lifted or self._rebased:
            shown = list(accumulate(map(max, self._shown, shown), max))
        self._seen, self._rebased = seen, False
        self._shown = shown
        self._count = max(self._count, int(vector[-2] + ROUNDING), shown[-1])
        self.slot.load(shown, self._count, vector[-1])
        return True


class ObservedHistogram:
    """A histogram of our own observations, which goes on after a restart of the daemon, also with other bounds."""

    def __init__(self, slot: HistogramSlot) -> None:
        self.slot = slot
        self._counts = [0] * len(slot.bounds)
        self._count = 0
        self._sum = 0.0
        self._load()

    def observe(self, value: float) -> None:
        """Count one observation."""
        counts = self._counts
        for index in range(bisect_left(self.slot.bounds, value), len(counts)):
            counts[index] += 1
        self._count += 1
        self._sum += value
        self._load()

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, JSON-able."""
        return {
            "bounds": list(self.slot.bounds),
            "counts": list(self._counts),
            "count": self._count,
            "sum": self._sum,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        mapping = BucketMap([float(bound) for bound in state["bounds"]], self.slot.bounds)
        counts = mapping.map([float(count) for count in state["counts"]])
        self._counts = [int(count + ROUNDING) for count in counts]
        self._count, self._sum = int(state["count"]), float(state["sum"])
        self._load()

    def _load(self) -> None:
        self.slot.load(list(self._counts), self._count, self._sum)
