"""The outbox's hold on its file: opened when it is needed, let go when anything is wrong, begun anew when it is broken.

Blocks on the disk. After a failure the file is written whole, from what is kept in memory, at the next try that succeeds.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from exporter.notify.outbox import file, rows
from exporter.notify.outbox.kept import Delta, Kept
from exporter.notify.outbox.reading import read
from exporter.notify.outbox.stats import OutboxStats
from exporter.storage.archive_file import (
    BROKEN,
    FileError,
    check_log,
    checkpoint,
    file_bytes,
    set_aside,
    translated,
)

log = structlog.get_logger(__name__)


class Link:
    """One file, used by one thread at a time; `whole` gives what is kept now."""

    def __init__(self, path: Path, whole: Callable[[], Kept]) -> None:
        self._path = path
        self._whole = whole
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._unread = False
        """There may be something in the file that nobody has seen: it is never overwritten."""
        self.behind = False
        """The file lacks something that is kept in memory."""
        self.stats = OutboxStats()

    def read(self) -> Kept:
        """What the daemon before left behind; nothing where it cannot be read."""
        try:
            self._connect()
            assert self._connection is not None
            found = read(self._connection)
        except FileError as error:
            if error.reason in BROKEN:
                return self._replace(error, self._rescue)
            self._failed(error)
            return self._read_only()
        if found.broken:
            damage = FileError("corrupt", "parts of it cannot be read")
            return self._replace(damage, lambda aside: found.kept)
        self._note_damage(found.damaged)
        self._note()
        return found.kept

    def write(self, deltas: Sequence[Delta]) -> bool:
        """Bring the file up to date, by the deltas alone where it lacks nothing else."""
        for _ in range(2):
            try:
                self._connect()
                assert self._connection is not None
                steps = rows.anew(self._whole()) if self.behind else rows.changes(deltas)
                with translated():
                    check_log(self._connection, self._path)
                    rows.write(self._connection, steps)
            except MemoryError:
                self._failed(FileError("other", "not enough memory"))
                return False
            except FileError as error:
                self._failed(error)
                if error.reason not in BROKEN or not self._set_aside(error.reason):
                    return False
            else:
                self.behind = False
                self.stats = replace(self.stats, writes=self.stats.writes + 1)
                if self.stats.problem is not None:
                    log.info("outbox_recovered", path=str(self._path))
                    self.stats = replace(self.stats, problem=None)
                self._note()
                return True
        return False

    def tidy(self) -> None:
        """Bring the log into the file and give room back; nothing else waits for the disk now."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                checkpoint(self._connection)
            self._note()

    def close(self) -> None:
        """Let the file go."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _connect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(OSError):
                if self._path.stat().st_ino == self._inode:
                    return
            log.warning("outbox_was_removed", path=str(self._path), advice="it is begun anew")
            self.close()
            self.behind = True
        if self._unread:
            # It could not be read at the start: when it can be now, what it says is too late, but not to be lost.
            file.connect(self._path).close()
            self._set_aside("unread")
            self._unread = False
        self._connection = file.connect(self._path)
        with translated():
            self._inode = self._path.stat().st_ino

    def _read_only(self) -> Kept:
        """What a file holds that cannot be written."""
        if not self._path.exists():
            return Kept()
        try:
            connection = file.connect_reading(self._path)
            try:
                found = read(connection)
            finally:
                connection.close()
        except FileError as error:
            log.warning("outbox_unreadable", path=str(self._path), error=str(error))
            self._unread = True
            return Kept()
        self._note_damage(found.damaged)
        return found.kept

    def _replace(self, error: FileError, rescue: Callable[[Path], Kept]) -> Kept:
        self._failed(error)
        aside = self._set_aside(error.reason)
        kept = Kept() if aside is None or error.reason != "corrupt" else rescue(aside)
        if kept.next_number > 1:
            log.warning(
                "outbox_rescued", path=str(self._path), pending=len(kept.pending), dead=len(kept.dead)
            )
        return kept

    def _rescue(self, aside: Path) -> Kept:
        try:
            connection = file.connect_reading(aside, damaged=True)
            try:
                return read(connection).kept
            finally:
                connection.close()
        except FileError as error:
            log.warning("outbox_rescue_failed", path=str(aside), error=str(error))
            return Kept()

    def _set_aside(self, reason: str) -> Path | None:
        try:
            aside = set_aside(self._path)
        except FileError as error:
            self._failed(error)
            return None
        log.warning("outbox_set_aside", path=str(self._path), moved_to=str(aside), reason=reason)
        counts = {**self.stats.set_aside, reason: self.stats.set_aside.get(reason, 0) + 1}
        self.stats = replace(self.stats, set_aside=counts)
        self.behind = True
        return aside

    def _failed(self, error: FileError) -> None:
        self.close()
        self.behind = True
        self._count(error.reason, str(error))

    def _count(self, reason: str, error: str) -> None:
        if self.stats.problem != reason:
            log.warning(
                "outbox_failing", path=str(self._path), reason=reason, error=error,
                advice="notifications are sent from memory; a restart now would forget them",
            )  # fmt: skip
        failures = {**self.stats.failures, reason: self.stats.failures.get(reason, 0) + 1}
        self.stats = replace(self.stats, failures=failures, problem=reason)

    def _note_damage(self, count: int) -> None:
        if count:
            log.warning("outbox_rows_damaged", path=str(self._path), rows=count, advice="they are left out")

    def _note(self) -> None:
        self.stats = replace(self.stats, file_bytes=file_bytes(self._path))
