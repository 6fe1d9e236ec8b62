"""Time intervals, as the file has them and as Alertmanager checks them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC

from exporter.alerting.document import Node
from exporter.notify.config.reading import Reading
from exporter.notify.intervals import (
    Range,
    Span,
    TimeInterval,
    parse_days_of_month,
    parse_months,
    parse_times,
    parse_weekdays,
    parse_years,
    parse_zone,
)

_RANGES: dict[str, Callable[[str], Range]] = {
    "weekdays": parse_weekdays,
    "days_of_month": parse_days_of_month,
    "months": parse_months,
    "years": parse_years,
}
_KEYS = ("times", *_RANGES, "location")


def read_intervals(node: Node | None, key: str, reading: Reading) -> dict[str, TimeInterval]:
    """The time intervals under `key` by name; mistakes are noted."""
    found: dict[str, TimeInterval] = {}
    for at, item in enumerate(reading.items(node, key)):
        what = f"{key}[{at}]"
        fields = reading.known(reading.entries(item, what), what, ("name", "time_intervals"), {})
        name = reading.text(fields["name"][1], f"{what}.name") if "name" in fields else ""
        if not name and item.kind == "mapping":
            reading.problem(item, what, "name is missing")
        if name in found:
            reading.problem(fields["name"][1], what, f"{name[:60]} is there twice")
        spans = fields["time_intervals"][1] if "time_intervals" in fields else None
        found[name] = TimeInterval(
            tuple(
                _span(span, f"{what}.time_intervals[{number}]", reading)
                for number, span in enumerate(reading.items(spans, f"{what}.time_intervals"))
            )
        )
    return found


def _span(node: Node, what: str, reading: Reading) -> Span:
    fields = reading.known(reading.entries(node, what), what, _KEYS, {})
    ranges = {
        name: _ranges(fields[name][1], parse, f"{what}.{name}", reading)
        for name, parse in _RANGES.items()
        if name in fields
    }
    times = _times(fields["times"][1], f"{what}.times", reading) if "times" in fields else None
    zone = UTC
    if "location" in fields:
        text = reading.text(fields["location"][1], f"{what}.location")
        try:
            return Span(times=times, zone=parse_zone(text), **ranges)
        except ValueError as error:
            reading.problem(fields["location"][1], f"{what}.location", str(error))
    return Span(times=times, zone=zone, **ranges)


def _ranges(node: Node, parse: Callable[[str], Range], what: str, reading: Reading) -> tuple[Range, ...]:
    found: list[Range] = []
    for item in reading.items(node, what):
        try:
            found.append(parse(reading.text(item, what)))
        except ValueError as error:
            reading.problem(item, what, str(error))
    return tuple(found)


def _times(node: Node, what: str, reading: Reading) -> tuple[Range, ...]:
    found: list[Range] = []
    for item in reading.items(node, what):
        fields = reading.known(reading.entries(item, what), what, ("start_time", "end_time"), {})
        if len(fields) < 2:
            if item.kind == "mapping":
                reading.problem(item, what, "start_time and end_time go together: set both")
            continue
        try:
            start, end = (reading.text(fields[name][1], what) for name in ("start_time", "end_time"))
            found.append(parse_times(start, end))
        except ValueError as error:
            reading.problem(item, what, str(error))
    return tuple(found)
