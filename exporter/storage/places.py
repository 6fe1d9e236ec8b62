"""Where each of some numbers stands among them."""

from __future__ import annotations

import numpy as np

from exporter.storage.arrays import I32

_SPREAD = 8
"""Numbers that lie further apart than this, on average, are searched for and not looked up."""


class Places:
    """The place of each slot in a list of slots: a table where they lie close together, otherwise a search.

    A table for every block would make a stream whose series come and go quadratic: its slots rise for ever.
    """

    __slots__ = ("_first", "_last", "_order", "_sorted", "_table")

    def __init__(self, slots: I32) -> None:
        self._first, self._last = (int(slots.min()), int(slots.max())) if len(slots) else (0, -1)
        self._table: I32 | None = None
        span = self._last - self._first + 1
        if span <= _SPREAD * len(slots) + 64:
            self._table = np.full(span, -1, np.int32)
            self._table[slots - self._first] = np.arange(len(slots), dtype=np.int32)
        else:
            self._order = np.argsort(slots).astype(np.int32)
            self._sorted = slots[self._order]

    @property
    def nbytes(self) -> int:
        """Memory taken by the arrays."""
        return self._order.nbytes + self._sorted.nbytes if self._table is None else self._table.nbytes

    def find(self, slots: I32) -> I32:
        """The place of each slot, -1 where it is not among them."""
        table = self._table
        if table is None:
            at = np.minimum(self._sorted.searchsorted(slots), len(self._sorted) - 1)
            return np.where(self._sorted[at] == slots, self._order[at], np.int32(-1))
        if not len(table):
            return np.full(len(slots), -1, np.int32)
        if not len(slots):
            return slots[:0]
        if int(slots.max()) > self._last or (self._first and int(slots.min()) < self._first):
            inside = (slots >= self._first) & (slots <= self._last)
            return np.where(inside, table[np.where(inside, slots - self._first, 0)], np.int32(-1))
        found: I32 = table[slots - self._first] if self._first else table[slots]
        return found
