"""Rows for the archive: cut where the series change, parted by how long they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from exporter.storage.arrays import I32, I64, distinct
from exporter.storage.batch import Batch
from exporter.storage.columns import Columns
from exporter.storage.model import Labels
from exporter.storage.stream import Stream
from exporter.storage.view import View


class _Part(NamedTuple):
    keep: int
    slots: I32
    labels: Sequence[Labels]
    counters: Sequence[bool]


class Unsaved:
    """The batches of one stream; remembers its label lists, so that the same series give the same object."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._parts: tuple[Columns, I64, list[_Part]] | None = None

    def batches(self, view: View, start: int, keep: I64) -> list[Batch]:
        """Everything from row `start` on; `keep` in milliseconds by slot."""
        stop = view.base + len(view.stamps)
        blocks = [(one.first, one.stop, one.columns) for one in view.segments]
        blocks.append((int(view.starts[-1]), stop, view.columns))
        found = []
        for first, behind, columns in blocks:
            low, high = max(first, start, view.base), min(behind, stop)
            if low >= high or not len(columns):
                continue
            times = view.stamps[low - view.base : high - view.base].copy()
            for part in self._parted(columns, keep):
                values = view.block(part.slots, low, high)
                found.append(Batch(self._stream.name, part.keep, part.labels, part.counters, times, values))
        return found

    def _parted(self, columns: Columns, keep: I64) -> list[_Part]:
        known = self._parts
        if known is not None and known[0] is columns and known[1] is keep:
            return known[2]
        kept = keep[columns.slots]
        parts = []
        for ms in distinct(kept).tolist():
            slots = columns.slots[kept == ms]
            slots = slots[self._stream.held[slots]]
            labels = tuple([one for slot in slots.tolist() if (one := self._stream.labels[slot]) is not None])
            flags = tuple(self._stream.counters[slots].tolist())
            parts.append(_Part(ms, slots, labels, flags))
        self._parts = columns, keep, parts
        return parts
