"""What is kept, as rows of the outbox's file: changes one by one, or all of it anew. What cannot be a row is left out.

A row is made when it is written, and not before: in a storm all of them together would be megabytes.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import structlog

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
from exporter.notify.outbox.model import DeadLetter, Identities, LogEntry, Silence
from exporter.storage.archive_file import FileError, transaction

Step = tuple[str, Iterable[tuple[Any, ...]]]
"""A statement, and the rows that it is for, to be gone through once."""

Packed = dict[int, bytes]
"""Lists of alerts as they are written, by identity: of a storm, several endpoints are told with the same list."""

_TABLES = ("notification", "log", "alert", "silence", "endpoint", "hash_key", "next")
_NEW = "INSERT OR REPLACE INTO notification VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_Thing = TypeVar("_Thing")

log = structlog.get_logger(__name__)


def write(connection: sqlite3.Connection, steps: Iterable[Step]) -> None:
    """All steps, one after another, in one transaction.

    Raises:
        sqlite3.Error, OSError, FileError: nothing of them is written.
    """
    with transaction(connection):
        for statement, rows in steps:
            connection.executemany(statement, rows)


def changes(deltas: Iterable[Delta]) -> list[Step]:
    """Several deltas, one after another."""
    packed: Packed = {}
    return [step for delta in deltas for step in _changes(delta, packed)]


def anew(kept: Kept) -> list[Step]:
    """Everything, in the place of what the file holds."""
    packed: Packed = {}
    saved = kept.saved()
    return [
        *((f"DELETE FROM {table}", [()]) for table in _TABLES),  # noqa: S608 - our own names
        (
            _NEW,
            _rows(
                saved.pending, lambda one: _row(one, packed, kept.identity, tried=kept.tried.get(one.number))
            ),
        ),
        (_NEW, _rows(saved.dead, lambda one: _row(one.notification, packed, kept.identity, dead=one))),
        _put_log(saved.log),
        _put_alerts(saved.alerts),
        _put_silences(saved.silences),
        *_put_identities(kept.identities),
        ("INSERT INTO next VALUES (1, ?)", _rows((saved.next_number,), lambda one: (one,))),
    ]


def _changes(delta: Delta, packed: Packed) -> list[Step]:
    change = delta.change
    stamps = dict(delta.stamps)
    steps: list[Step] = [(_NEW, _rows(change.notifications, lambda one: _row(one, packed, stamps)))]
    if change.notifications:
        number = max(one.number for one in change.notifications) + 1
        steps.append(
            (
                "INSERT INTO next VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET number = max(number, excluded.number)",
                _rows((number,), lambda one: (one,)),
            )
        )
    if delta.identities is not None:
        steps += [("DELETE FROM endpoint", [()]), *_put_identities(delta.identities)]
    return [
        *steps,
        _put_log(change.log),
        (
            "DELETE FROM log WHERE group_key = ? AND receiver = ? AND integration = ?",
            _rows(change.gone_log, tuple),
        ),
        _put_alerts(change.alerts),
        ("DELETE FROM alert WHERE fingerprint = ?", _rows(change.gone, lambda one: (_signed(one),))),
        _put_silences(change.silences),
        ("DELETE FROM silence WHERE id = ?", _rows(change.expired_silences, lambda one: (one,))),
        ("DELETE FROM notification WHERE number = ?", _rows(delta.struck, lambda one: (one,))),
        (
            "UPDATE notification SET attempts = ?, outcome = ? WHERE number = ?",
            _rows(delta.tried, lambda one: (one.attempts, encode_outcome(one.outcome), one.number)),
        ),
        (
            "UPDATE notification SET attempts = ?, outcome = ?, dead_at = ? WHERE number = ?",
            _rows(
                delta.buried,
                lambda one: (one.attempts, encode_outcome(one.outcome), one.at, one.notification.number),
            ),
        ),
        (
            "UPDATE notification SET attempts = 0, outcome = NULL, dead_at = NULL WHERE number = ?",
            _rows(delta.revived, lambda one: (one,)),
        ),
    ]


def _put_log(entries: Iterable[LogEntry]) -> Step:
    def row(one: LogEntry) -> tuple[Any, ...]:
        return (*one[:3], encode_fingerprints(one.firing), encode_fingerprints(one.resolved), one.at)

    return "INSERT OR REPLACE INTO log VALUES (?, ?, ?, ?, ?, ?)", _rows(entries, row)


def _put_silences(silences: Iterable[Silence]) -> Step:
    rows = _rows(silences, lambda one: (one.id, encode_silence(one)))
    return "INSERT OR REPLACE INTO silence VALUES (?, ?)", rows


def _put_identities(identities: Identities) -> list[Step]:
    return [
        (
            "INSERT INTO endpoint VALUES (?, ?, ?)",
            _rows(identities.of.items(), lambda one: (*one[0], one[1])),
        ),
        ("INSERT OR REPLACE INTO hash_key VALUES (1, ?)", [(identities.key,)]),
    ]


def _put_alerts(alerts: Iterable[Alert]) -> Step:
    rows = _rows(alerts, lambda one: (_signed(one.fingerprint), encode_alert(one)))
    return "INSERT OR REPLACE INTO alert VALUES (?, ?)", rows


def _rows(things: Iterable[_Thing], encode: Callable[[_Thing], tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    for thing in things:
        try:
            row = encode(thing)
            _check(row)
        except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError) as error:
            # It is no fault of the file, and the others are to be written; its text may hold a secret.
            log.error("outbox_row_left_out", of=type(thing).__name__, error=type(error).__name__)
        except MemoryError as error:
            raise FileError("other", "not enough memory") from error
        else:
            yield row


def _check(row: tuple[Any, ...]) -> None:
    """That SQLite takes it: what it does not take there would look like a broken file."""
    for value in row:
        if isinstance(value, str):
            if not value.isascii():
                value.encode()
        elif isinstance(value, int):
            if not -(1 << 63) <= value < 1 << 63:
                raise OverflowError("more than 64 bits")
        elif isinstance(value, float):
            if math.isnan(value):
                raise ValueError("SQLite has no NaN")
        elif value is not None and not isinstance(value, bytes):
            raise TypeError("of no type of SQLite's")


def _row(
    notification: Notification,
    packed: Packed,
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
        _alerts(notification.alerts, packed),
        identity.get(notification.number, ""),
    )


def _alerts(alerts: tuple[Alert, ...], packed: Packed) -> str | bytes:
    text = packed.get(id(alerts)) or encode_alerts(alerts)
    if isinstance(text, bytes):
        packed[id(alerts)] = text
    return text


def _signed(fingerprint: int) -> int:
    """SQLite's integers have a sign."""
    return fingerprint - (1 << 64) if fingerprint >= 1 << 63 else fingerprint
