"""Rare things that happen to single series (it came, it ended, its counter fell), in order of the rows.

Nearly all windows hold none for the series that are asked for, which one binary search tells; that is what lets a window
of three days cost what one of five minutes costs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from exporter.storage.arrays import F64, I32, I64


class Events(NamedTuple):
    """What readers see of a log; `rows` rise."""

    rows: I64
    slots: I32
    weights: F64
    size: int

    def between(self, after: int, until: int) -> tuple[I64, I32, F64]:
        """Rows, slots and weights of the events in the rows `(after, until]`."""
        rows = self.rows[: self.size]
        low, high = rows.searchsorted((after, until), "right")
        return rows[low:high], self.slots[low:high], self.weights[low:high]


class EventLog:
    """An append-only list of events: what readers hold stays as it was, since only new places are written."""

    __slots__ = ("_rows", "_slots", "_weights", "count", "view")

    def __init__(self) -> None:
        self.count = 0
        self._allocate(16)
        self.view = Events(self._rows, self._slots, self._weights, 0)

    @property
    def nbytes(self) -> int:
        """Memory taken by the arrays."""
        return self._rows.nbytes + self._slots.nbytes + self._weights.nbytes

    def add(self, rows: I64 | int, slots: I32, weights: F64 | float) -> None:
        """Events in rows no earlier than the last ones'; in one row, ends stand before starts by nobody's need."""
        end = self.count + len(slots)
        if end > len(self._rows):
            self._grow(end)
        place = slice(self.count, end)
        self._rows[place], self._slots[place], self._weights[place] = rows, slots, weights
        self.count = end
        self.view = Events(self._rows, self._slots, self._weights, end)

    def drop_before(self, row: int) -> None:
        """Forget what happened in rows before this one, once that is most of the log."""
        gone = int(self._rows[: self.count].searchsorted(row))
        if gone > self.count // 2:
            self._keep(slice(gone, self.count))

    def drop_from(self, row: int) -> None:
        """Forget what happened in this row and after it."""
        self._keep(slice(0, int(self._rows[: self.count].searchsorted(row))))

    def _keep(self, kept: slice) -> None:
        rows, slots, weights = self._rows[kept], self._slots[kept], self._weights[kept]
        self.count = 0
        self._allocate(max(16, len(rows)))
        self.add(rows, slots, weights)

    def _grow(self, least: int) -> None:
        rows, slots, weights, count = self._rows, self._slots, self._weights, self.count
        self._allocate(max(least, 2 * len(rows)))
        self._rows[:count], self._slots[:count] = rows[:count], slots[:count]
        self._weights[:count] = weights[:count]

    def _allocate(self, size: int) -> None:
        self._rows = np.empty(size, np.int64)
        self._slots = np.empty(size, np.int32)
        self._weights = np.empty(size, np.float64)
