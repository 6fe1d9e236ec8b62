"""Observations counted as they come, and made into a histogram when somebody looks."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from exporter.exposition.block import HistogramSlot


class Distribution:
    """Counts per bucket, not cumulative: an observation is one addition.

    `bounds` rise and are finite. What lies above the last one has a count of its own.
    """

    __slots__ = ("_counts", "_shown", "bounds", "count", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)
        self._shown = -1
        self.count = 0
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.total += value
        self.count += 1

    def observe_all(self, values: array[float]) -> None:
        """Count many doubles, where each for itself would be dear."""
        import numpy as np  # it takes a tenth of a second, and the gateway's clients need not wait for it

        numbers = np.frombuffer(values)
        added = np.bincount(np.searchsorted(self.bounds, numbers), minlength=len(self._counts)).tolist()
        self._counts = [before + more for before, more in zip(self._counts, added, strict=True)]
        self.total += float(numbers.sum())
        self.count += len(values)

    def show(self, slot: HistogramSlot) -> None:
        """Bring a slot up to date; nothing is done where nothing was observed since."""
        if self._shown != self.count:
            self._shown = self.count
            slot.load([*accumulate(self._counts[:-1])], self.count, self.total)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, JSON-able."""
        return {"bounds": list(self.bounds), "counts": list(self._counts), "total": self.total}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; where the bounds are others by now, from nothing.

        Raises KeyError, TypeError or ValueError for what no `state` said.
        """
        counts = [int(count) for count in state["counts"]]
        total = float(state["total"])
        if tuple(state["bounds"]) != self.bounds:
            return
        if len(counts) != len(self._counts) or min(counts) < 0 or total != total:
            raise ValueError("no state of this distribution")
        self._counts, self.count, self.total = counts, sum(counts), total
