"""The outbox's SQLite file, and how it is opened.

Write-ahead log with `synchronous = NORMAL`, as the archive's: what is committed outlives any death of the process; a
power cut costs at most the last commits, all tables alike (https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from exporter.storage.archive_file import FileError, Format, connected, pragma, translated

APPLICATION_ID = 0x764C4C4E
"""`vLLN`, in the header of our files."""
VERSION = 2
LOCK_TIMEOUT_SECONDS = 0.5
"""Longest wait for another process that holds the file: an alert waits for it too."""
CACHE_KIB = 512
"""Pages that SQLite keeps in memory: all is read but once, and in a storm a few thousand are written."""

_SCHEMA = f"""
CREATE TABLE notification (
    number INTEGER PRIMARY KEY,
    receiver TEXT NOT NULL,
    integration TEXT NOT NULL,
    group_key TEXT NOT NULL,
    group_labels TEXT NOT NULL,
    created_at REAL NOT NULL,
    repeated INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    outcome TEXT,
    dead_at REAL,
    alerts TEXT NOT NULL,
    identity TEXT NOT NULL
);
CREATE TABLE log (
    group_key TEXT NOT NULL,
    receiver TEXT NOT NULL,
    integration TEXT NOT NULL,
    firing BLOB NOT NULL,
    resolved BLOB NOT NULL,
    at REAL NOT NULL,
    PRIMARY KEY (group_key, receiver, integration)
);
CREATE TABLE alert (fingerprint INTEGER PRIMARY KEY, alert TEXT NOT NULL);
CREATE TABLE silence (id TEXT PRIMARY KEY, silence TEXT NOT NULL);
CREATE TABLE endpoint (
    receiver TEXT NOT NULL,
    integration TEXT NOT NULL,
    identity TEXT NOT NULL,
    PRIMARY KEY (receiver, integration)
);
CREATE TABLE hash_key (id INTEGER PRIMARY KEY CHECK (id = 1), key BLOB NOT NULL);
CREATE TABLE next (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""


FORMAT = Format(APPLICATION_ID, VERSION, _SCHEMA, LOCK_TIMEOUT_SECONDS)


def connect(path: Path) -> sqlite3.Connection:
    """The file, made when it is missing; to be used by one thread at a time.

    Raises:
        FileError: why not.
    """
    connection = connected(path, FORMAT)
    with translated():
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    return connection


def connect_reading(path: Path, *, damaged: bool = False) -> sqlite3.Connection:
    """A file that cannot be written, or a damaged one, for what it holds.

    Raises:
        FileError: why not.
    """
    with translated():
        for how in (
            "mode=ro",
            "immutable=1",
        ):  # without a log beside it, it can be read in a folder without room
            connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?{how}",
                timeout=LOCK_TIMEOUT_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                uri=True,
            )
            try:
                if damaged:
                    connection.execute(
                        "PRAGMA writable_schema = ON"
                    )  # reads what is shorter than its header says
                if pragma(connection, "application_id") != APPLICATION_ID:
                    raise FileError("version", "it is another program's file")
                if pragma(connection, "user_version") != VERSION:
                    raise FileError("version", "it is of another version")
            except sqlite3.Error:
                connection.close()
                if how == "immutable=1":
                    raise
            except BaseException:
                connection.close()
                raise
            else:
                return connection
    raise AssertionError("either of the two ways returns or raises")
