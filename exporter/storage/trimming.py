"""Taking away from a stream: what is too old, what does not fit into memory, what lies in the future."""

from __future__ import annotations

import numpy as np

from exporter.storage.arrays import I32, I64, Bool
from exporter.storage.bits import are_samples
from exporter.storage.columns import Columns
from exporter.storage.segment import Segment, join
from exporter.storage.stream import SEGMENT_VALUES, Stream

_JOINED_ROWS = 4096
"""Most rows of a segment that is joined of smaller ones."""
_PARTS = 8
"""Least number of segments that what is kept of a series is cut into."""


def keeps_all(stream: Stream, least: int, now_ms: int) -> bool:
    """Whether `trim` would find nothing; needs no lock, since what was just appended is not too old."""
    if stream.open.rows and stream.last_ms is not None and now_ms - stream.last_ms >= least:
        return False
    segments = stream.segments
    return not segments or now_ms - segments[0].end_ms < least


def trim(stream: Stream, keep: I64, least: int, now_ms: int) -> bool:
    """Drop what is older than its series are kept; `keep` in milliseconds by slot, `least` the smallest there is.

    Under the stream's lock. True: something went.
    """
    rows = stream.open
    if rows.rows and stream.last_ms is not None and now_ms - stream.last_ms >= least:
        stream.finish()
        stream.publish()
    kept: list[Segment] = []
    begin: I64 | None = None
    for place, segment in enumerate(stream.segments):
        age = now_ms - segment.end_ms
        if age < least:
            kept += stream.segments[place:]
            break
        if age < _least_kept(segment.columns, keep):
            kept.append(segment)
            continue
        stays: Bool = keep[segment.columns.slots] > age
        begin = stream.begin.copy() if begin is None else begin
        begin[segment.columns.slots[~stays]] = segment.stop
        if stays.any():
            less = segment.only(stays, kept[-1].columns if kept else None)
            if kept and _joinable(stream, kept[-1], less, _least_kept(less.columns, keep)):
                kept[-1] = join(kept[-1], less)
            else:
                kept.append(less)
    if begin is None:
        return False
    _arrange(stream, kept, begin)
    return True


def cut(stream: Stream, place: int, columns: Bool) -> None:
    """Drop some columns of a segment, under the stream's lock; its samples count as cut by the memory limit."""
    segment = stream.segments[place]
    stream.dropped["memory_limit"] += segment.lost(columns)
    begin = stream.begin.copy()
    begin[segment.columns.slots[columns]] = segment.stop
    kept = list(stream.segments)
    if columns.all():
        del kept[place]
    else:
        kept[place] = segment.only(~columns, kept[place - 1].columns if place else None)
    _arrange(stream, kept, begin)


def truncate(stream: Stream, t_ms: int) -> None:
    """Drop every row after `t_ms`, under the stream's lock; the samples count as lost to a clock step."""
    if stream.last_ms is None or stream.last_ms <= t_ms:
        return
    before = stream.samples
    stamps = stream.stamps
    stop = stream.base + int(stamps.searchsorted(t_ms, "right"))
    stream.finish()
    kept = []
    for segment in stream.segments:
        if segment.stop <= stop:
            kept.append(segment)
        elif segment.first < stop:
            rows = stop - segment.first
            values = np.ascontiguousarray(segment.matrix()[:rows])
            end_ms = int(stamps[stop - 1 - stream.base])
            kept.append(Segment(segment.first, segment.columns, values, end_ms))
    stream.segments = tuple(kept)
    stream.turns.drop_from(stop)
    stream.resets.drop_from(stop)
    stream.put_stamps(stamps[: stop - stream.base].copy())
    stream.saved = min(stream.saved, stop)
    stream.begin = np.minimum(stream.begin, stop)
    stream.reopen(np.zeros(0, np.int32))
    stream.publish()
    stream.reopen(_find_last(stream))
    stream.publish()
    stream.dropped["clock_step"] += before - stream.samples


def unused(stream: Stream) -> list[int]:
    """Slots of series of which nothing is left; under the stream's lock."""
    used = np.zeros(len(stream.held), np.bool_)
    for columns in {id(one): one for one in stream.all_columns()}.values():
        used[columns.slots] = True
    found: list[int] = np.flatnonzero(stream.held & ~used).tolist()
    return found


def ended(stream: Stream) -> tuple[I32, I64]:
    """Slots of series that the last row does not have, and when they ended; under the stream's lock.

    Not of those that the writer's layout has, which may come back without a word.
    """
    live = np.zeros(len(stream.held), np.bool_)
    live[stream.layout_slots] = True
    live[stream.open.columns.slots[stream.open.live]] = True
    slots = np.flatnonzero(stream.held & ~live).astype(np.int32)
    last = np.full(len(stream.held), stream.base, np.int64)
    rows, turned, weights = stream.turns.view.between(-1, stream.next_row)
    last[turned[weights < 0]] = rows[weights < 0]
    stamps = stream.stamps
    if not len(stamps):
        return slots, np.zeros(len(slots), np.int64)
    return slots, stamps[np.clip(last[slots] - stream.base, 0, len(stamps) - 1)]


def evict(stream: Stream, slots: I32) -> None:
    """Drop all samples of series that ended, under the stream's lock; they count as cut by the memory limit."""
    going = np.zeros(len(stream.held), np.bool_)
    going[slots] = True
    if going[stream.open.columns.slots].any():
        stream.finish()
    kept: list[Segment] = []
    for segment in stream.segments:
        gone: Bool = going[segment.columns.slots]
        if not gone.any():
            kept.append(segment)
            continue
        stream.dropped["memory_limit"] += segment.lost(gone)
        if not gone.all():
            kept.append(segment.only(~gone, kept[-1].columns if kept else None))
    begin = stream.begin.copy()
    begin[slots] = stream.next_row
    _arrange(stream, kept, begin)


def _find_last(stream: Stream) -> I32:
    """Put each series' last value into `previous`; gives the slots of those that the last row has."""
    view = stream.view
    slots = np.arange(len(stream.labels), dtype=np.int32)
    stream.previous[slots] = np.nan
    if not len(view.stamps):
        return slots[:0]
    last = np.full(len(slots), -1, np.int64)
    rows, ended, weights = view.turns.between(-1, stream.next_row)
    last[ended[weights < 0]] = rows[weights < 0] - 1
    live = are_samples(view.row(slots, stream.next_row - 1))
    last[live] = stream.next_row - 1
    there = np.flatnonzero(last >= view.base)
    values = view.points(slots[there], last[there])
    sampled = are_samples(values)
    stream.previous[there[sampled]] = values[sampled]
    return slots[live]


def _arrange(stream: Stream, segments: list[Segment], begin: I64) -> None:
    stream.segments = tuple(segments)
    stream.begin = begin
    first = segments[0].first if segments else stream.open.first
    stream.turns.drop_before(first)
    stream.resets.drop_before(first)
    stream.forget_stamps(first)
    stream.arranged()
    stream.publish()


def _least_kept(columns: Columns, keep: I64) -> int:
    known = columns.least_kept
    if known is None or known[0] is not keep:
        known = columns.least_kept = keep, int(keep[columns.slots].min())
    return known[1]


def _joinable(stream: Stream, before: Segment, after: Segment, keep_ms: int) -> bool:
    """Whether two make one of a good size: it goes as a whole, so it must not span much of what is kept."""
    rows = before.rows + after.rows
    span = after.end_ms - int(stream.stamps[before.first - stream.base])
    return (
        before.columns is after.columns
        and before.stop == after.first
        and rows <= _JOINED_ROWS
        and span * _PARTS <= keep_ms
        and rows * len(after.columns) <= SEGMENT_VALUES
    )
