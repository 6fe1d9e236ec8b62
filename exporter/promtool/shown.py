"""The result of a query as text for a person: the `data` of Prometheus' API in, lines out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import Any

from exporter.promtool.table import GAP, printable, table, width

NAME = "__name__"
DIGITS = 6
"""Significant digits of a value that is no whole number; `--json` has them all."""


def result_lines(data: Mapping[str, Any], *, columns: int, zone: tzinfo | None = None) -> list[str]:
    """The lines to print. `columns`: width of the terminal; `zone`: of the times, the local one by default."""
    kind, result = data["resultType"], data["result"]
    if kind == "vector":
        return _vector(result)
    if kind == "matrix":
        return _matrix(result, columns=columns, zone=zone)
    return [printable(result[1]) if kind == "string" else short(result[1])]


def short(value: str) -> str:
    """A value with fewer digits, where it has many behind the point."""
    number = float(value)
    if not math.isfinite(number) or number == int(number):
        return value
    if abs(number) < 1e-4:
        text = f"{number:.{DIGITS}g}"
    else:
        text = f"{number:.{max(0, DIGITS - 1 - math.floor(math.log10(abs(number))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _vector(result: Sequence[Mapping[str, Any]]) -> list[str]:
    names = sorted({name for one in result for name in one["metric"]}, key=lambda name: (name != NAME, name))
    rows = [[*(one["metric"].get(name, "") for name in names), short(one["value"][1])] for one in result]
    header = ["metric" if name == NAME else name for name in names]
    return table([*header, "value"], rows, right={len(names)}) if rows else []


def _matrix(result: Sequence[Mapping[str, Any]], *, columns: int, zone: tzinfo | None) -> list[str]:
    """One row per time, one column per series; several tables where one would be too wide."""
    if not result:
        return []
    names, common = _titles([one["metric"] for one in result])
    cells = [{float(time): short(value) for time, value in one["values"]} for one in result]
    times = sorted({time for one in cells for time in one})
    moments = [datetime.fromtimestamp(time, zone).astimezone(zone) for time in times]
    fractions = any(moment.microsecond for moment in moments)
    shown = [
        moment.strftime("%Y-%m-%d %H:%M:%S") + (f".{moment.microsecond // 1000:03d}" if fractions else "")
        for moment in moments
    ]
    head = f"time ({moments[0].tzname()})"
    lines = [f"all: {common}"] if common and len(result) > 1 else []
    for places in _groups(names, cells, first=max(map(width, (head, *shown))), columns=columns):
        header = [head, *(names[place] for place in places)]
        rows = [
            [moment, *(cells[place].get(time, "") for place in places)]
            for time, moment in zip(times, shown, strict=True)
        ]
        lines += [""] if lines else []
        lines += table(header, rows, right=range(1, len(header)))
    return lines


def _titles(metrics: Sequence[Mapping[str, str]]) -> tuple[list[str], str]:
    """What tells each series from the others, and what all of them have in common."""
    if len(metrics) == 1:
        return [_selector(metrics[0]) or "value"], ""
    first = metrics[0]
    common = {name: value for name, value in first.items() if all(one.get(name) == value for one in metrics)}
    own = [{name: value for name, value in one.items() if name not in common} for one in metrics]
    return [_selector(one) or "{}" for one in own], _selector(common)


def _selector(metric: Mapping[str, str]) -> str:
    pairs = [f'{name}="{value}"' for name, value in metric.items() if name != NAME]
    return metric.get(NAME, "") + (f"{{{', '.join(pairs)}}}" if pairs else "")


def _groups(
    names: Sequence[str], cells: Sequence[Mapping[float, str]], *, first: int, columns: int
) -> list[list[int]]:
    """The series of each table; a series that is wider than the terminal has a table of its own."""
    groups: list[list[int]] = []
    left = 0
    for place, name in enumerate(names):
        wide = len(GAP) + max(width(printable(name)), *map(width, cells[place].values()))
        if not groups or wide > left:
            groups.append([])
            left = columns - first
        groups[-1].append(place)
        left -= wide
    return groups
