"""Two answers to one question, compared: ours and a Prometheus'."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from prometheus import Labels, by_labels

from exporter import promql
from exporter.promql import Budget, Matrix, QueryError
from exporter.promql.model import Scalar, String, Value
from exporter.storage.model import Storage

Points = dict[Labels, list[tuple[float, float]]]
"""Times in seconds and values by label set; a scalar's label set is empty."""

RELATIVE, ABSOLUTE = 1e-6, 1e-9


class Refused(str):
    """What is answered instead of points: the API's `errorType`."""

    __slots__ = ()


def ours(storage: Storage, expression: str, *times: int) -> Points | str | Refused:
    """Our answer at a time, or over start, end, step, all in milliseconds."""
    budget = Budget(samples=50_000_000, timeout=60)
    try:
        query = promql.compile(expression)
        if len(times) == 1:
            return _points(query.instant(storage, times[0], budget), np.array(times))
        start, end, step = times
        return _points(query.range(storage, start, end, step, budget), np.arange(start, end + 1, step))
    except QueryError as error:
        return Refused(error.kind)


def _points(value: Value | Matrix, times: Any) -> Points | str:
    if isinstance(value, String):
        return value.value
    at = times / 1000
    if isinstance(value, Scalar):
        return {(): list(zip(at.tolist(), value.values.tolist(), strict=True))}
    if isinstance(value, Matrix):
        return {
            labels: list(zip((t / 1000).tolist(), v.tolist(), strict=True))
            for labels, t, v in zip(value.labels, value.times, value.values, strict=True)
        }
    found: Points = {}
    present = np.ones(value.values.shape, bool) if value.present is None else value.present
    for labels, row, there in zip(value.labels, value.values, present, strict=True):
        if there.any():
            assert labels not in found, f"twice: {labels}"
            found[labels] = list(zip(at[there].tolist(), row[there].tolist(), strict=True))
    return found


def theirs(answer: dict[str, Any]) -> Points | str | Refused:
    """What the HTTP API answered."""
    if answer["status"] != "success":
        return Refused(answer["errorType"])
    kind, result = answer["data"]["resultType"], answer["data"]["result"]
    if kind == "string":
        return str(result[1])
    if kind == "scalar":
        return {(): [(float(result[0]), float(result[1]))]}
    return by_labels(result)


def difference(one: Points | str | Refused, other: Points | str | Refused) -> str | None:
    """The first thing in which they differ; None when they agree."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return None if type(one) is type(other) and one == other else f"{_short(one)} | {_short(other)}"
    if one.keys() != other.keys():
        return f"only here {_short(sorted(one.keys() - other.keys()))} | {_short(sorted(other.keys() - one.keys()))}"
    for labels, points in one.items():
        others = other[labels]
        if [round(t * 1000) for t, _ in points] != [round(t * 1000) for t, _ in others]:
            apart = {round(t * 1000) for t, _ in points} ^ {round(t * 1000) for t, _ in others}
            return f"{labels}: {len(points)} | {len(others)} points, apart at {sorted(apart)[:5]}"
        for (t, value), (_, wanted) in zip(points, others, strict=True):
            if not same(value, wanted):
                return f"{labels} at {t}: {value!r} | {wanted!r}"
    return None


def same(one: float, other: float) -> bool:
    """Equal as far as two ways to add up can be; NaN equals NaN."""
    return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE) or (one != one and other != other)


def _short(what: object) -> str:
    text = str(what) if isinstance(what, Refused) else repr(what)
    return text if len(text) < 300 else text[:300] + "…"
