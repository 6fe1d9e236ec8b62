"""Which series stand in which columns of a block of rows; shared by all the blocks that have the same."""

from __future__ import annotations

import numpy as np

from exporter.storage.arrays import I32, Bool
from exporter.storage.places import Places


class Columns:
    """The series of a block, by their slots in the stream; never changed, so that readers need no lock."""

    __slots__ = ("_places", "least_kept", "slots")

    def __init__(self, slots: I32) -> None:
        self.slots = slots
        self.least_kept: tuple[object, int] | None = None
        """How long the first series to go is kept, as long as the object beside it is the one that said so."""
        self._places = Places(slots)

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def nbytes(self) -> int:
        """Memory taken by the arrays."""
        return self.slots.nbytes + self._places.nbytes

    def find(self, slots: I32) -> I32:
        """The column of each slot, -1 where the block does not have it."""
        return self._places.find(slots)

    def with_more(self, slots: I32) -> Columns:
        """These columns, and new ones behind them."""
        return Columns(np.concatenate([self.slots, slots]))

    def only(self, kept: Bool) -> Columns:
        """Some of these columns, in their order."""
        return Columns(self.slots[kept])
