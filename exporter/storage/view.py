"""What a reader sees of a stream: a state that stays as it was while rows are appended.

Rows are numbered from the stream's beginning. A writer only writes behind what a view shows, and replaces the view last.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from exporter.storage.arrays import F64, I32, I64, Bool, distinct
from exporter.storage.bits import ABSENT
from exporter.storage.columns import Columns
from exporter.storage.events import Events
from exporter.storage.segment import Segment


class View(NamedTuple):
    """One state of a stream: finished segments, the open rows behind them, and what happened in them."""

    stamps: I64
    """The time of each row."""
    base: int
    """Number of the row that `stamps` begins with."""
    segments: tuple[Segment, ...]
    starts: I64
    """Number of the first row of each segment, and then of the open rows."""
    columns: Columns
    """The series of the open rows."""
    rows: F64
    """The open rows, `[rows, columns]`; more may be allocated than are shown."""
    turns: Events
    """Where series came (weight 1) and were no more (weight -1)."""
    resets: Events
    """Where counters fell; the weight is the value before."""
    counters: Bool
    """By slot: whether its falls are in `resets`."""
    begin: I64
    """By slot: the first row in which its samples are still kept."""
    trimmed: int
    """The largest of `begin`."""

    def read(self, slots: I32, rows: I64) -> F64:
        """The entries `[slots, rows]` of some rows, absent ones included; `rows` are numbers that the view has."""
        if len(rows) == 1:
            return self.row(slots, int(rows[0]))[:, None]
        values = np.empty((len(slots), len(rows)))
        places = self.starts.searchsorted(rows, "right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(rows)]
        for i, start in enumerate(cuts[:-1]):
            stop, place = cuts[i + 1], int(places[start])
            some = rows[start:stop] - self.starts[place] if place >= 0 else rows[:0]
            if place < 0:
                values[:, start:stop] = ABSENT
            elif place == len(self.segments):
                found = self.columns.find(slots)
                values[:, start:stop] = _blank(self.rows[some][:, found].T, found)
            else:
                segment = self.segments[place]
                found = segment.columns.find(slots)
                values[:, start:stop] = segment.rows_of(found, np.minimum(some, segment.rows - 1))
                values[:, start:stop][:, some >= segment.rows] = ABSENT
        return values

    def row(self, slots: I32, row: int) -> F64:
        """The entry of each slot in one row."""
        place = int(self.starts.searchsorted(row, "right")) - 1
        if place < 0:
            return np.full(len(slots), ABSENT)
        inside = row - int(self.starts[place])
        if place == len(self.segments):
            found = self.columns.find(slots)
            values: F64 = self.rows[inside][found] if self.rows.shape[1] else np.full(len(slots), ABSENT)
            return _blank(values, found)
        segment = self.segments[place]
        if inside >= segment.rows:
            return np.full(len(slots), ABSENT)
        return segment.at(segment.columns.find(slots), inside)

    def points(self, slots: I32, rows: I64) -> F64:
        """One entry per slot, each in its own row."""
        values = np.full(len(slots), ABSENT)
        places = self.starts.searchsorted(rows, "right") - 1
        for place in distinct(places).tolist():
            if place < 0:
                continue
            here = np.flatnonzero(places == place)
            inside = rows[here] - self.starts[place]
            if place == len(self.segments):
                found = self.columns.find(slots[here])
                if self.rows.shape[1]:
                    values[here] = _blank(self.rows[inside, found], found)
                continue
            segment = self.segments[place]
            kept = inside < segment.rows
            here, inside = here[kept], inside[kept]
            values[here] = segment.at(segment.columns.find(slots[here]), inside)
        return values

    def block(self, slots: I32, start: int, stop: int) -> F64:
        """All entries `[slots, rows]` of the rows from `start` to `stop`."""
        values = np.empty((len(slots), stop - start))
        place = max(0, int(self.starts.searchsorted(start, "right")) - 1)
        at = start
        while at < stop:
            first = int(self.starts[place])
            if at < first:
                end = min(first, stop)
                values[:, at - start : end - start] = ABSENT
                at = end
                continue
            if place == len(self.segments):
                found = self.columns.find(slots)
                rows = self.rows[at - first : stop - first]
                values[:, at - start :] = _blank(rows[:, found].T, found) if rows.shape[1] else ABSENT
                break
            segment = self.segments[place]
            end = min(stop, first + segment.rows)
            if at < end:
                found = segment.columns.find(slots)
                values[:, at - start : end - start] = segment.block(found, at - first, end - first)
                at = end
            place += 1
        return values


def _blank(values: F64, columns: I32) -> F64:
    if len(columns) and int(columns.min()) < 0:
        values = values.copy()
        values[columns < 0] = ABSENT
    return values
