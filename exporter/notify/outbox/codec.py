"""Alerts, silences and log entries as the file holds them: JSON, and fingerprints as 64-bit numbers in a row.

JSON is ASCII, so that a label with a half character from somewhere is no error here. A long list of alerts is packed:
in a storm they have nearly everything in common, and megabytes of text would be in memory several times over.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Collection, Iterator
from typing import Any

from exporter.notify.model import Alert, Outcome
from exporter.notify.outbox.model import Silence
from exporter.storage.model import Labels, Matcher

_encode = json.JSONEncoder(separators=(",", ":")).encode
_OPERATORS = ("=", "!=", "=~", "!~")
_RESULTS = ("delivered", "retry", "refused")
PACKED_FROM = 200
"""Alerts of a notification from which on their text is packed by zlib."""
_PIECE = 64 << 10
"""Characters of text that are packed at a time."""


class RowError(ValueError):
    """A row of the file is not what we write."""


def encode_labels(labels: Labels) -> str:
    """A label set as an object; its order stays."""
    return _encode(dict(labels))


def decode_labels(text: str) -> Labels:
    """The way back.

    Raises:
        RowError: it is no label set.
    """
    return _labels(_decode(text))


def encode_alert(alert: Alert) -> str:
    """All of an alert but its fingerprint, which its labels give."""
    return _encode(
        (
            dict(alert.labels),
            dict(alert.annotations),
            alert.starts_at,
            alert.ends_at,
            alert.updated_at,
            alert.generator_url,
            alert.no_data_since,
            alert.until,
        )
    )


def decode_alert(text: str) -> Alert:
    """The way back.

    Raises:
        RowError: it is no alert.
    """
    return _alert(_decode(text))


def encode_alerts(alerts: Collection[Alert]) -> str | bytes:
    """A notification's alerts, packed where they are many."""
    texts = map(encode_alert, alerts)
    return f"[{','.join(texts)}]" if len(alerts) < PACKED_FROM else _packed(texts)


def _packed(texts: Iterator[str]) -> bytes:
    """The same list as bytes of zlib, of which no more than a piece is ever there as text."""
    packer = zlib.compressobj(1)
    packed = bytearray()
    piece, length = ["[", next(texts)], 0
    for text in texts:
        piece += (",", text)
        length += len(text)
        if length >= _PIECE:
            packed += packer.compress("".join(piece).encode("ascii"))
            piece, length = [], 0
    packed += packer.compress("".join((*piece, "]")).encode("ascii"))
    return bytes(packed + packer.flush())


def decode_alerts(text: str | bytes) -> tuple[Alert, ...]:
    """The way back.

    Raises:
        RowError: these are no alerts.
    """
    rows = _decode(_unpacked(text) if isinstance(text, bytes) else text)
    if not isinstance(rows, list):
        raise RowError("no list of alerts")
    return tuple(map(_alert, rows))


def _unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompress(data)
    except zlib.error as error:
        raise RowError(str(error)) from error


def encode_outcome(outcome: Outcome) -> str:
    """What became of an attempt."""
    return _encode(tuple(outcome))


def decode_outcome(text: str) -> Outcome:
    """The way back.

    Raises:
        RowError: it is no outcome.
    """
    row = _decode(text)
    if not isinstance(row, list) or len(row) != 5 or row[0] not in _RESULTS:
        raise RowError("no outcome")
    result, detail, code, retry_after, answer = row
    return Outcome(
        result,
        str(detail),
        None if code is None else int(code),
        None if retry_after is None else _number(retry_after),
        str(answer),
    )


def encode_silence(silence: Silence) -> str:
    """A silence but for its id."""
    return _encode(
        (
            silence.matchers,
            silence.starts_at,
            silence.ends_at,
            silence.updated_at,
            silence.created_by,
            silence.comment,
        )
    )


def decode_silence(number: str, text: str) -> Silence:
    """The way back.

    Raises:
        RowError: it is no silence.
    """
    row = _decode(text)
    if not isinstance(row, list) or len(row) != 6 or not isinstance(row[0], list):
        raise RowError("no silence")
    matchers = tuple(Matcher(*map(str, matcher)) for matcher in row[0] if len(matcher) == 3)  # type: ignore[arg-type]
    if len(matchers) != len(row[0]) or any(matcher.op not in _OPERATORS for matcher in matchers):
        raise RowError("no matchers")
    return Silence(
        number, matchers, _number(row[1]), _number(row[2]), _number(row[3]), str(row[4]), str(row[5])
    )


def encode_fingerprints(fingerprints: Collection[int]) -> bytes:
    """Eight bytes for each, in the machine's order: the file stays on it."""
    return array("Q", fingerprints).tobytes()


def decode_fingerprints(data: bytes) -> frozenset[int]:
    """The way back.

    Raises:
        RowError: there is half of one.
    """
    if not isinstance(data, bytes) or len(data) % 8:
        raise RowError("no fingerprints")
    return frozenset(array("Q", data))


def _decode(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise RowError(str(error)) from error


def _alert(row: Any) -> Alert:
    if not isinstance(row, list) or len(row) != 8:
        raise RowError("no alert")
    labels, annotations, starts_at, ends_at, updated_at, generator_url, no_data_since, until = row
    return Alert(
        _labels(labels),
        _labels(annotations),
        _number(starts_at),
        None if ends_at is None else _number(ends_at),
        _number(updated_at),
        str(generator_url),
        None if no_data_since is None else _number(no_data_since),
        None if until is None else _number(until),
    )


def _labels(value: Any) -> Labels:
    if not isinstance(value, dict) or not all(type(text) is str for text in value.values()):
        raise RowError("no labels")
    return tuple(value.items())


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)):
        raise RowError("no number")
    return float(value)
