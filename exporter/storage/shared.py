"""A series that several streams append to, such as the same record in two rule groups; slow, plain and rare."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from exporter.storage.arrays import F64, I64, Bool
from exporter.storage.bits import are_absent, are_samples
from exporter.storage.model import Edges

if TYPE_CHECKING:
    from exporter.storage.stream import Stream


class SharedSeries:
    """What its streams say together, in time order; of two samples at one time the first stream's counts."""

    def __init__(self, places: tuple[tuple[Stream, int], ...]) -> None:
        self.places = tuple(sorted(places, key=lambda one: one[0].number))

    def latest(self, times: I64, lookback: int) -> tuple[F64, I64, Bool]:
        """Value, time and presence at each time; a marker of either stream ends the series until the next sample."""
        stamps, values, sampled = self._entries(int(times.min()) - lookback, int(times.max()))
        if not len(stamps):
            return np.zeros(len(times)), times, np.zeros(len(times), np.bool_)
        at = stamps.searchsorted(times, "right") - 1
        inside = np.maximum(at, 0)
        found = stamps[inside]
        return values[inside], found, (at >= 0) & (found > times - lookback) & sampled[inside]

    def edges(self, lo: I64, hi: I64) -> Edges:
        """The first and last samples in each window, as rows of one series."""
        stamps, values = self.samples(int(lo.min()), int(hi.max()))
        n = len(lo)
        if not len(stamps):
            none, zero = np.zeros((1, n), np.int64), np.zeros((1, n))
            return Edges(none, none, zero, none, zero, zero)
        a = stamps.searchsorted(lo, "right")
        b = stamps.searchsorted(hi, "right") - 1
        counts = np.maximum(b - a + 1, 0)
        a, b = np.minimum(a, len(stamps) - 1), np.maximum(b, 0)
        lost = np.where(values[1:] < values[:-1], values[:-1], 0.0)
        with np.errstate(invalid="ignore", over="ignore"):
            rise = values[b] - values[a]
            for i in np.flatnonzero(counts > 1):
                rise[i] += lost[a[i] : b[i]].sum()
        first, last = (stamps[a][None, :], values[a][None, :]), (stamps[b][None, :], values[b][None, :])
        return Edges(counts[None, :], *first, *last, rise[None, :])

    def samples(self, lo: int, hi: int) -> tuple[I64, F64]:
        """Times and values of its samples in `(lo, hi]`."""
        stamps, values, sampled = self._entries(lo, hi)
        return stamps[sampled], values[sampled]

    def _entries(self, lo: int, hi: int) -> tuple[I64, F64, Bool]:
        """Samples and markers in `(lo, hi]`: times, values, and which are samples."""
        stamps: list[I64] = []
        values: list[F64] = []
        for stream, slot in self.places:
            view = stream.view
            low, high = view.stamps.searchsorted((lo, hi), "right").tolist()
            if high > low:
                stamps.append(view.stamps[low:high])
                slots = np.array([slot], np.int32)
                values.append(view.block(slots, low + view.base, high + view.base)[0])
        if not stamps:
            return np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_)
        times, entries = np.concatenate(stamps), np.concatenate(values)
        kept = ~are_absent(entries)
        times, entries = times[kept], entries[kept]
        marks = ~are_samples(entries)
        order = np.lexsort((marks, times))
        times, entries, marks = times[order], entries[order], marks[order]
        new = np.ones(len(times), np.bool_)
        new[1:] = times[1:] != times[:-1]
        return times[new], entries[new], ~marks[new]
