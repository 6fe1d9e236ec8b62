"""Which series stand in which columns of a block of rows; shared by all the blocks that have the same."""

from __future__ import annotations

import numpy as np

from exporter.storage.arrays import I32, Bool


class Columns:
    """The series of a block, by their slots in the stream; never changed, so that readers need no lock."""

    __slots__ = ("_place", "least_kept", "slots")

    def __init__(self, slots: I32) -> None:
        self.slots = slots
        self.least_kept: tuple[object, int] | None = None
        """How long the first series to go is kept, as long as the object beside it is the one that said so."""
        place = np.full(int(slots.max()) + 1 if len(slots) else 0, -1, np.int32)
        place[slots] = np.arange(len(slots), dtype=np.int32)
        self._place = place

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def nbytes(self) -> int:
        """Memory taken by the arrays."""
        return self.slots.nbytes + self._place.nbytes

    def find(self, slots: I32) -> I32:
        """The column of each slot, -1 where the block does not have it."""
        place = self._place
        if not len(place):
            return np.full(len(slots), -1, np.int32)
        if len(slots) and int(slots.max()) >= len(place):
            return np.where(slots < len(place), place[np.minimum(slots, len(place) - 1)], np.int32(-1))
        found: I32 = place[slots]
        return found

    def with_more(self, slots: I32) -> Columns:
        """These columns, and new ones behind them."""
        return Columns(np.concatenate([self.slots, slots]))

    def only(self, kept: Bool) -> Columns:
        """Some of these columns, in their order."""
        return Columns(self.slots[kept])
