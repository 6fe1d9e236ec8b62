"""Which groups an event concerns: those that read the series that it changed, and those that read what these record."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from exporter.alerting.alerts import ALERTS, ALERTS_FOR_STATE
from exporter.alerting.group import LiveGroup
from exporter.storage.model import NAME


class Footprint(NamedTuple):
    """What a group reads and writes, by metric name; `reads_any`: a selector that says no exact name."""

    reads: frozenset[str]
    reads_any: bool
    writes: frozenset[str]


def footprint(group: LiveGroup) -> Footprint:
    """The metric names of a group's selectors and results. What templates ask for does not count."""
    reads: set[str] = set()
    writes: set[str] = set()
    reads_any = False
    for rule in group.rules:
        writes |= {rule.rule.name} if rule.rule.kind == "recording" else {ALERTS, ALERTS_FOR_STATE}
        for selector in rule.query.reads:
            names = {m.value for m in selector.matchers if m.name == NAME and m.op == "=" and m.value}
            reads |= names
            reads_any = reads_any or not names
    return Footprint(frozenset(reads), reads_any, frozenset(writes))


def concerned(footprints: Sequence[Footprint], names: Collection[str]) -> list[int]:
    """The places of the groups to evaluate when series of these names changed, in order."""
    changed = set(names)
    chosen: set[int] = set()
    growing = bool(changed)
    while growing:
        growing = False
        for place, one in enumerate(footprints):
            if place not in chosen and (one.reads_any or one.reads & changed):
                chosen.add(place)
                changed |= one.writes
                growing = True
    return sorted(chosen)
