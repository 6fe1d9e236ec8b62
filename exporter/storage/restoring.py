"""What a stream had before the restart, put back from the archive's batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.storage.arrays import F64, I32, I64, Bool, distinct
from exporter.storage.batch import Batch
from exporter.storage.bits import ABSENT, are_samples, has_nan
from exporter.storage.columns import Columns
from exporter.storage.model import Labels
from exporter.storage.segment import Segment
from exporter.storage.stream import SEGMENT_VALUES, Stream

_ROWS = 64, 4096
"""Fewest and most rows of a segment that is made whole."""


def restore(stream: Stream, batches: Sequence[Batch]) -> None:
    """Fill an empty stream, under its lock; batches of different retention may cover the same time.

    Of two values for one series and time the later batch's counts.
    """
    batches = [batch for batch in batches if len(batch.times) and len(batch.labels)]
    if not batches:
        return
    known: dict[int, tuple[Sequence[Labels], I32]] = {}
    slots = []
    for batch in batches:
        if id(batch.labels) not in known:
            flags = np.array(batch.counters, np.bool_)
            known[id(batch.labels)] = batch.labels, stream.slots_of(batch.labels, flags)
        slots.append(known[id(batch.labels)][1])
    order = sorted(range(len(batches)), key=lambda i: int(batches[i].times[0]))
    stamps = _union([batches[i].times for i in order])
    fewest, most = _ROWS
    state = _State(stream)
    segments: list[Segment] = []
    columns = Columns(np.zeros(0, np.int32))
    waiting, under_way, start = iter([*order, None]), list[int](), 0
    upcoming = next(waiting)
    while start < len(stamps):
        under_way = [i for i in under_way if batches[i].times[-1] >= stamps[start]]
        while upcoming is not None and batches[upcoming].times[0] <= stamps[start]:
            under_way.append(upcoming)
            upcoming = next(waiting)
        width = sum(len(slots[i]) for i in under_way)
        stop = min(len(stamps), start + min(most, max(fewest, SEGMENT_VALUES // max(1, width))))
        while upcoming is not None and batches[upcoming].times[0] <= stamps[stop - 1]:
            under_way.append(upcoming)
            upcoming = next(waiting)
        times = stamps[start:stop]
        wanted = distinct(np.concatenate([slots[i] for i in under_way]))
        if not np.array_equal(wanted, columns.slots):
            columns = Columns(wanted)
        values = np.full((len(times), len(wanted)), ABSENT)
        for i in sorted(under_way):
            _place(values, columns.find(slots[i]), times, batches[i])
        state.take(start, columns.slots, values)
        segments.append(Segment(start, columns, values, int(times[-1])))
        start = stop
    stream.segments = tuple(segments)
    stream.put_stamps(stamps)
    stream.saved = stream.next_row
    stream.reopen(np.flatnonzero(state.live).astype(np.int32))
    stream.publish()


def _union(times: Sequence[I64]) -> I64:
    """Every time once, rising."""
    stamps: I64 = np.concatenate(times)
    rises = stamps[1:] > stamps[:-1]
    if rises.all():
        return stamps
    stamps.sort(kind="stable")
    union: I64 = stamps[np.concatenate([[True], stamps[1:] > stamps[:-1]])]
    return union


def _place(values: F64, columns: I32, times: I64, batch: Batch) -> None:
    low, high = batch.times.searchsorted((times[0], times[-1] + 1)).tolist()
    if high <= low:
        return
    start, last = times.searchsorted(batch.times[[low, high - 1]]).tolist()
    piece = batch.values[:, low:high].T
    if last - start == high - low - 1:
        target = values[start : last + 1]
        first = int(columns[0])
        if np.array_equal(columns, np.arange(first, first + len(columns))):
            target[:, first : first + len(columns)] = piece
        else:
            target[:, columns] = piece
    else:
        values[np.ix_(times.searchsorted(batch.times[low:high]), columns)] = piece


class _State:
    """What happened to each series so far, while rows come in blocks."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.live: Bool = np.zeros(len(stream.counters), np.bool_)

    def take(self, first: int, slots: I32, values: F64) -> None:
        """Note what happens in the rows `[rows, columns]` from number `first` on."""
        stream, live = self.stream, self.live
        missing = live.copy()
        missing[slots] = False
        gone = np.flatnonzero(missing).astype(np.int32)
        stream.turns.add(first, gone, -1.0)
        live[gone] = False
        sampled = are_samples(values) if has_nan(values) else None
        if sampled is None:
            came = slots[~live[slots]]
            stream.turns.add(first, came, 1.0)
            live[slots] = True
        else:
            before = np.concatenate([live[slots][None, :], sampled[:-1]])
            rows, columns = np.nonzero(sampled != before)
            weights = np.where(sampled[rows, columns], 1.0, -1.0)
            stream.turns.add(rows + first, slots[columns], weights)
            live[slots] = sampled[-1]
        counters = stream.counters[slots]
        if counters.all():
            self._take_counters(first, slots, values, sampled)
        elif counters.any():
            sampled = None if sampled is None else sampled[:, counters]
            self._take_counters(first, slots[counters], values[:, counters], sampled)

    def _take_counters(self, first: int, slots: I32, values: F64, sampled: Bool | None) -> None:
        previous = self.stream.previous
        filled = values if sampled is None else _filled(values, sampled, previous[slots])
        before = np.concatenate([previous[slots][None, :], filled[:-1]])
        fell = values < before
        if sampled is not None:
            fell &= sampled
        if fell.any():
            rows, columns = np.nonzero(fell)
            self.stream.resets.add(rows + first, slots[columns], before[rows, columns])
        previous[slots] = filled[-1]


def _filled(values: F64, sampled: Bool, before: F64) -> F64:
    """Each entry without a sample replaced by the last sample before it."""
    last = np.where(sampled, np.arange(len(values))[:, None], -1)
    np.maximum.accumulate(last, axis=0, out=last)
    filled: F64 = np.where(last >= 0, np.take_along_axis(values, np.maximum(last, 0), axis=0), before)
    return filled
