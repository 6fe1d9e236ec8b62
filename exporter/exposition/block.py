"""Our own series: declared once, set many times, printed again only where something changed.

A block belongs to the event loop; it is not safe to share between threads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from math import inf, isfinite
from typing import Any

from exporter.exposition.model import Family, Series
from exporter.exposition.text import (
    LABEL_NAME,
    METRIC_NAME,
    escape_help,
    format_bound,
    format_series,
    format_value,
)


class Slot:
    """One series of a counter, gauge or info family; absent, and not printed, until it is set."""

    __slots__ = ("_group", "_labels", "_prefix", "value")

    def __init__(self, group: _Group, labels: Sequence[tuple[str, str]]) -> None:
        self._group = group
        self._labels = labels
        self._prefix = format_series(group.family.name, labels) + " "
        self.value: float | None = None

    def set(self, value: float | None) -> None:
        """Show this value from now on; None makes the series absent."""
        if value != self.value:
            self.value = value
            self._group.touch()

    def inc(self, amount: float = 1.0) -> None:
        """Add; an absent series counts as 0. A negative amount is a ValueError on a counter."""
        if amount < 0 and self._group.family.type == "counter":
            raise ValueError(f"{self._group.family.name} is a counter: it cannot fall by {-amount}")
        self.set((self.value or 0.0) + amount)

    def text(self) -> str:
        """The line of this series, or nothing when it is absent."""
        return "" if self.value is None else f"{self._prefix}{format_value(self.value)}\n"

    def series(self) -> list[Series]:
        """The series behind `values`."""
        family = self._group.family
        return [Series(family.name, tuple(sorted(self._labels)), family.name, family.type)]

    def values(self) -> Sequence[float | None]:
        """One value per series; None where it is absent."""
        return (self.value,)


class HistogramSlot:
    """One histogram series; absent, and not printed, until something is observed or loaded."""

    __slots__ = ("_cumulative", "_group", "_labels", "_template", "_text", "bounds", "count", "total")

    def __init__(self, group: _Group, bounds: tuple[float, ...], labels: Sequence[tuple[str, str]]) -> None:
        name = group.family.name
        lines = [
            format_series(f"{name}_bucket", (*labels, ("le", format_bound(bound))))
            for bound in (*bounds, inf)
        ]
        lines += [format_series(f"{name}_count", labels), format_series(f"{name}_sum", labels)]
        self._group = group
        self._labels = labels
        self._template = "".join(line.replace("%", "%%") + " %s\n" for line in lines)
        self._cumulative: Sequence[float] = [0] * len(bounds)
        self._text: str | None = ""
        self.bounds = bounds
        self.count: float | None = None
        self.total: float = 0.0

    def observe(self, value: float) -> None:
        """Count one value; NaN is no observation and is left out."""
        if value != value:
            return
        buckets = list(self._cumulative)
        for index in range(bisect_left(self.bounds, value), len(buckets)):
            buckets[index] += 1
        self.load(buckets, (self.count or 0) + 1, self.total + value)

    def load(self, cumulative: Sequence[float], count: float, total: float) -> None:
        """Take over counts made elsewhere: one cumulative count per finite bound, then all, and the sum.

        The sequence is kept, not copied; ints print fastest.
        """
        if len(cumulative) != len(self.bounds):
            raise ValueError(
                f"{self._group.family.name}: expected {len(self.bounds)} counts, got {len(cumulative)}"
            )
        self._cumulative = cumulative
        self.count = count
        self.total = total
        self._text = None
        self._group.touch()

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, JSON-able."""
        return {
            "bounds": list(self.bounds),
            "cumulative": list(self._cumulative),
            "count": self.count,
            "total": self.total,
        }

    def restore(self, state: dict[str, Any]) -> bool:
        """Go on from a saved state; False, and nothing changes, when the bounds are others by now."""
        if tuple(state["bounds"]) != self.bounds or len(state["cumulative"]) != len(self.bounds):
            return False
        if state["count"] is not None:
            self.load(list(state["cumulative"]), state["count"], state["total"])
        return True

    def text(self) -> str:
        """The lines of this histogram, or nothing when it is absent."""
        text = self._text
        if text is None:
            assert self.count is not None
            values = [
                v if type(v) is int else format_value(v) for v in (*self._cumulative, self.count, self.count)
            ]
            text = self._text = self._template % (*values, format_value(self.total))
        return text

    def series(self) -> list[Series]:
        """The series behind `values`: a bucket per bound, `+Inf`, the count, the sum."""
        name = self._group.family.name
        rows = [
            (f"{name}_bucket", (*self._labels, ("le", format_bound(bound)))) for bound in (*self.bounds, inf)
        ]
        rows += [(f"{name}_count", tuple(self._labels)), (f"{name}_sum", tuple(self._labels))]
        return [Series(row, tuple(sorted(labels)), name, "histogram") for row, labels in rows]

    def values(self) -> Sequence[float | None]:
        """One value per series; None for each while the histogram is absent."""
        if self.count is None:
            return [None] * (len(self.bounds) + 3)
        return [*self._cumulative, self.count, self.count, self.total]


class _Group:
    """One family with its series, and its text as last printed."""

    __slots__ = ("_block", "_stale", "_text", "_values", "family", "headers", "slots")

    def __init__(self, block: Block, family: Family) -> None:
        self._block = block
        self._stale = False
        self._text = b""
        self._values: list[float | None] | None = None
        self.family = family
        self.headers = (_header(family, openmetrics=False), _header(family, openmetrics=True))
        self.slots: dict[tuple[str, ...], Slot | HistogramSlot] = {}

    def touch(self) -> None:
        self._stale = True
        self._values = None
        self._block.version += 1

    def values(self) -> list[float | None]:
        values = self._values
        if values is None:
            values = self._values = [value for slot in self.slots.values() for value in slot.values()]
        return values

    def text(self) -> bytes:
        if self._stale:
            self._text = "".join([slot.text() for slot in self.slots.values()]).encode()
            self._stale = False
        return self._text


class Block:
    """A group of our families, in the order in which they were first asked for.

    `version` rises with each change that a reader of the page could see. Asking again for the same family and labels
    gives the same slot. A family that does not fit (a counter's name without `_total`, one label too many) is a
    ValueError at once. `labels` stand on every series of the block, before the family's own.
    """

    def __init__(self, labels: Sequence[tuple[str, str]] = ()) -> None:
        self.version = 0
        self._labels = tuple(labels)
        self._groups: dict[str, _Group] = {}
        self._series: tuple[Series, ...] | None = None

    def columns(self) -> tuple[tuple[Series, ...], list[float | None]]:
        """Every series with its present value, None where it is absent.

        The series are the same object as long as no slot came or went.
        """
        if self._series is None:
            self._series = tuple(
                one
                for group in self._groups.values()
                for slot in group.slots.values()
                for one in slot.series()
            )
        values: list[float | None] = []
        for group in self._groups.values():
            values += group._values or group.values()
        return self._series, values

    def gauge(self, family: Family, *labels: str) -> Slot:
        """The slot of one gauge series."""
        return self._slot(family, "gauge", labels)

    def counter(self, family: Family, *labels: str) -> Slot:
        """The slot of one counter series; who sets it sees to it that it never falls."""
        return self._slot(family, "counter", labels)

    def info(self, family: Family, *labels: str) -> Slot:
        """Show one info series: its value is 1 until it is set to None or removed."""
        slot = self._slot(family, "info", labels)
        slot.set(1)
        return slot

    def histogram(self, family: Family, bounds: Sequence[float], *labels: str) -> HistogramSlot:
        """The slot of one histogram series; `bounds` are finite and rise, `+Inf` is added."""
        group = self._group(family, "histogram", labels)
        slot = group.slots.get(labels)
        if slot is None:
            bounds = tuple(bounds)
            if not all(map(isfinite, bounds)) or any(low >= high for low, high in pairwise(bounds)):
                raise ValueError(f"{family.name}: bounds must be finite and rise, got {bounds}")
            slot = group.slots[labels] = HistogramSlot(group, bounds, self._pair(family, labels))
            self._regroup(group)
        assert isinstance(slot, HistogramSlot)
        return slot

    def remove(self, slot: Slot | HistogramSlot) -> None:
        """Take one series away; what is set in the old slot afterwards shows nowhere."""
        group = slot._group
        for labels, known in group.slots.items():
            if known is slot:
                del group.slots[labels]
                self._detach(slot)
                group.touch()
                self._regroup(group)
                return

    def clear(self, family: Family) -> None:
        """Take every series of a family away."""
        group = self._groups.get(family.name)
        if group is None or not group.slots:
            return
        for slot in group.slots.values():
            self._detach(slot)
        group.slots.clear()
        group.touch()
        self._regroup(group)

    def render(self, *, openmetrics: bool) -> bytes:
        """The text of all families that have a series to show; without OpenMetrics' closing `# EOF`."""
        return b"".join([part for _, *parts in self.texts(openmetrics=openmetrics) for part in parts])

    def texts(self, *, openmetrics: bool) -> list[tuple[str, bytes, bytes]]:
        """Name, header and lines of each family that has a series to show."""
        return [
            (group.family.name, group.headers[openmetrics], text)
            for group in self._groups.values()
            if (text := group.text())
        ]

    def _regroup(self, group: _Group) -> None:
        """A slot came or went: what `columns` gives is another list of series."""
        self._series = None
        group._values = None

    def _slot(self, family: Family, kind: str, labels: tuple[str, ...]) -> Slot:
        group = self._group(family, kind, labels)
        slot = group.slots.get(labels)
        if slot is None:
            slot = group.slots[labels] = Slot(group, self._pair(family, labels))
            self._regroup(group)
        assert isinstance(slot, Slot)
        return slot

    def _group(self, family: Family, kind: str, labels: tuple[str, ...]) -> _Group:
        group = self._groups.get(family.name)
        if group is None:
            _check(family)
            group = self._groups[family.name] = _Group(self, family)
        elif group.family is not family and group.family != family:
            raise ValueError(f"{family.name} is declared twice, and differently")
        if family.type != kind:
            raise ValueError(f"{family.name} is of type {family.type}, not {kind}")
        if len(labels) != len(family.labels):
            raise ValueError(f"{family.name} has the labels {family.labels}, got the values {labels}")
        return group

    def _pair(self, family: Family, labels: tuple[str, ...]) -> list[tuple[str, str]]:
        return [*self._labels, *zip(family.labels, labels, strict=True)]

    @staticmethod
    def _detach(slot: Slot | HistogramSlot) -> None:
        """Let a slot that somebody still holds write into a block that nobody prints."""
        slot._group = _Group(Block(), slot._group.family)


def _check(family: Family) -> None:
    problem = None
    if not METRIC_NAME.fullmatch(family.name):
        problem = "is no metric name"
    elif family.type == "counter" and not family.name.endswith("_total"):
        problem = "is a counter: its name ends in _total"
    elif family.type == "info" and not family.name.endswith("_info"):
        problem = "is an info family: its name ends in _info"
    elif not all(LABEL_NAME.fullmatch(label) and label != "le" for label in family.labels):
        problem = f"has a label that cannot be: {family.labels}"
    if problem:
        raise ValueError(f"{family.name} {problem}")


def _header(family: Family, *, openmetrics: bool) -> bytes:
    name: str = family.name
    kind: str = family.type
    if openmetrics:
        name = name.removesuffix({"counter": "_total", "info": "_info"}.get(kind, ""))
    elif kind == "info":
        kind = "gauge"
    lines = f"# HELP {name} {escape_help(family.help, openmetrics=openmetrics)}\n# TYPE {name} {kind}\n"
    if openmetrics and family.unit and kind != "info" and name.endswith(f"_{family.unit}"):
        lines += f"# UNIT {name} {family.unit}\n"
    return lines.encode()
