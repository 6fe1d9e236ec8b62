"""The notation of test series: a series with its values, `up{job="x"} 1 _ 0+2x5 stale`.

Source: https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/#series and the grammar in
https://github.com/prometheus/prometheus/blob/main/promql/parser/generated_parser.y
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from exporter.storage.model import NAME, STALE_BITS, Labels

VALUE_LIMIT = 2_000_000
"""Most values that one series may expand to."""
STALE: float = struct.unpack("<d", struct.pack("<Q", STALE_BITS))[0]

_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_SPACE = re.compile(r"\s*")
_STRING = re.compile(r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|`[^`]*`", re.DOTALL)
_NUMBER = r"(?:(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?|(?i:inf|nan)(?![0-9A-Za-z_]))"
_ITEM = re.compile(
    rf"(?P<blank>_)(?:x(?P<blanks>[0-9]+))?|(?P<stale>stale)"
    rf"|(?P<first>[+-]?{_NUMBER})(?:(?P<by>[+-]{_NUMBER})?x(?P<times>[0-9]+))?"
)


class NotationError(ValueError):
    """A series or its values are not written as they should be."""


class InputSeries(NamedTuple):
    """A series and its values, one per interval; None where there is no sample, `STALE` where it ends."""

    labels: Labels
    values: Sequence[float | None]


def parse_labels(text: str) -> Labels:
    """A label set as it stands in a test file: `name{label="value"}`; nothing is the empty one. NotationError."""
    at = _skip(text, 0)
    found: dict[str, str] = {}
    metric = _METRIC.match(text, at)
    if metric is not None:
        if metric.group().lower() in ("nan", "inf"):
            raise NotationError(f"expected a series, got the number {metric.group()}")
        found[NAME] = metric.group()
        at = _skip(text, metric.end())
    if text[at : at + 1] == "{":
        at = _braces(text, at + 1, found)
    at = _skip(text, at)
    if at < len(text):
        raise NotationError(f"unexpected {text[at : at + 20]!r} after the series")
    return tuple(sorted((name, value) for name, value in found.items() if value))


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _braces(text: str, at: int, found: dict[str, str]) -> int:
    """Read what stands in braces; gives the place after them."""
    while True:
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return at + 1
        name, at, quoted = _name(text, at)
        at = _skip(text, at)
        if text[at : at + 1] == "=" and text[at + 1 : at + 2] not in ("=", "~"):
            at = _skip(text, at + 1)
            string = _STRING.match(text, at)
            if string is None:
                raise NotationError(f"expected a quoted value of label {name}, got {text[at : at + 20]!r}")
            if name in found:
                raise NotationError(f"label {name} is set twice")
            found[name] = _unquoted(string.group())
            at = _skip(text, string.end())
        elif quoted and NAME not in found:
            found[NAME] = name
        else:
            raise NotationError(f"expected = after label {name}, got {text[at : at + 20]!r}")
        if text[at : at + 1] == ",":
            at += 1
        elif text[at : at + 1] != "}":
            raise NotationError(f"expected , or }} in a label set, got {text[at : at + 20]!r}")


def _name(text: str, at: int) -> tuple[str, int, bool]:
    string = _STRING.match(text, at)
    if string is not None:
        return _unquoted(string.group()), string.end(), True
    label = _LABEL.match(text, at)
    if label is None:
        raise NotationError(f"expected a label name, got {text[at : at + 20]!r}")
    return label.group(), label.end(), False


def _unquoted(literal: str) -> str:
    from exporter.alerting.template.literals import unquote

    try:
        return unquote(literal)
    except ValueError as error:
        raise NotationError(f"bad string {literal}: {error}") from error


def parse_values(text: str) -> list[float | None]:
    """The values of a series, expanded: `a+bxN` is a, a+b, … a+N*b. NotationError."""
    values: list[float | None] = []
    for item in text.split():
        match = _ITEM.fullmatch(item)
        if match is None:
            if "{{" in item:
                raise NotationError(f"native histograms are not supported: {item[:50]!r}")
            raise NotationError(f'expected a number, "stale", "_", or a+bxN, got {item[:50]!r}')
        count = int((match["blanks"] or match["times"] or "0")[:18])
        if len(values) + count >= VALUE_LIMIT:
            raise NotationError(f"{item[:50]!r} makes more than {VALUE_LIMIT} values")
        if match["blank"]:
            values += [None] * (count if match["blanks"] else 1)
        elif match["stale"]:
            values.append(STALE)
        else:
            value = _number(match["first"])
            step = _number(match["by"]) if match["by"] else None
            values.append(value)
            if step is None:
                values += [value] * count
                continue
            for _ in range(count):
                value += step
                values.append(value)
    return values


def _number(text: str) -> float:
    plain = text.replace("_", "")
    digits = plain.lstrip("+-")
    if re.fullmatch("0[0-7]+", digits):  # octal, as Go reads whole numbers
        return float(int(digits, 8)) * (-1.0 if plain[0] == "-" else 1.0)
    return float(plain)
