"""What the outbox's file holds, as far as it can be read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from exporter.notify.model import Notification
from exporter.notify.outbox.codec import (
    RowError,
    decode_alert,
    decode_alerts,
    decode_fingerprints,
    decode_labels,
    decode_outcome,
    decode_silence,
)
from exporter.notify.outbox.kept import Kept, Tried
from exporter.notify.outbox.model import DeadLetter, Identities, LogEntry
from exporter.storage.archive_file import BROKEN, FileError, translated

_Row = TypeVar("_Row")


class Found(NamedTuple):
    """What a file held; `damaged`: rows that are not what we write, left out; `broken`: the file itself is damaged."""

    kept: Kept
    damaged: int
    broken: bool


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
    columns = "number, receiver, integration, group_key, group_labels, created_at, repeated, attempts, outcome, dead_at, alerts, identity"
    dead: list[DeadLetter] = []
    keys = list(reader.rows("hash_key", "key", lambda row: _hash_key(row[0])))
    if keys:
        of = reader.rows(
            "endpoint",
            "receiver, integration, identity",
            lambda row: ((str(row[0]), str(row[1])), str(row[2])),
        )
        kept.identities = Identities(keys[0], dict(of))
    for notification, tried, letter, identity in reader.rows("notification", columns, _notification):
        kept.next_number = max(kept.next_number, notification.number + 1)
        if identity and keys:
            kept.identity[notification.number] = identity
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


def _hash_key(key: Any) -> bytes:
    if not isinstance(key, bytes) or not 16 <= len(key) <= 64:
        raise RowError("no key")
    return key


def _notification(row: tuple[Any, ...]) -> tuple[Notification, Tried | None, DeadLetter | None, str]:
    number, receiver, integration, group_key, labels, created_at, repeated, attempts, outcome, dead_at, alerts, identity = row  # fmt: skip
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
        return notification, None, None, str(identity)
    last = decode_outcome(outcome)
    if dead_at is not None:
        letter = DeadLetter(notification, last, int(attempts), float(dead_at))
        return notification, None, letter, str(identity)
    return notification, Tried(notification.number, int(attempts), last), None, str(identity)


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
