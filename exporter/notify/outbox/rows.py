"""What is kept, written into the outbox's file: changes one by one, or all of it anew."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from exporter.notify.model import Alert, Notification
from exporter.notify.outbox.codec import (
    encode_alert,
    encode_alerts,
    encode_fingerprints,
    encode_labels,
    encode_outcome,
    encode_silence,
)
from exporter.notify.outbox.kept import Delta, Kept, Tried
from exporter.notify.outbox.model import DeadLetter, Identities, LogEntry
from exporter.storage.archive_file import transaction

_TABLES = ("notification", "log", "alert", "silence", "endpoint", "hash_key", "next")
_NEW = "INSERT OR REPLACE INTO notification VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


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
            _NEW,
            (_row(one, known, kept.identity, tried=kept.tried.get(one.number)) for one in saved.pending),
        )
        connection.executemany(
            _NEW, (_row(one.notification, known, kept.identity, dead=one) for one in saved.dead)
        )
        _put_identities(connection, kept.identities)
        connection.execute("INSERT INTO next VALUES (1, ?)", (saved.next_number,))


def _write(connection: sqlite3.Connection, delta: Delta, known: dict[int, str]) -> None:
    change = delta.change
    if change.notifications:
        stamps = dict(delta.stamps)
        connection.executemany(_NEW, (_row(one, known, stamps) for one in change.notifications))
        number = max(one.number for one in change.notifications) + 1
        connection.execute(
            "INSERT INTO next VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET number = max(number, excluded.number)",
            (number,),
        )
    if delta.identities is not None:
        connection.execute("DELETE FROM endpoint")
        _put_identities(connection, delta.identities)
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


def _put_identities(connection: sqlite3.Connection, identities: Identities) -> None:
    connection.executemany(
        "INSERT INTO endpoint VALUES (?, ?, ?)", ((*key, one) for key, one in identities.of.items())
    )
    connection.execute("INSERT OR REPLACE INTO hash_key VALUES (1, ?)", (identities.key,))


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
    identity: Mapping[int, str],
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
        identity.get(notification.number, ""),
    )


def _signed(fingerprint: int) -> int:
    """SQLite's integers have a sign."""
    return fingerprint - (1 << 64) if fingerprint >= 1 << 63 else fingerprint
