"""Rows that are finished: one contiguous column per series, and a single number where the series never moved.

Most series of an engine's page stand still for minutes (buckets that nothing falls into, configuration), so a segment
takes a fraction of eight bytes a sample.
"""

from __future__ import annotations

import numpy as np

from exporter.storage.arrays import F64, I32, I64, Bool
from exporter.storage.bits import ABSENT, are_samples
from exporter.storage.columns import Columns

_OVERHEAD = 512
"""Bytes of the Python objects around a segment's arrays, about."""


class Segment:
    """Some rows of a stream, for some of its series; never changed.

    `first` is the number of its first row in the stream. `counts` are samples per column, None when all rows have one;
    `nbytes` is the memory that goes when the segment goes, but for columns that others share.
    """

    __slots__ = (
        "_constant",
        "_index",
        "_moving",
        "columns",
        "counts",
        "end_ms",
        "first",
        "nbytes",
        "rows",
        "samples",
    )

    def __init__(self, first: int, columns: Columns, values: F64, end_ms: int) -> None:
        """From the values `[rows, columns]`; `end_ms` is the last row's time."""
        self.first = first
        self.rows = len(values)
        self.columns = columns
        self.end_ms = end_ms
        bits = values.view(np.uint64)
        moving: Bool = (bits[1:] != bits[0]).any(axis=0)
        self._constant: F64 = values[0].copy()
        self._index: I32 = np.where(moving, np.cumsum(moving) - 1, -1).astype(np.int32)
        self._moving: F64 = np.ascontiguousarray(values[:, moving].T)
        self.counts: I32 | None = None
        if np.isnan(values).any():
            self.counts = are_samples(values).sum(axis=0, dtype=np.int32)
        self._measure()

    def block(self, columns: I32, start: int, stop: int) -> F64:
        """The values `[columns, rows]` of the rows from `start` to `stop`, counted in the segment; -1 gives absent."""
        places = self._index[columns]
        moving = places >= 0
        if moving.all():
            values: F64 = self._moving[:, start:stop][places]
        else:
            values = np.empty((len(columns), stop - start))
            values[:] = self._constant[columns][:, None]
            values[moving] = self._moving[:, start:stop][places[moving]]
        return _blank(values, columns)

    def rows_of(self, columns: I32, rows: I64) -> F64:
        """The values `[columns, rows]` of some rows, counted in the segment; -1 gives absent."""
        places = self._index[columns]
        moving = np.flatnonzero(places >= 0)
        if len(moving) == len(columns):
            values: F64 = self._moving[places[:, None], rows]
        else:
            values = np.empty((len(columns), len(rows)))
            values[:] = self._constant[columns][:, None]
            values[moving] = self._moving[places[moving, None], rows]
        return _blank(values, columns)

    def at(self, columns: I32, rows: I64 | int) -> F64:
        """One value per column: in the one row, or each column's own, counted in the segment; -1 gives absent."""
        values: F64 = self._constant[columns]
        places = self._index[columns]
        moving = np.flatnonzero(places >= 0)
        if len(moving):
            values[moving] = self._moving[places[moving], rows if isinstance(rows, int) else rows[moving]]
        return _blank(values, columns)

    def matrix(self) -> F64:
        """All of it as `[rows, columns]`."""
        return self.block(np.arange(len(self.columns), dtype=np.int32), 0, self.rows).T

    def lost(self, columns: Bool) -> int:
        """How many samples these columns hold."""
        if self.counts is None:
            return self.rows * int(columns.sum())
        return int(self.counts[columns].sum())

    def only(self, kept: Bool, columns: Columns | None = None) -> Segment:
        """A segment with some of the columns; `columns` is an object that says the same, to share it."""
        less = Segment.__new__(Segment)
        less.first, less.rows, less.end_ms = self.first, self.rows, self.end_ms
        slots = self.columns.slots[kept]
        if columns is None or not np.array_equal(columns.slots, slots):
            columns = Columns(slots)
        less.columns = columns
        places = self._index[kept]
        moving = places >= 0
        less._constant = self._constant[kept]
        less._moving = self._moving[places[moving]]
        less._index = np.where(moving, np.cumsum(moving) - 1, -1).astype(np.int32)
        less.counts = None if self.counts is None else self.counts[kept]
        if less.counts is not None and int(less.counts.min()) == self.rows:
            less.counts = None
        less._measure()
        return less

    @property
    def stop(self) -> int:
        """The number of the row behind it."""
        return self.first + self.rows

    def _measure(self) -> None:
        counts = 0 if self.counts is None else self.counts.nbytes
        self.nbytes = self._constant.nbytes + self._index.nbytes + self._moving.nbytes + counts + _OVERHEAD
        self.samples = self.rows * len(self.columns) if self.counts is None else int(self.counts.sum())


def join(before: Segment, after: Segment) -> Segment:
    """One segment of two with the same columns, the second of which follows on the first."""
    values = np.concatenate([before.matrix(), after.matrix()])
    return Segment(before.first, before.columns, values, after.end_ms)


def _blank(values: F64, columns: I32) -> F64:
    if len(columns) and int(columns.min()) < 0:
        values[columns < 0] = ABSENT
    return values
