"""The newest rows of a stream, one behind the other in memory: a row of thousands of values is one copy."""

from __future__ import annotations

import numpy as np

from exporter.storage.arrays import F64, I32, Bool
from exporter.storage.bits import ABSENT
from exporter.storage.columns import Columns
from exporter.storage.segment import Segment

_FIRST_ROWS = 2, 16
_FIRST_VALUES = 1 << 16
"""Room that new open rows begin with: so many rows, of very many series fewer."""
_NO_COLUMNS = Columns(np.zeros(0, np.int32))


class OpenRows:
    """Rows that are still being added; for the writer alone. Readers get `values` and `columns` with a view.

    Per column: `live`, whether the last row has a sample; `previous`, the last sample's value (NaN: none yet);
    `counters`, whether a fall is a reset.
    """

    __slots__ = (
        "columns",
        "counters",
        "first",
        "limit",
        "live",
        "previous",
        "rows",
        "samples",
        "steady",
        "values",
        "width",
    )

    def __init__(
        self, first: int, columns: Columns, live: Bool, previous: F64, counters: Bool, limit: int
    ) -> None:
        self.first = first
        self.limit = limit
        self.rows = self.samples = 0
        self.columns = columns
        self.width = len(columns)
        self.live, self.previous, self.counters = live, previous, counters
        self.steady = bool(len(live)) and bool(live.all())
        """Whether the last row has a sample of every series."""
        self.values: F64 = np.empty((_first_rows(limit, self.width), self.width))

    @classmethod
    def empty(cls, first: int, limit: int) -> OpenRows:
        """No rows and no series yet."""
        none: Bool = np.zeros(0, np.bool_)
        return cls(first, _NO_COLUMNS, none, np.zeros(0), none, limit)

    @property
    def nbytes(self) -> int:
        """Memory of the rows; what is allocated but never written to takes none."""
        return int(self.rows * self.values.shape[1] * 8 + self.width * 10)

    @property
    def full(self) -> bool:
        """Whether it is time to finish the segment."""
        return self.rows >= self.limit

    def make_room(self) -> None:
        """See to it that one more row fits."""
        if self.rows == len(self.values):
            self._resize(min(self.limit, 2 * self.rows), self.values.shape[1])

    def widen(self, slots: I32, previous: F64, counters: Bool) -> None:
        """Add columns, absent in the rows so far."""
        width = self.width + len(slots)
        if width > self.values.shape[1]:
            rows = len(self.values) if self.rows else _first_rows(self.limit, width)
            self._resize(rows, width if not self.rows else max(width, width + width // 4))
        self.values[: self.rows, self.width : width] = ABSENT
        self.columns = self.columns.with_more(slots)
        self.live = np.concatenate([self.live, np.zeros(len(slots), np.bool_)])
        self.previous = np.concatenate([self.previous, previous])
        self.counters = np.concatenate([self.counters, counters])
        self.width = width
        self.steady = False

    def finish(self, end_ms: int) -> Segment:
        """The rows as a segment."""
        return Segment(self.first, self.columns, self.values[: self.rows, : self.width], end_ms)

    def _resize(self, rows: int, width: int) -> None:
        values = np.empty((rows, width))
        values[: self.rows, : self.width] = self.values[: self.rows, : self.width]
        self.values = values


def _first_rows(limit: int, width: int) -> int:
    fewest, most = _FIRST_ROWS
    return min(limit, max(fewest, min(most, _FIRST_VALUES // max(1, width))))
