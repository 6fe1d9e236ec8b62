"""The archive's hold on its file: opened when it is needed, let go when anything is wrong, replaced when it is broken."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from exporter.storage.archive_catalog import Catalog
from exporter.storage.archive_codec import ChunkError
from exporter.storage.archive_file import (
    BROKEN,
    FileError,
    connect,
    connect_reading,
    set_aside,
    translated,
)
from exporter.storage.archive_plan import Chunk
from exporter.storage.archive_rescue import rescue
from exporter.storage.archive_stats import ArchiveStats, one_more

log = structlog.get_logger(__name__)

Work = Callable[[sqlite3.Connection, Catalog], None]


class Link:
    """One file, used by one thread at a time.

    After every failure the file is closed, and opened again at the next try: that puts the catalog in step with it, and
    finds out when it works again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stats = ArchiveStats()
        self._open: tuple[sqlite3.Connection, Catalog] | None = None
        self._inode = 0
        self._damaged: Path | None = None
        self._rescued = False

    def attempt(self, work: Work) -> bool:
        """Do work on the open file; a broken file is replaced, once, and the work done on the new one."""
        for _ in range(2):
            try:
                with translated():
                    work(*self._connect())
            except FileError as error:
                if not self._failed(error):
                    return False
            else:
                if self.stats.problem is not None:
                    log.info("archive_recovered", path=str(self.path))
                    self.stats = replace(self.stats, problem=None)
                return True
        return False

    def for_reading(self) -> tuple[sqlite3.Connection, Catalog] | None:
        """The file, even one that cannot be written; to be given back with `done_reading`."""
        if self.attempt(lambda connection, catalog: None):
            return self._open
        if self.stats.problem in (None, "locked", *BROKEN):
            return None
        try:
            with translated():
                connection = connect_reading(self.path)
                return connection, Catalog(connection)
        except (FileError, ChunkError) as error:
            log.warning("archive_unreadable", path=str(self.path), error=str(error))
            return None

    def done_reading(self, connection: sqlite3.Connection) -> None:
        """Close what was opened for reading alone."""
        if self._open is None or connection is not self._open[0]:
            connection.close()

    def replace_broken(self, error: FileError) -> None:
        """Put a file out of the way that showed itself broken outside of `attempt`, and begin a new one."""
        self._failed(error)
        self.attempt(lambda connection, catalog: None)

    def note_damage(self, chunk: Chunk, error: Exception) -> None:
        """Count a chunk that cannot be read back."""
        if not self.stats.damaged_chunks:
            log.warning("archive_chunk_damaged", path=str(self.path), chunk=chunk.id, error=str(error))
        self.stats = replace(self.stats, damaged_chunks=self.stats.damaged_chunks + 1)

    def close(self) -> None:
        """Let the file go."""
        if self._open is not None:
            with contextlib.suppress(sqlite3.Error):
                self._open[0].close()
            self._open = None

    def _connect(self) -> tuple[sqlite3.Connection, Catalog]:
        if self._open is not None:
            with contextlib.suppress(OSError):
                if self.path.stat().st_ino == self._inode:
                    return self._open
            log.warning("archive_was_removed", path=str(self.path), advice="it is begun anew")
            self.close()
        connection = connect(self.path)
        try:
            self._rescue(connection)
            self._open = connection, Catalog(connection)
            self._inode = self.path.stat().st_ino
        except BaseException as error:
            connection.close()
            self._open = None
            if isinstance(error, ChunkError):
                raise FileError("corrupt", str(error)) from error
            raise
        return self._open

    def _rescue(self, connection: sqlite3.Connection) -> None:
        """Bring over what can be read of the file that this new one replaces."""
        damaged, self._damaged = self._damaged, None
        if damaged is None:
            return
        self._rescued = True
        try:
            with translated():
                saved = rescue(damaged, connection)
        except FileError as error:
            log.warning("archive_rescue_failed", damaged=str(damaged), error=str(error))
        else:
            log.warning("archive_rescued", damaged=str(damaged), chunks=saved)

    def _failed(self, error: FileError) -> bool:
        """Count it; True when the file was put out of the way, so that a new one can be begun."""
        self.close()
        self._count(error)
        if error.reason not in BROKEN:
            return False
        try:
            aside = set_aside(self.path)
        except FileError as failure:
            self._count(failure)
            return False
        log.warning("archive_set_aside", path=str(self.path), moved_to=str(aside), error=str(error))
        self.stats = replace(self.stats, set_aside=one_more(self.stats.set_aside, error.reason))
        # Once only: what was rescued and is broken all the same would come over again and again.
        self._damaged = aside if error.reason == "corrupt" and not self._rescued else None
        self._rescued = False
        return True

    def _count(self, error: FileError) -> None:
        if self.stats.problem != error.reason:
            log.warning(
                "archive_failing", path=str(self.path), reason=error.reason, error=str(error),
                advice="samples wait in memory, and are written when it works again",
            )  # fmt: skip
        failures = one_more(self.stats.failures, error.reason)
        self.stats = replace(self.stats, failures=failures, problem=error.reason)
