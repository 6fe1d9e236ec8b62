"""The grammar of one sample line, in text 0.0.4 and in OpenMetrics 1.0."""

from __future__ import annotations

import re
from math import isfinite
from typing import NamedTuple

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*+"
_LABEL = r"[a-zA-Z_][a-zA-Z0-9_]*+"
_TEXT = r'"(?:[^"\\]++|\\.)*+"'

_CANONICAL = re.compile(rf"({_NAME})(?:\{{({_LABEL}={_TEXT}(?:,{_LABEL}={_TEXT})*+)\}})?+ (\S++)\Z")
_CANONICAL_PAIR = re.compile(rf'({_LABEL})="((?:[^"\\]++|\\.)*+)",?+')
_START = re.compile(rf"[ \t]*+({_NAME})?+[ \t]*+(\{{)?+")
_LABEL_PAIR = re.compile(
    rf"[ \t]*+(?:({_LABEL})|({_TEXT}))[ \t]*+(?:=[ \t]*+({_TEXT})[ \t]*+)?+(,|\}})", re.DOTALL
)
_CLOSED = re.compile(r"[ \t]*+\}")
_TEXT_REST = re.compile(r"[ \t]*+(\S++)(?:[ \t]++([+-]?[0-9]++))?+([ \t]*+)\Z")
_OPENMETRICS_REST = re.compile(r" (\S++)(?: ([^\s#]\S*+))?+(?: # (\{.*+))?\Z")
_EXEMPLAR_REST = re.compile(r" (\S++)(?: (\S++))?+\Z")
_ESCAPE = re.compile(r"\\([\\n\"])")

NUMBER_BYTES = b"0123456789.eE+-"
_NUMBER_WORDS = frozenset({b"nan", b"inf", b"+inf", b"-inf", b"infinity", b"+infinity", b"-infinity"})


class SampleLine(NamedTuple):
    """One sample line, taken apart.

    `labels` stand in the order of the line, unescaped. `tail` counts the characters of the value when nothing else
    follows the labels, else it is None. `canonical`: written as this package itself would write it.
    """

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float
    timestamp: float | None
    tail: int | None
    canonical: bool


def read_number(text: bytes) -> float:
    """A value as Go's ParseFloat and Prometheus take it: no underscores, no hexadecimal, no spaces; else ValueError."""
    if text.translate(None, NUMBER_BYTES) and text.lower() not in _NUMBER_WORDS:
        raise ValueError(f"{_shown(text.decode(errors='replace'))} is not a number")
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{_shown(text.decode(errors='replace'))} is not a number") from None


def read_sample(line: str, *, openmetrics: bool) -> SampleLine:
    """Take a sample line apart; ValueError says what is wrong with it. Timestamps come out in seconds."""
    if plain := _CANONICAL.match(line):
        pairs = _CANONICAL_PAIR.findall(plain[2]) if plain[2] else []
        if "\\" in line:
            pairs = [(key, unescape(text)) for key, text in pairs]
        _check_labels(pairs, line)
        return SampleLine(plain[1], tuple(pairs), read_number(plain[3].encode()), None, len(plain[3]), True)
    start = _START.match(line)
    if start is None or (start[1] is None and start[2] is None) or (openmetrics and line[0].isspace()):
        raise ValueError(f'expected a sample, such as name{{label="value"}} 1, got {_shown(line)}')
    name: str | None = start[1]
    labels: tuple[tuple[str, str], ...] = ()
    if start[2]:
        name, labels, position = _read_labels(line, start.end(), name)
        if name is None:
            raise ValueError(f"expected a metric name in {_shown(line)}")
    else:
        position = start.end(1)
        if line[position : position + 1] not in (" ", "\t"):
            raise ValueError(f"expected a value after the name {name} in {_shown(line)}")
    assert name is not None
    if openmetrics:
        return _openmetrics_sample(line, name, labels, position)
    rest = _TEXT_REST.match(line, position)
    if rest is None:
        raise ValueError(f"expected a value, and at most a timestamp in milliseconds, in {_shown(line)}")
    value = read_number(rest[1].encode())
    timestamp = _read_milliseconds(rest[2]) / 1000 if rest[2] else None
    tail = len(rest[1]) if rest[2] is None and not rest[3] else None
    return SampleLine(name, labels, value, timestamp, tail, False)


def _openmetrics_sample(
    line: str, name: str, labels: tuple[tuple[str, str], ...], position: int
) -> SampleLine:
    rest = _OPENMETRICS_REST.match(line, position)
    if rest is None:
        raise ValueError(f"expected a value, and at most a timestamp and an exemplar, in {_shown(line)}")
    value = read_number(rest[1].encode())
    timestamp = _read_seconds(rest[2]) if rest[2] else None
    if rest[3]:
        _, _, end = _read_labels(rest[3], 1, "exemplar")
        exemplar = _EXEMPLAR_REST.match(rest[3], end)
        if exemplar is None:
            raise ValueError(
                f"expected a value, and at most a timestamp, after the exemplar's labels in {_shown(line)}"
            )
        read_number(exemplar[1].encode())
        if exemplar[2]:
            _read_seconds(exemplar[2])
    tail = len(rest[1]) if rest[2] is None and rest[3] is None else None
    return SampleLine(name, labels, value, timestamp, tail, False)


_TIMESTAMP_LIMIT = 1 << 63


def _read_milliseconds(text: str) -> int:
    """A timestamp of text 0.0.4; Prometheus keeps it in 64 bits."""
    milliseconds = int(text) if len(text) < 20 else _TIMESTAMP_LIMIT
    if abs(milliseconds) >= _TIMESTAMP_LIMIT:
        raise ValueError(f"{_shown(text)} is not a timestamp: it does not fit in 64 bits")
    return milliseconds


def _read_seconds(text: str) -> float:
    seconds = read_number(text.encode())
    if not isfinite(seconds) or abs(seconds) * 1000 >= _TIMESTAMP_LIMIT:
        raise ValueError(f"{_shown(text)} is not a timestamp")
    return seconds


def _read_labels(
    line: str, position: int, name: str | None
) -> tuple[str | None, tuple[tuple[str, str], ...], int]:
    """The labels after an opening brace, the metric name if it stands there quoted, and where the rest begins."""
    labels: list[tuple[str, str]] = []
    while True:
        if closed := _CLOSED.match(line, position):
            position = closed.end()
            break
        pair = _LABEL_PAIR.match(line, position)
        if pair is None:
            raise ValueError(f'expected label="value" at column {position + 1} of {_shown(line)}')
        key = pair[1] or unescape(pair[2][1:-1])
        if not key:
            raise ValueError(f"empty name at column {position + 1} of {_shown(line)}")
        if pair[3] is not None:
            labels.append((key, unescape(pair[3][1:-1])))
        elif pair[2] is not None and name is None:
            name = key
        else:
            raise ValueError(f"label {key} has no value in {_shown(line)}")
        position = pair.end()
        if pair[4] == "}":
            break
    _check_labels(labels, line)
    return name, tuple(labels), position


def _check_labels(labels: list[tuple[str, str]], line: str) -> None:
    keys = dict(labels)
    if len(keys) != len(labels):
        raise ValueError(f"the same label twice in {_shown(line)}")
    if "__name__" in keys:
        raise ValueError(f"a label that is called __name__ in {_shown(line)}")


def unescape(text: str) -> str:
    """Undo the escapes of a label value; an unknown escape stays as it is."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], text)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
