"""The newest samples of everything, in memory."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import structlog

from exporter.storage.arrays import I64, Bool, distinct
from exporter.storage.batch import Batch
from exporter.storage.index import Index
from exporter.storage.layout import Layout
from exporter.storage.metrics import DROPS
from exporter.storage.model import Labels, Matcher
from exporter.storage.restoring import restore
from exporter.storage.retention import Retention
from exporter.storage.saving import Unsaved
from exporter.storage.selection import HeadSelection
from exporter.storage.stream import SEGMENT_ROWS, SetBack, Stream
from exporter.storage.trimming import cut, ended, evict, keeps_all, trim, truncate, unused

__all__ = ["Head", "HeadStats", "Layout", "Stream"]

log = structlog.get_logger(__name__)

_SELECTIONS = 4096
"""Selections that are remembered."""
_SELECTED = 1 << 20
"""Series that the remembered selections may have, all together."""
_ROOM = 0.95
"""What is left of the memory limit once the oldest samples have gone, so that they do not go one by one."""
_SERIES_SHARE = 0.25
"""The part of the memory limit that series may take besides their samples; over it, those that ended go first."""
_UNDER_WAY_MS = 60_000
"""How far behind the newest row a row may lie that is just being made, such as the result of a rule."""
_QUARANTINE_MS = 10_000, 600_000
"""How long the slot of a forgotten series stays empty: first until every query knows that it has gone which was just being
begun, and then as long as one goes on that began before, but no longer than any may."""


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
        self._quarantine: list[_Empty] = []
        self._epoch = 0
        self._alive: weakref.WeakSet[HeadSelection] = weakref.WeakSet()
        self._selected = 0
        self._evicted = 0
        self._too_small = False
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
        version, epoch = self._index.version(key), self._epoch
        known = self._selections.get(key)
        if known is not None and known[0] == version:
            return known[1]
        selection = HeadSelection(self._index.find(key), epoch)
        with self._lock:
            if known is not None and selection.same_series(known[1]):
                selection = known[1]
            self._alive.add(selection)
            self._forget_selection(key)
            if self._index.version(key) == version:
                self._selections[key] = version, selection
                self._selected += len(selection.labels)
                while len(self._selections) > _SELECTIONS or (
                    self._selected > _SELECTED and len(self._selections) > 1
                ):
                    self._forget_selection(next(iter(self._selections)))
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
                if keeps_all(stream, self._retention.base_ms, now_ms):
                    continue
                kept = self._judge(stream)
                with stream.lock:
                    if trim(stream, kept.ms, self._retention.base_ms, now_ms):
                        self._forget_unused(stream, now_ms)
            self._shrink(now_ms)

    def relieve(self, now_ms: int) -> None:
        """The same for the memory limit alone, and cheap as long as it holds; for when many new series came."""
        if self._used() > self._memory_limit:
            with self._lock:
                self._release(now_ms)
                self._shrink(now_ms)

    def truncate_after(self, t_ms: int) -> None:
        """The clock was set back: drop and count every sample that lies after `t_ms`.

        A row that another thread is about to append, with a time of the old clock, goes with the next one.
        """
        self._settle()
        with self._lock:
            from_ms = (
                max((stream.last_ms or 0 for stream in self._streams.values()), default=0) - _UNDER_WAY_MS
            )
            for stream in self._streams.values():
                with stream.lock:
                    truncate(stream, t_ms)
                    stream.set_back = SetBack(max(from_ms, t_ms + 1), t_ms, partial(truncate, stream))

    def stats(self) -> HeadStats:
        """Figures about what is held."""
        self._settle()
        streams = list(self._streams.values())
        dropped = {reason: sum(stream.dropped[reason] for stream in streams) for reason in DROPS}
        begins = [int(view.stamps[0]) for view in (stream.view for stream in streams) if len(view.stamps)]
        return HeadStats(
            series=len(self._index),
            samples=sum(stream.samples for stream in streams),
            bytes=self._used(),
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
                if stream.saved == stream.next_row:
                    continue
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
        if known is not None and not stream.unjudged and len(known.ms) == len(stream.counters):
            return known
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
            self._forget(stream, slots, now_ms)

    def _forget(self, stream: Stream, slots: list[int], now_ms: int) -> None:
        """Series of which nothing is left go from the index and from every remembered selection."""
        self._index.remove(stream, stream.forget(slots))
        self._epoch += 1
        self._quarantine.append(_Empty(now_ms, self._epoch, stream, slots))
        for key, (version, selection) in list(self._selections.items()):
            if self._index.version(key) == version:
                selection.epoch = self._epoch
            else:
                self._forget_selection(key)

    def _forget_selection(self, key: tuple[Matcher, ...]) -> None:
        known = self._selections.pop(key, None)
        if known is not None:
            self._selected -= len(known[1].labels)

    def _release(self, now_ms: int) -> None:
        """Slots of forgotten series may be used again once no query can still know them."""
        if not self._quarantine:
            return
        shortest, longest = _QUARANTINE_MS
        oldest = min((selection.epoch for selection in self._alive), default=self._epoch)
        waiting = []
        for empty in self._quarantine:
            age = abs(now_ms - empty.since_ms)
            if age > longest or (age > shortest and empty.epoch <= oldest):
                with empty.stream.lock:
                    empty.stream.free += empty.slots
            else:
                waiting.append(empty)
        self._quarantine = waiting

    def _used(self) -> int:
        return self._index.nbytes + sum(stream.nbytes for stream in list(self._streams.values()))

    def _shrink(self, now_ms: int) -> None:
        """Under the memory limit again.

        First go series that ended, while series take too much besides their samples; then the oldest samples, of series
        that no rule reads, then of all others; then whatever has ended.
        """
        if self._used() <= self._memory_limit:
            return
        room = int(self._memory_limit * _ROOM)
        self._evict(int(self._memory_limit * _SERIES_SHARE), now_ms)
        self._cut_oldest(room, now_ms)
        if self._used() > room:
            self._evict(max(0, self._index.nbytes + room - self._used()), now_ms)
        if self._used() > self._memory_limit:
            for stream in self._streams.values():
                with stream.lock:  # the next row comes to stand behind them, and then they can go
                    stream.finish()
                    stream.publish()
        too_small = self._used() > self._memory_limit
        if too_small and not self._too_small:
            log.warning(
                "memory_limit_too_small", bytes=self._used(), limit=self._memory_limit, series=len(self._index),
                advice="the series that there are now take more by themselves: only their newest rows are kept",
            )  # fmt: skip
        self._too_small = too_small

    def _evict(self, target: int, now_ms: int) -> None:
        """Forget series that ended, the longest ago first, until series take no more than `target` bytes."""
        excess = self._index.nbytes - target
        if excess <= 0:
            return
        count = min(len(self._index), int(excess * len(self._index) / self._index.nbytes) + 1)
        streams = list(self._streams.values())
        found = []
        for number, stream in enumerate(streams):
            with stream.lock:
                slots, times = ended(stream)
            found.append((np.full(len(slots), number, np.int32), slots, times))
        numbers, slots, times = (np.concatenate(column) for column in zip(*found, strict=True))
        going = np.argsort(times, kind="stable")[:count]
        self._evicted += len(going)
        for number in distinct(numbers[going]).tolist():
            stream, some = streams[number], slots[going][numbers[going] == number]
            with stream.lock:
                # The writer may have brought some of them back meanwhile.
                still = some[np.isin(some, ended(stream)[0])] if stream.next_row else some
                evict(stream, still)
                self._forget(stream, still.tolist(), now_ms)

    def _cut_oldest(self, room: int, now_ms: int) -> None:
        """Drop the oldest samples: of series that no rule reads, then of all others."""
        total = self._used()
        for everything in (False, True):
            oldest = sorted(
                (segment.end_ms, stream.number, segment.first)
                for stream in self._streams.values()
                for segment in stream.segments
            )
            streams = {stream.number: stream for stream in self._streams.values()}
            for _, number, first in oldest:
                if total <= room:
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
                        before = stream.nbytes
                        cut(stream, place, going)
                        total -= before - stream.nbytes
        for stream in self._streams.values():
            with stream.lock:
                self._forget_unused(stream, now_ms)


class _Empty(NamedTuple):
    """Slots without a series, not to be used again yet."""

    since_ms: int
    epoch: int
    stream: Stream
    slots: list[int]


@dataclass(frozen=True, slots=True)
class _Kept:
    """By slot: how long a series is kept, in milliseconds, and whether anything needs it."""

    ms: I64
    read: Bool
