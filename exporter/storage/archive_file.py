"""The archive's SQLite file: opened, checked, named by what is wrong with it, and set aside when it is broken.

Write-ahead log with `synchronous = NORMAL`: what is committed outlives any death of the process, and a power cut costs
the last commits but never the file (https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

APPLICATION_ID = 0x764C4C4D
"""`vLLM`, in the header of our files."""
VERSION = 1
LOCK_TIMEOUT_SECONDS = 2.0
"""Longest wait for another process that holds the file."""
LOG_LIMIT = 128 << 20
"""Bytes of the write-ahead log over which nothing is written; mostly it has four megabytes."""
BROKEN_FILES_KEPT = 3

REASONS = ("cannot_open", "corrupt", "full", "io", "locked", "other", "read_only", "too_large", "version")
"""Every reason for which a file is not written, or is set aside."""
BROKEN = ("corrupt", "version")
"""The reasons for which a file is set aside; from all others it may recover."""

_REASON_OF_CODE = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_PERM: "read_only",
    sqlite3.SQLITE_AUTH: "read_only",
    sqlite3.SQLITE_IOERR: "io",
    sqlite3.SQLITE_PROTOCOL: "locked",
    sqlite3.SQLITE_CORRUPT: "corrupt",
    sqlite3.SQLITE_NOTADB: "corrupt",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_CANTOPEN: "cannot_open",
    sqlite3.SQLITE_TOOBIG: "too_large",
    # Our statements are always the same: when a table, a column or a type is not as they say, the file is not ours any more.
    sqlite3.SQLITE_ERROR: "corrupt",
    sqlite3.SQLITE_CONSTRAINT: "corrupt",
    sqlite3.SQLITE_MISMATCH: "corrupt",
    sqlite3.SQLITE_FORMAT: "corrupt",
}

_SCHEMA = f"""
CREATE TABLE stream (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE series (id INTEGER PRIMARY KEY, labels TEXT NOT NULL, counter INTEGER NOT NULL);
CREATE TABLE layout (id INTEGER PRIMARY KEY, series BLOB NOT NULL);
CREATE TABLE chunk (
    id INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    keep INTEGER NOT NULL,
    layout INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    data BLOB NOT NULL
);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""


class FileError(Exception):
    """The file cannot be used; `reason` is one of REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """SQLite's and the system's errors as FileError; what no value of ours would lead to, as that of a corrupt file."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        reason = "other" if code is None else _REASON_OF_CODE.get(code & 0xFF, "other")
        raise FileError(reason, str(error)) from error
    except OSError as error:
        raise FileError("io", str(error)) from error
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, MemoryError) as error:
        raise FileError("corrupt", f"{type(error).__name__}: {error}") from error


class Format(NamedTuple):
    """What marks a file of ours: the numbers in its header, and what an empty one is given. Lock timeout in seconds."""

    application_id: int
    version: int
    schema: str
    lock_timeout: float


FORMAT = Format(APPLICATION_ID, VERSION, _SCHEMA, LOCK_TIMEOUT_SECONDS)


def connect(path: Path) -> sqlite3.Connection:
    """The file, made when it is missing; to be used by one thread at a time.

    Raises:
        FileError: why not.
    """
    connection = connected(path, FORMAT)
    connection.text_factory = _text
    return connection


def connected(path: Path, kind: Format) -> sqlite3.Connection:
    """A file of some format, made when it is missing, with a write-ahead log; to be used by one thread at a time.

    Raises:
        FileError: why not.
    """
    with translated():
        with contextlib.suppress(OSError):  # that it is not there is for SQLite to say
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            path, timeout=kind.lock_timeout, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection, kind)
        except BaseException:
            connection.close()
            raise
    return connection


def connect_reading(path: Path, *, damaged: bool = False) -> sqlite3.Connection:
    """A file that cannot be written, or a damaged one, for what it holds.

    Raises:
        FileError: why not.
    """
    with translated():
        try:
            return _connect_reading(path, "mode=ro", "normal", damaged)
        except sqlite3.Error:
            # A log needs shared memory beside the file, and here none can be made, in a folder that cannot be written or
            # on a full disk. After a proper close there is no log; otherwise a reader that is alone can do without.
            log = path.with_name(path.name + "-wal")
            if log.exists() and log.stat().st_size:
                return _connect_reading(path, "mode=rw", "exclusive", damaged)
            return _connect_reading(path, "immutable=1", "normal", damaged)


def _connect_reading(path: Path, how: str, locking: str, damaged: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}",
        timeout=LOCK_TIMEOUT_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        uri=True,
    )
    connection.text_factory = _text
    try:
        connection.execute(f"PRAGMA locking_mode = {locking}")
        if damaged:
            # Reads a file that is shorter than its header says, instead of refusing all of it.
            connection.execute("PRAGMA writable_schema = ON")
        if (
            pragma(connection, "application_id") != APPLICATION_ID
            or pragma(connection, "user_version") != VERSION
        ):
            raise FileError("version", "it is of another version")
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, kind: Format) -> None:
    application = pragma(connection, "application_id")
    version = pragma(connection, "user_version")
    if application == kind.application_id and version != kind.version:
        raise FileError("version", f"it is of version {version}, this program reads {kind.version}")
    if application != kind.application_id and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise FileError("version", "it is another program's database")
    if application != kind.application_id:
        # Takes effect in an empty file only, and before it has a log.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise FileError("other", "the file system has no shared memory for a write-ahead log")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA journal_size_limit = 4194304")
    connection.execute("PRAGMA cache_size = -1024")
    if application != kind.application_id:
        connection.executescript(f"BEGIN IMMEDIATE; {kind.schema} COMMIT;")
    # A file that can be read but not written shows it here, and not after its samples were taken in.
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("ROLLBACK")


def _text(raw: bytes) -> str | bytes:
    """What is no UTF-8 stays as it is, for the reader to see that it is no text."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """A number that SQLite knows of a file."""
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some errors.
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def checkpoint(connection: sqlite3.Connection) -> None:
    """Bring the log into the file as far as readers let, and give free pages back to the file system."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    free = pragma(connection, "freelist_count")
    spare = 64 + pragma(connection, "page_count") // 8
    if free > spare:
        connection.execute(f"PRAGMA incremental_vacuum({free - spare})").fetchall()


def check_log(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse to write when the log is huge, as it gets while another process reads the file and does not end.

    Raises:
        FileError: it cannot be emptied.
    """
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if log.stat().st_size > LOG_LIMIT:
            raise FileError("locked", "another process reads the file and keeps its log from being emptied")


def file_bytes(path: Path) -> int:
    """What the file and its log take."""
    total = 0
    for name in _parts(path):
        with contextlib.suppress(OSError):
            total += name.stat().st_size
    return total


def set_aside(path: Path) -> Path:
    """Rename the file to `NAME.broken-N`, its log with it; of such files the newest three stay.

    Raises:
        FileError: it cannot be renamed.
    """
    with translated():
        broken = sorted(
            (int(found[1]), other)
            for other in path.parent.iterdir()
            if (found := re.fullmatch(re.escape(path.name) + r"\.broken-(\d+)", other.name))
        )
        aside = path.with_name(f"{path.name}.broken-{broken[-1][0] + 1 if broken else 1}")
        for old, new in zip(_parts(path), _parts(aside), strict=True):
            with contextlib.suppress(FileNotFoundError):
                old.replace(new)
    for _, old in broken[: max(0, len(broken) + 1 - BROKEN_FILES_KEPT)]:
        for part in _parts(old):
            with contextlib.suppress(OSError):
                part.unlink()
    return aside


def _parts(path: Path) -> tuple[Path, ...]:
    return path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")
