"""The newest samples of everything, in memory."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from exporter.storage.arrays import I64, Bool
from exporter.storage.batch import Batch
from exporter.storage.index import Index
from exporter.storage.layout import Layout
from exporter.storage.metrics import DROPS
from exporter.storage.model import Labels, Matcher
from exporter.storage.restoring import restore
from exporter.storage.retention import Retention
from exporter.storage.saving import Unsaved
from exporter.storage.selection import HeadSelection
from exporter.storage.stream import SEGMENT_ROWS, Stream
from exporter.storage.trimming import QUARANTINE_MS, cut, trim, truncate, unused

__all__ = ["Head", "HeadStats", "Layout", "Stream"]

log = structlog.get_logger(__name__)

_SELECTIONS = 4096
"""Selections that are remembered."""
_ROOM = 0.95
"""What is left of the memory limit once the oldest samples have gone, so that they do not go one by one."""


@dataclass(frozen=True, slots=True)
class HeadStats:
    """What the head holds. Counts of dropped samples are since the start, by reason."""

    series: int
    samples: int
    bytes: int
    dropped: Mapping[str, int]
    oldest_ms: int | None
    retention_ms: int
    memory_limit: int


class Head:
    """A `Storage`: any thread may read; each stream has one writer; the rest is for one thread at a time to call.

    `segment_rows`: fewest and most rows of a segment, for tests.
    """

    def __init__(
        self, *, retention: Retention, memory_limit: int, segment_rows: tuple[int, int] = SEGMENT_ROWS
    ) -> None:
        self._retention = retention
        self._memory_limit = memory_limit
        self._segment_rows = segment_rows
        self._index = Index()
        self._streams: dict[str, Stream] = {}
        self._kept: dict[Stream, _Kept] = {}
        self._unsaved: dict[Stream, Unsaved] = {}
        self._pending: dict[str, list[Batch]] = {}
        self._quarantine: list[tuple[int, Stream, list[int]]] = []
        self._selections: dict[tuple[Matcher, ...], tuple[int, HeadSelection]] = {}
        self._lock = threading.RLock()

    def stream(self, name: str) -> Stream:
        """The stream of this name; the same object each time."""
        self._settle()
        stream = self._streams.get(name)
        return stream if stream is not None else self._new_stream(name)

    # --- reading

    def select(self, matchers: Sequence[Matcher]) -> HeadSelection:
        """Every series that fits all the matchers; ValueError for a bad regular expression."""
        self._settle()
        key = tuple(matchers)
        version = self._index.version(key)
        known = self._selections.get(key)
        if known is not None and known[0] == version:
            return known[1]
        selection = HeadSelection(self._index.find(key))
        if known is not None and selection.same_series(known[1]):
            selection = known[1]
        with self._lock:
            self._selections.pop(key, None)
            self._selections[key] = version, selection
            if len(self._selections) > _SELECTIONS:
                del self._selections[next(iter(self._selections))]
        return selection

    def series(self, matchers: Sequence[Matcher], lo: int, hi: int) -> list[Labels]:
        """The label sets with a sample in `(lo, hi]` that fit all the matchers; none: everything."""
        selection = self.select(matchers)
        labels = selection.labels
        return [labels[i] for i in np.flatnonzero(selection.sampled(lo, hi)).tolist()]

    def label_names(self, matchers: Sequence[Matcher], lo: int, hi: int) -> list[str]:
        """The names of labels on these series, sorted."""
        return sorted({name for labels in self.series(matchers, lo, hi) for name, _ in labels})

    def label_values(self, name: str, matchers: Sequence[Matcher], lo: int, hi: int) -> list[str]:
        """The values of one label on these series, sorted."""
        found = {value for labels in self.series(matchers, lo, hi) for key, value in labels if key == name}
        return sorted(found)

    # --- keeping house

    def set_retention(self, retention: Retention) -> None:
        """Keep series as long as this says from now on; what has gone does not come back."""
        with self._lock:
            self._retention = retention
            self._kept.clear()

    def expire(self, now_ms: int) -> None:
        """Drop what is too old, and the oldest of what is over the memory limit."""
        self._settle()
        with self._lock:
            self._release(now_ms)
            for stream in list(self._streams.values()):
                kept = self._judge(stream)
                with stream.lock:
                    if trim(stream, kept.ms, self._retention.base_ms, now_ms):
                        self._forget_unused(stream, now_ms)
            self._shrink(now_ms)

    def truncate_after(self, t_ms: int) -> None:
        """The clock was set back: drop and count every sample that lies after `t_ms`."""
        self._settle()
        with self._lock:
            for stream in self._streams.values():
                with stream.lock:
                    truncate(stream, t_ms)

    def stats(self) -> HeadStats:
        """Figures about what is held."""
        self._settle()
        streams = list(self._streams.values())
        dropped = {reason: sum(stream.dropped[reason] for stream in streams) for reason in DROPS}
        begins = [int(view.stamps[0]) for view in (stream.view for stream in streams) if len(view.stamps)]
        return HeadStats(
            series=len(self._index),
            samples=sum(stream.samples for stream in streams),
            bytes=sum(stream.nbytes for stream in streams),
            dropped=dropped,
            oldest_ms=min(begins, default=None),
            retention_ms=self._retention.base_ms,
            memory_limit=self._memory_limit,
        )

    # --- the archive

    def unsaved(self) -> list[Batch]:
        """Copies of the rows that were appended since the last call."""
        self._settle()
        with self._lock:
            batches: list[Batch] = []
            for stream in list(self._streams.values()):
                with stream.lock:
                    view, start = stream.view, stream.saved
                    stream.saved = stream.next_row
                if len(view.stamps) and start < view.base + len(view.stamps):
                    kept = self._judge(stream)
                    batches += self._unsaved.setdefault(stream, Unsaved(stream)).batches(view, start, kept.ms)
            return batches

    def load(self, batch: Batch) -> None:
        """Put back what the archive holds; RuntimeError once the stream has rows of its own."""
        with self._lock:
            stream = self._streams.get(batch.stream)
            if stream is not None and stream.last_ms is not None:
                raise RuntimeError(f"stream {batch.stream}: samples are loaded before the first is appended")
            self._pending.setdefault(batch.stream, []).append(batch)

    # --- inside

    def _settle(self) -> None:
        """Fill the streams with what was loaded."""
        if not self._pending:
            return
        with self._lock:
            for name, batches in self._pending.items():
                stream = self._streams.get(name) or self._new_stream(name)
                with stream.lock:
                    if stream.last_ms is None:
                        restore(stream, batches)
                    else:
                        log.warning("samples_loaded_too_late", stream=name, batches=len(batches))
            self._pending = {}

    def _new_stream(self, name: str) -> Stream:
        with self._lock:
            stream = self._streams.get(name)
            if stream is None:
                stream = Stream(name, len(self._streams), self._index, segment_rows=self._segment_rows)
                self._streams[name] = stream
            return stream

    def _judge(self, stream: Stream) -> _Kept:
        """How long each series of a stream is kept; asked once per series and retention."""
        known = self._kept.get(stream)
        with stream.lock:
            new = stream.unjudged if known is not None else list(range(len(stream.labels)))
            stream.unjudged = []
            labels = [(slot, stream.labels[slot]) for slot in new]
            size = len(stream.counters)
        if known is not None and not labels and len(known.ms) == size:
            return known
        ms = np.full(size, self._retention.base_ms, np.int64)
        read = np.zeros(size, np.bool_)
        if known is not None:
            ms[: len(known.ms)], read[: len(known.read)] = known.ms, known.read
        for slot, one in labels:
            if one is not None:
                ms[slot], read[slot] = self._retention.verdict(one, stream.name)
        kept = self._kept[stream] = _Kept(ms, read)
        return kept

    def _forget_unused(self, stream: Stream, now_ms: int) -> None:
        slots = unused(stream)
        if slots:
            gone = [one for one in (stream.labels[slot] for slot in slots) if one is not None]
            for one, slot in zip(gone, slots, strict=True):
                del stream.slots[one]
                stream.labels[slot] = None
            self._index.remove(stream, gone)
            self._quarantine.append((now_ms, stream, slots))

    def _release(self, now_ms: int) -> None:
        """Slots of forgotten series may be used again once no query can still know them."""
        old = [one for one in self._quarantine if abs(now_ms - one[0]) > QUARANTINE_MS]
        if old:
            self._quarantine = [one for one in self._quarantine if abs(now_ms - one[0]) <= QUARANTINE_MS]
            for _, stream, slots in old:
                with stream.lock:
                    stream.free += slots

    def _shrink(self, now_ms: int) -> None:
        """Under the memory limit again: the oldest first, of series that no rule reads, then of all others."""
        used = {stream: stream.nbytes for stream in self._streams.values()}
        if sum(used.values()) <= self._memory_limit:
            return
        room = int(self._memory_limit * _ROOM)
        for everything in (False, True):
            oldest = sorted(
                (segment.end_ms, stream.number, segment.first)
                for stream in used
                for segment in stream.segments
            )
            streams = {stream.number: stream for stream in used}
            for _, number, first in oldest:
                if sum(used.values()) <= room:
                    break
                stream = streams[number]
                read = self._judge(stream).read
                with stream.lock:
                    place = next((i for i, one in enumerate(stream.segments) if one.first == first), None)
                    if place is None or stream.segments[place].stop == stream.next_row:
                        continue
                    columns = stream.segments[place].columns
                    going: Bool = np.ones(len(columns), np.bool_) if everything else ~read[columns.slots]
                    if going.any():
                        cut(stream, place, going)
                        used[stream] = stream.nbytes
        for stream in used:
            with stream.lock:
                self._forget_unused(stream, now_ms)


@dataclass(frozen=True, slots=True)
class _Kept:
    """By slot: how long a series is kept, in milliseconds, and whether anything needs it."""

    ms: I64
    read: Bool
