"""Samples on disk: what the head took in, so that a restart goes on from it.

Whatever is wrong with the file or its disk, nothing is raised here: it is counted by reason, logged once, and tried
again with the next write; what could not be written waits in memory, within a limit. A file that is no archive, or
that is damaged, is renamed and begun anew.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from exporter.storage.archive_catalog import Catalog
from exporter.storage.archive_codec import ChunkError, decode, encode
from exporter.storage.archive_file import (
    BROKEN,
    FileError,
    checkpoint,
    connect,
    connect_reading,
    file_bytes,
    set_aside,
    transaction,
    translated,
)
from exporter.storage.archive_plan import LARGEST_CHUNK, Chunk, expired, merge_rows, merges, within
from exporter.storage.batch import Batch

if TYPE_CHECKING:
    from exporter.storage.model import F64, I64

log = structlog.get_logger(__name__)

SIZE_LIMIT = 1 << 30
"""Bytes of samples in the file, compressed: far more than the head takes, so that only an accident reaches it."""
WAITING_LIMIT = 32 << 20
"""Bytes of samples that wait in memory while the file cannot be written."""
WORK_LIMIT = 16 * LARGEST_CHUNK
"""Bytes of values that one compaction goes through, so that it ends soon; the next goes on."""


@dataclass(frozen=True, slots=True)
class ArchiveStats:
    """How the archive does. Times: unix seconds; sizes: bytes. Counts are since the start of the process."""

    flushes: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    """By reason, of archive_file.REASONS: each write, load or compaction that did not come to its end."""
    set_aside: Mapping[str, int] = field(default_factory=dict)
    """By reason: files that were renamed and begun anew."""
    last_flush: float | None = None
    file_bytes: int = 0
    waiting_bytes: int = 0
    """Samples that wait for a file that can be written."""
    lost_samples: int = 0
    """Samples that never came to disk: too many were waiting, or the archive was closed while it could not be written."""
    damaged_chunks: int = 0
    """Chunks that could not be read back."""
    problem: str | None = None
    """What is wrong now; None while all is well."""


class Archive:
    """One file of samples; any thread may call, one call at a time goes on. All of it blocks on the disk."""

    @classmethod
    def open(cls, path: Path, *, size_limit: int = SIZE_LIMIT) -> Archive:
        """The archive at a path; made when it is missing, begun anew when it is broken."""
        archive = cls(path, size_limit)
        with archive._lock:
            archive._attempt(lambda: None)
        return archive

    def __init__(self, path: Path, size_limit: int) -> None:
        self._path = path
        self._size_limit = size_limit
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._catalog: Catalog
        self._waiting: deque[Sequence[Batch]] = deque()
        self._stats = ArchiveStats()

    def stats(self) -> ArchiveStats:
        """As of the end of the last call; never waits."""
        return self._stats

    def load(self, now_ms: int | None = None) -> Iterator[Batch]:
        """Everything that is kept, each stream and retention in time order; given `now_ms`, nothing from after it."""
        with self._lock:
            reading = self._for_reading()
        if reading is None:
            return
        connection, catalog, chunks = reading
        damaged = 0
        for chunk in chunks:
            with self._lock:
                try:
                    batch = self._read(connection, catalog, chunk, now_ms)
                except (FileError, ChunkError, KeyError) as error:
                    damaged += 1
                    if damaged == 1:
                        log.warning("archive_chunk_damaged", path=str(self._path), error=str(error))
                    continue
            if batch is not None and len(batch.times):
                yield batch
        with self._lock:
            if connection is not self._connection:
                connection.close()
            if damaged:
                self._stats = replace(self._stats, damaged_chunks=self._stats.damaged_chunks + damaged)

    def write(self, batches: Sequence[Batch]) -> bool:
        """Add rows, all or none; those that could not be added before go first. False: they wait."""
        with self._lock:
            new = [batch for batch in batches if len(batch.times) and len(batch.labels)]
            if new:
                self._waiting.append(new)
            written = self._attempt(self._write_waiting)
            if written:
                self._waiting.clear()
                self._stats = replace(self._stats, flushes=self._stats.flushes + 1, last_flush=time.time())
            else:
                self._drop_excess()
            self._note()
            return written

    def compact(self, now_ms: int) -> bool:
        """Delete what is too old, merge small chunks, give space back. False: not to its end; the next goes on."""
        with self._lock:
            done = self._attempt(lambda: self._compact(now_ms))
            self._note()
            return done

    def truncate_after(self, t_ms: int) -> bool:
        """Forget what lies after a time: the clock was set back."""
        with self._lock:

            def cut() -> None:
                with transaction(self._open_connection()):
                    self._cut(t_ms + 1, self._catalog.streams.values())

            return self._attempt(cut)

    def close(self) -> None:
        """Let the file go; what still waits is tried once more."""
        with self._lock:
            if self._waiting:
                self.write(())
                for flush in self._waiting:
                    self._lose(flush)
                self._waiting.clear()
            self._disconnect()
            self._note()

    # Each of the following is called with the lock held.

    def _attempt(self, work: Callable[[], None]) -> bool:
        """Do work on an open file; a broken file is replaced, once, and the work done on the new one."""
        for _ in range(2):
            try:
                with translated():
                    self._connect()
                    work()
            except FileError as error:
                if not self._failed(error):
                    return False
            else:
                if self._stats.problem is not None:
                    log.info("archive_recovered", path=str(self._path))
                    self._stats = replace(self._stats, problem=None)
                return True
        return False

    def _connect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                if self._path.stat().st_ino == self._inode:
                    return
            log.warning("archive_was_removed", path=str(self._path), advice="it is begun anew")
            self._disconnect()
        connection = connect(self._path)
        try:
            self._catalog = Catalog(connection)
            self._inode = self._path.stat().st_ino
        except ChunkError as error:
            connection.close()
            raise FileError("corrupt", str(error)) from error
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _open_connection(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _failed(self, error: FileError) -> bool:
        """Count it; True when the file was put out of the way, so that a new one can be begun."""
        self._disconnect()
        self._count(error)
        if error.reason not in BROKEN:
            return False
        try:
            aside = set_aside(self._path)
        except FileError as failure:
            self._count(failure)
            return False
        log.warning("archive_set_aside", path=str(self._path), moved_to=str(aside), error=str(error))
        self._stats = replace(self._stats, set_aside=_one_more(self._stats.set_aside, error.reason))
        return True

    def _count(self, error: FileError) -> None:
        if self._stats.problem != error.reason:
            log.warning(
                "archive_failing", path=str(self._path), reason=error.reason, error=str(error),
                advice="samples wait in memory, and are written when it works again",
            )  # fmt: skip
        failures = _one_more(self._stats.failures, error.reason)
        self._stats = replace(self._stats, failures=failures, problem=error.reason)

    def _for_reading(self) -> tuple[sqlite3.Connection, Catalog, list[Chunk]] | None:
        """What a load needs; from a file that cannot be written too."""
        found: list[Chunk] = []
        if self._attempt(lambda: found.extend(self._catalog.chunks())):
            return self._open_connection(), self._catalog, found
        if self._stats.problem not in ("read_only", "cannot_open", "full", "io"):
            return None
        try:
            with translated():
                connection = connect_reading(self._path)
                catalog = Catalog(connection)
                return connection, catalog, catalog.chunks()
        except (FileError, ChunkError) as error:
            log.warning("archive_unreadable", path=str(self._path), error=str(error))
            return None

    def _read(
        self, connection: sqlite3.Connection, catalog: Catalog, chunk: Chunk, now_ms: int | None
    ) -> Batch | None:
        labels, counters = catalog.columns(chunk.layout)
        with translated():
            row = connection.execute("SELECT data FROM chunk WHERE id = ?", (chunk.id,)).fetchone()
        if row is None:
            return None
        times, values = decode(row[0], len(labels), chunk.rows)
        if now_ms is None:
            times, values = within(times, values, None, chunk.last)
        else:
            times, values = within(times, values, now_ms - chunk.keep, min(chunk.last, now_ms))
        name = next(name for name, number in catalog.streams.items() if number == chunk.stream)
        return Batch(name, chunk.keep, labels, counters, times, values)

    def _write_waiting(self) -> None:
        catalog = self._catalog
        with transaction(self._open_connection()):
            for flush in self._waiting:
                firsts: dict[int, int] = {}
                for batch in flush:
                    stream = catalog.stream(batch.stream)
                    firsts[stream] = min(firsts.get(stream, int(batch.times[0])), int(batch.times[0]))
                for stream, first in firsts.items():
                    if first <= catalog.last.get(stream, first - 1):
                        self._cut(first, (stream,))  # the clock was set back: what is written later counts
                for batch in flush:
                    self._insert(
                        catalog.stream(batch.stream),
                        batch.keep,
                        catalog.layout_of(batch),
                        batch.times,
                        batch.values,
                    )

    def _insert(self, stream: int, keep: int, layout: int, times: I64, values: F64) -> None:
        first, last = int(times[0]), int(times[-1])
        self._open_connection().execute(
            "INSERT INTO chunk (stream, keep, layout, first, last, rows, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (stream, keep, layout, first, last, len(times), encode(times, values)),
        )
        self._catalog.last[stream] = max(last, self._catalog.last.get(stream, last))

    def _cut(self, first: int, streams: Iterable[int]) -> None:
        """Of some streams, what lies at a time or after it no longer counts."""
        connection = self._open_connection()
        for stream in streams:
            connection.execute("DELETE FROM chunk WHERE stream = ? AND first >= ?", (stream, first))
            connection.execute(
                "UPDATE chunk SET last = ? WHERE stream = ? AND last >= ?", (first - 1, stream, first)
            )
            self._catalog.last[stream] = min(first - 1, self._catalog.last.get(stream, first - 1))

    def _compact(self, now_ms: int) -> None:
        connection, catalog = self._open_connection(), self._catalog
        chunks = catalog.chunks()
        gone = {chunk.id for chunk in expired(chunks, now_ms, self._size_limit)}
        if gone:
            with transaction(connection):
                connection.executemany("DELETE FROM chunk WHERE id = ?", [(number,) for number in gone])
                catalog.forget_unused()
        work = 0
        for merge in merges([chunk for chunk in chunks if chunk.id not in gone], catalog.layouts):
            work += sum(8 * chunk.rows * len(catalog.layouts[chunk.layout]) for chunk in merge)
            with transaction(connection):
                self._merge(merge)
            if work > WORK_LIMIT:
                break
        checkpoint(connection)

    def _merge(self, chunks: Sequence[Chunk]) -> None:
        connection, catalog = self._open_connection(), self._catalog
        parts = []
        for chunk in chunks:
            series = catalog.layouts[chunk.layout]
            (data,) = connection.execute("SELECT data FROM chunk WHERE id = ?", (chunk.id,)).fetchone()
            try:
                times, values = decode(data, len(series), chunk.rows)
            except ChunkError as error:
                log.warning("archive_chunk_damaged", path=str(self._path), error=str(error))
                self._stats = replace(self._stats, damaged_chunks=self._stats.damaged_chunks + 1)
            else:
                parts.append((series, *within(times, values, None, chunk.last)))
        connection.executemany("DELETE FROM chunk WHERE id = ?", [(chunk.id,) for chunk in chunks])
        if parts:
            series, times, values = merge_rows(parts)
            self._insert(chunks[0].stream, chunks[0].keep, catalog.layout(series), times, values)

    def _drop_excess(self) -> None:
        """Keep what waits within its limit; the oldest is lost."""
        while len(self._waiting) > 1 and sum(map(_flush_bytes, self._waiting)) > WAITING_LIMIT:
            self._lose(self._waiting.popleft())

    def _lose(self, flush: Sequence[Batch]) -> None:
        lost = sum(batch.values.size for batch in flush)
        self._stats = replace(self._stats, lost_samples=self._stats.lost_samples + lost)

    def _note(self) -> None:
        waiting = sum(map(_flush_bytes, self._waiting))
        self._stats = replace(self._stats, file_bytes=file_bytes(self._path), waiting_bytes=waiting)


def _flush_bytes(flush: Sequence[Batch]) -> int:
    return sum(batch.values.nbytes + batch.times.nbytes for batch in flush)


def _one_more(counts: Mapping[str, int], reason: str) -> Mapping[str, int]:
    return {**counts, reason: counts.get(reason, 0) + 1}
