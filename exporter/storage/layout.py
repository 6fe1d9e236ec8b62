"""The series of a row, in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.storage.arrays import I64, Bool
from exporter.storage.model import Labels


class Layout:
    """What the values of a stream's rows belong to; give the same object as long as the series are the same.

    Of two equal label sets the first counts; `places` then says which values are taken. `counters` are the series whose
    falls are resets, one flag each or one for all.
    """

    __slots__ = ("counters", "labels", "places", "width")

    def __init__(self, labels: Sequence[Labels], counters: Sequence[bool] | bool = False) -> None:
        self.width = len(labels)
        self.places: I64 | None = None
        self.labels: Sequence[Labels] = tuple(labels)
        flags = [counters] * self.width if isinstance(counters, bool) else list(counters)
        if len(flags) != self.width:
            raise ValueError(
                f"{self.width} series, but {len(flags)} flags that say whether they are counters"
            )
        self.counters: Bool = np.array(flags, np.bool_)
        if len(set(self.labels)) == self.width:
            return
        first: dict[Labels, int] = {}
        for place, one in enumerate(self.labels):
            first.setdefault(one, place)
        self.labels = tuple(first)
        self.places = np.array(list(first.values()), np.int64)
        self.counters = self.counters[self.places]
