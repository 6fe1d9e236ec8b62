"""Series that are appended together, at one time: an engine's page, our own indicators, the result of a rule."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from exporter.storage.arrays import F64, I32, I64, Bool
from exporter.storage.bits import ABSENT, STALE, are_samples, has_nan
from exporter.storage.columns import Columns
from exporter.storage.events import EventLog
from exporter.storage.layout import Layout
from exporter.storage.metrics import DROPS
from exporter.storage.model import Labels
from exporter.storage.open_rows import OpenRows
from exporter.storage.segment import Segment
from exporter.storage.view import View

if TYPE_CHECKING:
    from exporter.storage.index import Index

SEGMENT_VALUES = 1 << 19
"""Values in a finished segment, about: few enough that finishing one takes a few milliseconds."""
SEGMENT_ROWS = 64, 1024
"""Fewest and most rows of a segment that is being filled."""
SLOT_BYTES = 40
"""What a slot takes, whether a series has it or not."""
_SPARE = 32
"""Ended series that a segment may carry along before a new one is begun for the new ones."""


class SetBack(NamedTuple):
    """The clock was set back, from one time to another; and how to drop what lies after a time."""

    from_ms: int
    to_ms: int
    drop_after: Callable[[int], None]


class _Sealed(NamedTuple):
    """What the finished segments of a stream hold; columns that several share count once."""

    samples: int
    nbytes: int
    columns: frozenset[int]
    """By identity."""


class Stream:
    """One writer appends; readers look at `view`, which stays as it was. Times are int milliseconds and rise.

    The lock keeps appending apart from expiring and saving; readers take none.
    """

    def __init__(
        self, name: str, number: int, index: Index, *, segment_rows: tuple[int, int] = SEGMENT_ROWS
    ) -> None:
        self.name = name
        self.number = number
        self.lock = threading.Lock()
        self.dropped = dict.fromkeys(DROPS, 0)
        self.last_ms: int | None = None
        self.set_back: SetBack | None = None
        self._index = index
        self._limits = segment_rows
        self._layout: Layout | None = None
        self.layout_slots: I32 = np.zeros(0, np.int32)
        """Of the series that the last row's layout has, present or not."""
        self._places: I32 = np.zeros(0, np.int32)
        self._order: I64 | None = None
        """What brings a row's values into the order of the open columns, where it has all of them in another order."""
        self._straight = False
        self.labels: list[Labels | None] = []
        """By slot; None where the slot is free."""
        self.held: Bool = np.zeros(0, np.bool_)
        """By slot: whether a series has it."""
        self.free: list[int] = []
        self._stamps: I64 = np.empty(64, np.int64)
        self._count = 0
        self.base = 0
        self.saved = 0
        """The first row that nobody has taken to the archive yet."""
        self.unjudged: list[int] = []
        """Slots of series that nobody has said yet how long they are kept."""
        self.segments: tuple[Segment, ...] = ()
        self.counters: Bool = np.zeros(0, np.bool_)
        self.previous: F64 = np.zeros(0)
        self.begin: I64 = np.zeros(0, np.int64)
        self.turns, self.resets = EventLog(), EventLog()
        self.open = OpenRows.empty(0, self._limits[1])
        self.view: View
        self.arranged()
        self.publish()

    @property
    def next_row(self) -> int:
        """The number that the next row gets."""
        return self.base + self._count

    def append(
        self, t_ms: int, layout: Layout, values: Sequence[float] | F64, present: Bool | None = None
    ) -> None:
        """Take in one row: a value per series of the layout, and where `present` is false none.

        A series of the row before that is missing now ends here; a value may itself be the stale marker. A row whose
        time is not after the last one's is refused and counted.
        """
        row = np.asarray(values, np.float64)
        if len(row) != layout.width:
            raise ValueError(f"{self.name}: {len(row)} values for {layout.width} series")
        if layout.places is not None:
            row = row[layout.places]
            present = None if present is None else present[layout.places]
        with self.lock:
            if self.set_back is not None:
                self._follow_clock(t_ms, self.set_back)
            if self.last_ms is not None and t_ms <= self.last_ms:
                reason = "duplicate" if t_ms == self.last_ms else "out_of_order"
                self.dropped[reason] += len(row) if present is None else int(present.sum())
                return
            if layout is not self._layout:
                self._bind(layout)
            if self._order is not None:
                row = row[self._order]
                present = None if present is None else present[self._order]
            rows = self.open
            rows.make_room()
            if self._count == len(self._stamps):
                self._stamps = np.concatenate([self._stamps, np.empty(max(64, self._count), np.int64)])
            if present is None and rows.steady and self._straight and not has_nan(row):
                self._resets(rows, rows.counters & (row < rows.previous))
                rows.values[rows.rows, : rows.width] = row
                rows.previous[:] = row
                rows.samples += rows.width
            elif self._straight and present is not None and _as_before(rows, row, present):
                self._resets(rows, rows.counters & (row < rows.previous))  # false for the NaN of those absent
                line = rows.values[rows.rows, : rows.width]
                line[:] = row
                line[~present] = ABSENT
                np.copyto(rows.previous, row, where=present)
                rows.samples += int(np.count_nonzero(present))
            elif not self._compose(rows, row, present):
                self.last_ms = t_ms
                return
            self._stamps[self._count] = t_ms
            self._count += 1
            rows.rows += 1
            self.last_ms = t_ms
            if rows.full:
                self.finish()
            self.publish()

    def end(self, t_ms: int) -> None:
        """End every series of the stream: there is nothing to append."""
        self.append(t_ms, _EMPTY, ())

    def finish(self) -> None:
        """Make a segment of the open rows; the next ones begin with the series that are alive."""
        rows = self.open
        if not rows.rows:
            return
        slots = rows.columns.slots
        self.previous[slots] = rows.previous
        self.segments = (*self.segments, rows.finish(int(self._stamps[self._count - 1])))
        columns, live = rows.columns, rows.live
        previous, counters = rows.previous, rows.counters
        if not rows.steady:
            columns = columns.only(live)
            previous, counters, live = previous[live], counters[live], live[live]
        self.open = OpenRows(self.next_row, columns, live, previous, counters, self._limit(len(columns)))
        self._place()
        self.arranged()

    def publish(self) -> None:
        """Show readers the state as it is now."""
        rows = self.open
        self.view = View(
            self._stamps[: self._count],
            self.base,
            self.segments,
            self._starts,
            rows.columns,
            rows.values[: rows.rows],
            self.turns.view,
            self.resets.view,
            self.counters,
            self.begin,
            self._trimmed,
        )

    def forget(self, slots: Sequence[int]) -> list[Labels]:
        """Take the series from their slots, which stay empty until they are `free`; gives the series."""
        gone = []
        for slot in slots:
            one = self.labels[slot]
            if one is not None:
                self.labels[slot] = None
                gone.append(one)
        self.held[slots] = False
        return gone

    def arranged(self) -> None:
        """Segments came or went: note where they begin, and what they take."""
        shared = {id(segment.columns): segment.columns.nbytes for segment in self.segments}
        self._sealed = _Sealed(
            sum(segment.samples for segment in self.segments),
            sum(segment.nbytes for segment in self.segments) + sum(shared.values()),
            frozenset(shared),
        )
        self._starts = np.array([*(segment.first for segment in self.segments), self.open.first], np.int64)
        self._trimmed = int(self.begin.max()) if len(self.begin) else 0

    def reopen(self, live: I32) -> None:
        """Begin new open rows behind the last segment, with the series that the last row has."""
        columns = Columns(live)
        flags = np.ones(len(live), np.bool_)
        self.open = OpenRows(
            self.next_row, columns, flags, self.previous[live], self.counters[live], self._limit(len(live))
        )
        self._layout, self.layout_slots = None, np.zeros(0, np.int32)
        self._places, self._order, self._straight = self.layout_slots, None, False
        self.arranged()

    def put_stamps(self, stamps: I64) -> None:
        """Set the times of the rows that there are; the array is taken over."""
        self._stamps, self._count = stamps, len(stamps)
        self.last_ms = int(stamps[-1]) if len(stamps) else None

    def forget_stamps(self, row: int) -> None:
        """The rows before this one are no more; their times go once they are most of them."""
        gone = row - self.base
        if gone > self._count // 2:
            self._stamps = np.concatenate([self._stamps[gone : self._count], np.empty(64, np.int64)])
            self._count -= gone
            self.base = row

    @property
    def stamps(self) -> I64:
        """The time of each row."""
        return self._stamps[: self._count]

    @property
    def samples(self) -> int:
        """Samples in memory."""
        return self.open.samples + self._sealed.samples

    @property
    def nbytes(self) -> int:
        """Memory of its samples and what belongs to them."""
        rows, sealed = self.open, self._sealed
        columns = 0 if id(rows.columns) in sealed.columns else rows.columns.nbytes
        logs = self.turns.nbytes + self.resets.nbytes
        return (
            sealed.nbytes
            + rows.nbytes
            + columns
            + logs
            + self._stamps.nbytes
            + SLOT_BYTES * len(self.counters)
        )

    def all_columns(self) -> list[Columns]:
        """Of the segments, and of the open rows."""
        return [*(segment.columns for segment in self.segments), self.open.columns]

    def slots_of(self, labels: Iterable[Labels], counters: Bool) -> I32:
        """The slot of each series; new ones get one, and a place in the index.

        What was once appended as no counter stays none: nobody noted its falls.
        """
        slots = self._index.slots(self, labels)
        missing = np.flatnonzero(slots < 0)
        if len(missing):
            known = list(labels)
            slots[missing] = self._register([known[i] for i in missing])
            self.counters[slots[missing]] = True
        self.counters[slots] &= counters
        return slots

    # --- the writer's own

    def _bind(self, layout: Layout) -> None:
        self.layout_slots = self.slots_of(layout.labels, layout.counters)
        self._layout = layout
        missing = self.layout_slots[self.open.columns.find(self.layout_slots) < 0]
        dead = len(self.open.live) - int(self.open.live.sum())
        if len(missing) and self.open.rows and dead > max(_SPARE, self.open.width // 2):
            self.finish()
        self._place()

    def _place(self) -> None:
        """Find the layout's columns among the open rows' ones, and add those that are missing."""
        rows, slots = self.open, self.layout_slots
        missing = slots[rows.columns.find(slots) < 0]
        if len(missing):
            rows.widen(missing, self.previous[missing], self.counters[missing])
            rows.limit = max(rows.rows + 1, min(rows.limit, self._limit(rows.width)))
        places = rows.columns.find(slots)
        straight = np.arange(rows.width, dtype=np.int32)
        self._order, self._straight = None, len(places) == rows.width
        if self._straight and not np.array_equal(places, straight):
            self._order, places = np.argsort(places), straight
        self._places = places

    def _follow_clock(self, t_ms: int, back: SetBack) -> None:
        """After the clock was set back: the first row may have been on its way, with a time of the old clock.

        Then the second one, of the new clock, drops it; otherwise the stream would refuse everything until then.
        """
        if self.last_ms is None or self.last_ms <= back.to_ms:
            if t_ms < back.from_ms:
                self.set_back = None
            return
        self.set_back = None
        if back.to_ms < t_ms < self.last_ms:
            back.drop_after(t_ms - 1)

    def _register(self, labels: Sequence[Labels]) -> I32:
        slots = []
        for one in labels:
            if self.free:
                slot = self.free.pop()
                self.labels[slot] = one
            else:
                slot = len(self.labels)
                self.labels.append(one)
            slots.append(slot)
        size = len(self.counters)
        if len(self.labels) > size:
            more = max(len(self.labels), 2 * size) - size
            self.counters = np.concatenate([self.counters, np.zeros(more, np.bool_)])
            self.held = np.concatenate([self.held, np.zeros(more, np.bool_)])
            self.previous = np.concatenate([self.previous, np.full(more, np.nan)])
            self.begin = np.concatenate([self.begin, np.zeros(more, np.int64)])
        found = np.array(slots, np.int32)
        self.previous[found] = np.nan
        self.held[found] = True
        self.unjudged += slots
        self.publish()  # whoever finds the series in the index finds a view that knows its slot
        self._index.add(self, labels, slots)
        return found

    def _compose(self, rows: OpenRows, row: F64, present: Bool | None) -> bool:
        """Write a row in which not everything is as in the one before; False: there is nothing to write."""
        places = self._places
        if has_nan(row):
            sampled = are_samples(row)
            present = sampled if present is None else present & sampled
        if present is not None:
            places, row = places[present], row[present]
        now = np.zeros(rows.width, np.bool_)
        now[places] = True
        ended = rows.live & ~now
        if not len(places) and not ended.any():
            return False
        line = rows.values[rows.rows, : rows.width]
        line[:] = ABSENT
        line[ended] = STALE
        line[places] = row
        for turned, weight in ((ended, -1.0), (now & ~rows.live, 1.0)):
            if turned.any():
                self.turns.add(self.next_row, rows.columns.slots[turned], weight)
        self._resets(rows, now & rows.counters & (line < rows.previous))
        rows.previous[now] = line[now]
        rows.live, rows.steady = now, bool(now.all())
        rows.samples += len(places)
        return True

    def _resets(self, rows: OpenRows, fell: Bool) -> None:
        if fell.any():
            self.resets.add(self.next_row, rows.columns.slots[fell], rows.previous[fell])

    def _limit(self, width: int) -> int:
        fewest, most = self._limits
        return min(most, max(fewest, SEGMENT_VALUES // max(1, width)))


def _as_before(rows: OpenRows, row: F64, present: Bool) -> bool:
    """Whether the same series as in the last row, and any, have a sample, and NaN stands for all others and no sample."""
    same = np.array_equal(present, rows.live) and np.array_equal(np.isnan(row), ~present)
    return same and bool(present.any())


_EMPTY = Layout(())
