"""The outbox's SQLite file: opened, read, written.

Write-ahead log with `synchronous = NORMAL`, as the archive's: what is committed outlives any death of the process; a
power cut costs at most the last commits, all tables alike (https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from exporter.notify.model import Alert, Notification
from exporter.notify.outbox.codec import (
    RowError,
    decode_alert,
    decode_alerts,
    decode_fingerprints,
    decode_labels,
    decode_outcome,
    decode_silence,
    encode_alert,
    encode_alerts,
    encode_fingerprints,
    encode_labels,
    encode_outcome,
    encode_silence,
)
from exporter.notify.outbox.kept import Delta, Kept, Tried
from exporter.notify.outbox.model import DeadLetter, LogEntry
from exporter.storage.archive_file import BROKEN, FileError, transaction, translated

APPLICATION_ID = 0x764C4C4E
"""`vLLN`, in the header of our files."""
VERSION = 1
LOCK_TIMEOUT_SECONDS = 0.5
"""Longest wait for another process that holds the file: an alert waits for it too."""

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
    alerts TEXT NOT NULL
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
CREATE TABLE next (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""
_TABLES = ("notification", "log", "alert", "silence", "next")
_Row = TypeVar("_Row")
_NEW = "INSERT OR REPLACE INTO notification VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Found(NamedTuple):
    """What a file held; `damaged`: rows that are not what we write, left out; `broken`: the file itself is damaged."""

    kept: Kept
    damaged: int
    broken: bool


def connect(path: Path) -> sqlite3.Connection:
    """The file, made when it is missing; to be used by one thread at a time.

    Raises:
        FileError: why not.
    """
    with translated():
        with contextlib.suppress(OSError):  # that it is not there is for SQLite to say
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(
            path, timeout=LOCK_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(connection)
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
                if _pragma(connection, "application_id") != APPLICATION_ID:
                    raise FileError("version", "it is another program's file")
                if _pragma(connection, "user_version") != VERSION:
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


def _prepare(connection: sqlite3.Connection) -> None:
    application = _pragma(connection, "application_id")
    version = _pragma(connection, "user_version")
    if application == APPLICATION_ID and version != VERSION:
        raise FileError("version", f"it is of version {version}, this program reads {VERSION}")
    if application != APPLICATION_ID and connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        raise FileError("version", "it is another program's database")
    if application != APPLICATION_ID:
        connection.execute(
            "PRAGMA auto_vacuum = INCREMENTAL"
        )  # in an empty file only, and before it has a log
    if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise FileError("other", "the file system has no shared memory for a write-ahead log")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA journal_size_limit = 4194304")
    connection.execute("PRAGMA cache_size = -1024")
    if application != APPLICATION_ID:
        connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
    connection.execute("BEGIN IMMEDIATE")  # a file that cannot be written shows it here
    connection.execute("ROLLBACK")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def write(connection: sqlite3.Connection, deltas: Sequence[Delta]) -> None:
    """Several deltas, one after another, in one transaction.

    Raises:
        sqlite3.Error, OSError: nothing of them is written.
    """
    known: dict[int, str] = {}
    with transaction(connection):
        for delta in deltas:
            _write(connection, delta, known)


def write_anew(connection: sqlite3.Connection, kept: Kept) -> None:
    """Everything, in the place of what the file holds.

    Raises:
        sqlite3.Error, OSError: the file stays as it was.
    """
    known: dict[int, str] = {}
    saved = kept.saved()
    with transaction(connection):
        for table in _TABLES:
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
        _put_log(connection, saved.log)
        _put_alerts(connection, saved.alerts, known)
        connection.executemany(
            "INSERT INTO silence VALUES (?, ?)", ((one.id, encode_silence(one)) for one in saved.silences)
        )
        connection.executemany(
            _NEW, (_row(one, known, tried=kept.tried.get(one.number)) for one in saved.pending)
        )
        connection.executemany(_NEW, (_row(one.notification, known, dead=one) for one in saved.dead))
        connection.execute("INSERT INTO next VALUES (1, ?)", (saved.next_number,))


def _write(connection: sqlite3.Connection, delta: Delta, known: dict[int, str]) -> None:
    change = delta.change
    if change.notifications:
        connection.executemany(_NEW, (_row(one, known) for one in change.notifications))
        number = max(one.number for one in change.notifications) + 1
        connection.execute(
            "INSERT INTO next VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET number = max(number, excluded.number)",
            (number,),
        )
    _put_log(connection, change.log)
    connection.executemany(
        "DELETE FROM log WHERE group_key = ? AND receiver = ? AND integration = ?", change.gone_log
    )
    _put_alerts(connection, change.alerts, known)
    connection.executemany(
        "DELETE FROM alert WHERE fingerprint = ?", ((_signed(one),) for one in change.gone)
    )
    connection.executemany(
        "INSERT OR REPLACE INTO silence VALUES (?, ?)",
        ((one.id, encode_silence(one)) for one in change.silences),
    )
    connection.executemany("DELETE FROM silence WHERE id = ?", ((one,) for one in change.expired_silences))
    connection.executemany("DELETE FROM notification WHERE number = ?", ((one,) for one in delta.struck))
    connection.executemany(
        "UPDATE notification SET attempts = ?, outcome = ? WHERE number = ?",
        ((one.attempts, encode_outcome(one.outcome), one.number) for one in delta.tried),
    )
    connection.executemany(
        "UPDATE notification SET attempts = ?, outcome = ?, dead_at = ? WHERE number = ?",
        (
            (one.attempts, encode_outcome(one.outcome), one.at, one.notification.number)
            for one in delta.buried
        ),
    )
    connection.executemany(
        "UPDATE notification SET attempts = 0, outcome = NULL, dead_at = NULL WHERE number = ?",
        ((one,) for one in delta.revived),
    )


def _put_log(connection: sqlite3.Connection, entries: Sequence[LogEntry]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO log VALUES (?, ?, ?, ?, ?, ?)",
        (
            (*one[:3], encode_fingerprints(one.firing), encode_fingerprints(one.resolved), one.at)
            for one in entries
        ),
    )


def _put_alerts(connection: sqlite3.Connection, alerts: Sequence[Alert], known: dict[int, str]) -> None:
    def rows() -> Iterator[tuple[int, str]]:
        for alert in alerts:
            text = known.get(id(alert))
            if text is None:
                text = known[id(alert)] = encode_alert(alert)
            yield _signed(alert.fingerprint), text

    connection.executemany("INSERT OR REPLACE INTO alert VALUES (?, ?)", rows())


def _row(
    notification: Notification,
    known: dict[int, str],
    *,
    tried: Tried | None = None,
    dead: DeadLetter | None = None,
) -> tuple[Any, ...]:
    last = tried or dead
    return (
        notification.number,
        notification.receiver,
        notification.integration,
        notification.group_key,
        encode_labels(notification.group_labels),
        notification.created_at,
        int(notification.repeated),
        0 if last is None else last.attempts,
        None if last is None else encode_outcome(last.outcome),
        None if dead is None else dead.at,
        encode_alerts(notification.alerts, known),
    )


def read(connection: sqlite3.Connection) -> Found:
    """All that can be read; what cannot is counted, and left out.

    Raises:
        FileError: it cannot be read now.
    """
    reader = _Reader(connection)
    kept = Kept()
    for alert in reader.rows("alert", "alert", lambda row: decode_alert(row[0])):
        kept.alerts[alert.fingerprint] = alert
    for entry in reader.rows("log", "group_key, receiver, integration, firing, resolved, at", _entry):
        kept.log[entry[:3]] = entry
    for silence in reader.rows("silence", "id, silence", lambda row: decode_silence(row[0], row[1])):
        kept.silences[silence.id] = silence
    columns = "number, receiver, integration, group_key, group_labels, created_at, repeated, attempts, outcome, dead_at, alerts"
    dead: list[DeadLetter] = []
    for notification, tried, letter in reader.rows("notification", columns, _notification):
        kept.next_number = max(kept.next_number, notification.number + 1)
        if letter is not None:
            dead.append(letter)
        else:
            kept.pending[notification.number] = notification
            if tried is not None:
                kept.tried[notification.number] = tried
    kept.dead = {letter.notification.number: letter for letter in sorted(dead, key=lambda one: one.at)}
    for number in reader.rows("next", "number", lambda row: int(row[0])):
        kept.next_number = max(kept.next_number, number)
    return Found(kept, reader.damaged, reader.broken)


def _entry(row: tuple[Any, ...]) -> LogEntry:
    return LogEntry(
        str(row[0]),
        str(row[1]),
        str(row[2]),
        decode_fingerprints(row[3]),
        decode_fingerprints(row[4]),
        float(row[5]),
    )


def _notification(row: tuple[Any, ...]) -> tuple[Notification, Tried | None, DeadLetter | None]:
    number, receiver, integration, group_key, labels, created_at, repeated, attempts, outcome, dead_at, alerts = row  # fmt: skip
    notification = Notification(
        int(number),
        str(receiver),
        str(integration),
        str(group_key),
        decode_labels(labels),
        decode_alerts(alerts),
        float(created_at),
        bool(repeated),
    )
    if outcome is None:
        if dead_at is not None:
            raise RowError("dead, and nothing says of what")
        return notification, None, None
    last = decode_outcome(outcome)
    if dead_at is not None:
        return notification, None, DeadLetter(notification, last, int(attempts), float(dead_at))
    return notification, Tried(notification.number, int(attempts), last), None


class _Reader:
    """Rows of one file, as many as can be read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.damaged = 0
        self.broken = False

    def rows(self, table: str, columns: str, decode: Callable[[tuple[Any, ...]], _Row]) -> Iterator[_Row]:
        """Each row of a table that is what we write."""
        try:
            with translated():
                cursor = self._connection.execute(f"SELECT {columns} FROM {table} ORDER BY rowid")  # noqa: S608 - our own names
            while True:
                with translated():
                    row = cursor.fetchone()
                if row is None:
                    return
                try:
                    decoded = decode(row)
                except (RowError, TypeError, ValueError):
                    self.damaged += 1
                else:
                    yield decoded
        except FileError as error:
            if error.reason not in BROKEN:
                raise
            self.broken = True


def _signed(fingerprint: int) -> int:
    """SQLite's integers have a sign."""
    return fingerprint - (1 << 64) if fingerprint >= 1 << 63 else fingerprint
