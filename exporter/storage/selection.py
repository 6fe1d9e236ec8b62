"""Some series of the head, as PromQL reads them: from the streams that they stand in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.storage import reading
from exporter.storage.arrays import I64, Bool
from exporter.storage.model import Edges, Labels, Latest, Samples
from exporter.storage.reading import Chosen
from exporter.storage.shared import SharedSeries

if TYPE_CHECKING:
    from exporter.storage.index import Found
    from exporter.storage.stream import Stream


class HeadSelection:
    """Series in an order that stays: stream by stream, and behind them those that stand in several streams."""

    def __init__(self, found: Found, epoch: int = 0) -> None:
        self.epoch = epoch
        """Slots that were given up after this one may be among the selection's."""
        labels: list[Labels] = []
        self._parts: list[tuple[Stream, Chosen, int]] = []
        for stream, slots, some in found.parts:
            self._parts.append((stream, Chosen(slots), len(labels)))
            labels += some
        shared = sorted(found.shared, key=lambda one: one[0])
        self._shared = [(SharedSeries(places), len(labels) + i) for i, (_, places) in enumerate(shared)]
        labels += [one for one, _ in shared]
        self._labels: Sequence[Labels] = labels

    @property
    def labels(self) -> Sequence[Labels]:
        """One label set per series; the same object as long as the selected series stay the same."""
        return self._labels

    def same_series(self, other: HeadSelection) -> bool:
        """Whether both select the same series from the same places."""
        return (
            len(self._parts) == len(other._parts)
            and self._labels == other._labels
            and all(
                one[0] is two[0] and np.array_equal(one[1].slots, two[1].slots)
                for one, two in zip(self._parts, other._parts, strict=True)
            )
            and [one.places for one, _ in self._shared] == [one.places for one, _ in other._shared]
        )

    def latest(self, times: I64, lookback: int) -> Latest:
        """For each time t the newest sample in `(t - lookback, t]`; a series whose newest entry is stale has none."""
        if len(self._parts) == 1 and not self._shared:
            stream, chosen, _ = self._parts[0]
            values, stamps, present = reading.newest(stream.view, chosen, times, lookback)
            return Latest(values, stamps[None, :], present)
        shape = len(self._labels), len(times)
        out = Latest(np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.bool_))
        for stream, chosen, at in self._parts:
            rows = slice(at, at + len(chosen.slots))
            out.values[rows], out.times[rows], out.present[rows] = reading.newest(
                stream.view, chosen, times, lookback
            )
        for series, at in self._shared:
            out.values[at], out.times[at], out.present[at] = series.latest(times, lookback)
        return out

    def edges(self, lo: I64, hi: I64) -> Edges:
        """For each window `(lo[i], hi[i]]` its first and last samples, and the rise between them."""
        if len(self._parts) == 1 and not self._shared:
            stream, chosen, _ = self._parts[0]
            return reading.edges(stream.view, chosen, lo, hi)
        parts = [reading.edges(stream.view, chosen, lo, hi) for stream, chosen, _ in self._parts]
        parts += [series.edges(lo, hi) for series, _ in self._shared]
        if not parts:
            none, zero = np.zeros((0, len(lo)), np.int64), np.zeros((0, len(lo)))
            return Edges(none, none, zero, none, zero, zero)
        return Edges(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def samples(self, lo: int, hi: int) -> list[Samples]:
        """Everything in the window `(lo, hi]`: groups of series that share their times; series without any are left out."""
        found: list[Samples] = []
        for stream, chosen, at in self._parts:
            groups = reading.samples(stream.view, chosen, lo, hi)
            found += groups if not at else [one._replace(rows=np.asarray(one.rows) + at) for one in groups]
        for series, at in self._shared:
            times, values = series.samples(lo, hi)
            if len(times):
                found.append(Samples([at], times, values[None, :]))
        return found

    def sampled(self, lo: int, hi: int) -> Bool:
        """Which series have a sample in `(lo, hi]`."""
        has = np.zeros(len(self._labels), np.bool_)
        for stream, chosen, at in self._parts:
            has[at : at + len(chosen.slots)] = reading.sampled(stream.view, chosen, lo, hi)
        for series, at in self._shared:
            has[at] = len(series.samples(lo, hi)[0]) > 0
        return has
