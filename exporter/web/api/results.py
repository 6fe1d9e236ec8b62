"""The value of a query as JSON, in the form and order of Prometheus: `{"resultType": …, "result": …}`.

A large answer is a list of pieces. `spend` is asked before each, so that an evaluation's deadline holds for its
printing too.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import add
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from exporter.promql.model import Scalar, String, Value, Vector
from exporter.promql.numbers import plain_float
from exporter.storage.model import Labels
from exporter.web.api.model import ApiError
from exporter.web.api.numbers import CHUNK, json_floats, json_time

if TYPE_CHECKING:
    from exporter.storage.model import F64, I64

POINT_LIMIT = 2_000_000
"""Most samples in one answer: some 120 MB of JSON."""

T = TypeVar("T")
Spend = Callable[[int], None]


class Line(NamedTuple):
    """One series of an answer."""

    labels: Labels
    times: I64
    values: F64


class Printed(NamedTuple):
    """A result as text, and whether a limit cut it short."""

    pieces: list[str]
    truncated: bool = False


def print_instant(value: Value, at: int, *, limit: int, spend: Spend) -> Printed:
    """An instant query's value. `at`: milliseconds; `limit`: most series, 0 for all."""
    if isinstance(value, Scalar):
        return _pair("scalar", at, plain_float(float(value.values[0])))
    if isinstance(value, String):
        return _pair("string", at, value.value)
    present = _rows(value)
    rows, truncated = _cut(present, limit)
    _check_size(len(rows))
    pieces = ['{"resultType":"vector","result":[']
    time = json_time(at)
    for begin in range(0, len(rows), CHUNK):
        spend(0)
        chunk = rows[begin : begin + CHUNK]
        texts = json_floats(np.ascontiguousarray(value.values[chunk, 0]))
        pieces.append(
            ("," if begin else "")
            + ",".join(
                [
                    f'{{"metric":{labels_json(value.labels[row])},"value":[{time},"{text}"]}}'
                    for row, text in zip(chunk, texts, strict=True)
                ]
            )
        )
    pieces.append("]}")
    return Printed(pieces, truncated)


def print_range(value: Value, times: I64, *, limit: int, spend: Spend) -> Printed:
    """A range query's value as a matrix. `times`: its steps in milliseconds."""
    if isinstance(value, String):
        raise ApiError("internal", "a string has no range")
    if isinstance(value, Scalar):
        return print_matrix([Line((), times, value.values)], limit=limit, spend=spend)
    return print_matrix(_lines(value, times), limit=limit, spend=spend)


def print_matrix(lines: Iterable[Line], *, limit: int, spend: Spend) -> Printed:
    """Series with their samples, sorted by labels; those without any are left out."""
    found = in_order([line for line in lines if len(line.times)], lambda line: line.labels)
    kept, truncated = _cut(found, limit)
    _check_size(sum(len(line.times) for line in kept))
    pieces = ['{"resultType":"matrix","result":[']
    heads: tuple[object, list[str]] = (None, [])
    for number, line in enumerate(kept):
        spend(0)
        if heads[0] is not line.times:
            heads = (line.times, _time_heads(line.times))
        pieces.append(f'{"," if number else ""}{{"metric":{labels_json(line.labels)},"values":[')
        texts = json_floats(np.ascontiguousarray(line.values))
        for begin in range(0, len(texts), CHUNK):
            end = begin + CHUNK
            part = '"],'.join(map(add, heads[1][begin:end], texts[begin:end]))
            pieces.append(f'{part}"]{"," if end < len(texts) else ""}')
        pieces.append("]}")
    pieces.append("]}")
    return Printed(pieces, truncated)


def in_order(items: Sequence[T], key: Callable[[T], Labels]) -> list[T]:
    """The items sorted by labels; many of them in steps, for one long sort would hold up every other thread."""
    parts = [sorted(items[at : at + CHUNK], key=key) for at in range(0, len(items), CHUNK)]
    return parts[0] if len(parts) == 1 else list(heapq.merge(*parts, key=key))


def labels_json(labels: Labels) -> str:
    """A label set as a JSON object."""
    return json.dumps(dict(labels), ensure_ascii=False, separators=(",", ":"))


def _pair(kind: str, at: int, text: str) -> Printed:
    shown = json.dumps(text, ensure_ascii=False)
    return Printed([f'{{"resultType":"{kind}","result":[{plain_float(at / 1000)},{shown}]}}'])


def _rows(vector: Vector) -> Sequence[int]:
    """The places of the series that are there at the only step."""
    if vector.present is None:
        return range(len(vector.labels))
    rows: list[int] = np.flatnonzero(vector.present[:, 0]).tolist()
    return rows


def _lines(vector: Vector, times: I64) -> Iterator[Line]:
    """The series of a range that have a value, each with the steps at which it has one."""
    present = vector.present
    if present is None:
        yield from (
            Line(labels, times, values) for labels, values in zip(vector.labels, vector.values, strict=True)
        )
        return
    counts = present.sum(axis=1)
    for row in np.flatnonzero(counts).tolist():
        here, values = present[row], vector.values[row]
        whole = counts[row] == len(times)
        yield Line(vector.labels[row], times if whole else times[here], values if whole else values[here])


def _cut(rows: Sequence[T], limit: int) -> tuple[Sequence[T], bool]:
    return (rows[:limit], True) if 0 < limit < len(rows) else (rows, False)


def _check_size(points: int) -> None:
    if points > POINT_LIMIT:
        raise ApiError(
            "execution",
            f"the result has {points} samples, more than the {POINT_LIMIT} that one answer may hold: "
            "ask for a shorter range, a longer step or fewer series",
        )


def _time_heads(times: I64) -> list[str]:
    return [f'[{json_time(milliseconds)},"' for milliseconds in times.tolist()]
