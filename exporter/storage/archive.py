"""Samples on disk: what the head took in, so that a restart goes on from it.

Whatever is wrong with the file or its disk, nothing is raised here: it is counted by reason, logged once, and tried
again with the next write; what could not be written waits in memory, within a limit. A file that is no archive, or
that is damaged, is renamed and begun anew with what could be read of it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from exporter.storage import archive_rows
from exporter.storage.archive_catalog import Catalog
from exporter.storage.archive_codec import ChunkError
from exporter.storage.archive_file import BROKEN, FileError, check_log, file_bytes, translated
from exporter.storage.archive_link import Link
from exporter.storage.archive_plan import Chunk
from exporter.storage.archive_stats import ArchiveStats
from exporter.storage.batch import Batch

SIZE_LIMIT = 1 << 30
"""Bytes of samples in the file, compressed: far more than the head takes, so that only an accident reaches it."""
WAITING_LIMIT = 32 << 20
"""Bytes of samples that wait in memory while the file cannot be written."""

_LABELS = 500
"""Bytes of a label set, about."""

log = structlog.get_logger(__name__)


class Archive:
    """One file of samples; any thread may call, one call at a time goes on. All of it blocks on the disk."""

    @classmethod
    def open(cls, path: Path, *, size_limit: int = SIZE_LIMIT) -> Archive:
        """The archive at a path; made when it is missing, begun anew when it is broken."""
        archive = cls(path, size_limit)
        archive._link.attempt(lambda connection, catalog: None)
        archive._note()
        return archive

    def __init__(self, path: Path, size_limit: int) -> None:
        self._link = Link(path)
        self._size_limit = size_limit
        self._lock = threading.RLock()
        self._left_out, self._crowded = 0, False
        self._waiting: deque[Sequence[Batch]] = deque()
        self._stats = ArchiveStats()

    def stats(self) -> ArchiveStats:
        """As of the end of the last call; never waits."""
        return self._stats

    def load(self, now_ms: int | None = None) -> Iterator[Batch]:
        """Everything that is kept, each stream and retention in time order; given `now_ms`, nothing from after it."""
        with self._lock:
            reading = self._link.for_reading()
            self._note()
        if reading is None:
            return
        connection, catalog = reading
        broken: FileError | None = None
        names = {number: name for name, number in catalog.streams.items()}
        chunks: list[Chunk] = []
        try:
            with translated():
                chunks = catalog.chunks()
        except FileError as error:
            broken = error
        for chunk in catalog.misshapen:
            self._link.note_damage(chunk, ChunkError("it says what no chunk says"))
        for chunk in chunks:
            try:
                with self._lock, translated():
                    labels, counters = catalog.columns(chunk.layout)
                    rows = archive_rows.read(connection, catalog, chunk, now_ms)
            except (FileError, ChunkError) as error:
                self._link.note_damage(chunk, error)
                if isinstance(error, FileError):
                    broken = error
            else:
                if chunk.stream not in names:
                    self._link.note_damage(chunk, ChunkError("nothing says whose samples they are"))
                elif rows is not None and len(rows[0]):
                    yield Batch(names[chunk.stream], chunk.keep, labels, counters, *rows)
        with self._lock:
            catalog.forget_columns()
            self._link.done_reading(connection)
            if broken is not None and broken.reason in BROKEN:
                self._link.replace_broken(broken)
            self._note()

    def write(self, batches: Sequence[Batch]) -> bool:
        """Add rows, all or none; those that could not be added before go first. False: they wait."""
        with self._lock:
            new = [batch for batch in batches if len(batch.times) and len(batch.labels)]
            if new:
                self._waiting.append(new)
            written = self._link.attempt(self._write_waiting)
            stats = self._link.stats
            if written:
                self._waiting.clear()
                if self._left_out and not self._crowded:
                    log.warning(
                        "archive_of_too_many_series", path=str(self._link.path), limit=archive_rows.SERIES_LIMIT,
                        advice="samples of new series are not kept on disk until old ones have gone",
                    )  # fmt: skip
                self._crowded = bool(self._left_out)
                self._link.stats = replace(
                    stats,
                    flushes=stats.flushes + 1,
                    last_flush=time.time(),
                    lost_samples=stats.lost_samples + self._left_out,
                )
            else:
                while len(self._waiting) > 1 and self._waiting_bytes() > WAITING_LIMIT:
                    self._lose(self._waiting.popleft())
            self._note()
            return written

    def compact(self, now_ms: int) -> bool:
        """Delete what is too old, merge small chunks, give space back. False: not to its end; the next goes on."""
        with self._lock:
            done = self._link.attempt(
                lambda connection, catalog: archive_rows.compact(
                    connection, catalog, now_ms, self._size_limit, self._link.note_damage
                )
            )
            self._note()
            return done

    def truncate_after(self, t_ms: int) -> bool:
        """Forget what lies after a time: the clock was set back."""
        with self._lock:
            done = self._link.attempt(
                lambda connection, catalog: archive_rows.truncate(connection, catalog, t_ms)
            )
            self._note()
            return done

    def close(self) -> None:
        """Let the file go; what still waits is tried once more."""
        with self._lock:
            if self._waiting and not self.write(()):
                for flush in self._waiting:
                    self._lose(flush)
                self._waiting.clear()
            self._link.close()
            self._note()

    def _write_waiting(self, connection: sqlite3.Connection, catalog: Catalog) -> None:
        check_log(connection, self._link.path)
        self._left_out = archive_rows.write(connection, catalog, self._waiting)

    def _lose(self, flush: Sequence[Batch]) -> None:
        lost = self._link.stats.lost_samples + sum(batch.values.size for batch in flush)
        self._link.stats = replace(self._link.stats, lost_samples=lost)

    def _waiting_bytes(self) -> int:
        batches = [batch for flush in self._waiting for batch in flush]
        series = {id(batch.labels): len(batch.labels) for batch in batches}
        return sum(batch.values.nbytes + batch.times.nbytes for batch in batches) + _LABELS * sum(
            series.values()
        )

    def _note(self) -> None:
        self._stats = replace(
            self._link.stats, file_bytes=file_bytes(self._link.path), waiting_bytes=self._waiting_bytes()
        )
