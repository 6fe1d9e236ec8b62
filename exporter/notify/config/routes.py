"""The routing tree and the inhibitions, as the file has them and as Alertmanager checks them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal

from exporter.alerting.document import Node
from exporter.notify.config.model import Inhibition, Route
from exporter.notify.config.reading import Fields, Reading, given, meant
from exporter.notify.matchers import MatcherError, check, ordered, parse_matchers, show_all
from exporter.storage.model import Matcher

_ROUTE_KEYS = (
    "receiver", "group_by", "group_wait", "group_interval", "repeat_interval", "matchers", "match", "match_re", "continue",
    "mute_time_intervals", "active_time_intervals", "routes",
)  # fmt: skip
_ROOT_LACKS = ("matchers", "match", "match_re", "mute_time_intervals", "active_time_intervals")
_REFUSED = {"labels": "labels of routes are for Go templates; leave it out"}
_INHIBITION_KEYS = (
    "name", "equal", "source_matchers", "source_match", "source_match_re", "target_matchers", "target_match",
    "target_match_re",
)  # fmt: skip
_CLASSIC_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def read_route(
    node: Node | None, reading: Reading, receivers: Collection[str], intervals: Collection[str]
) -> Route:
    """The root of the tree, everything inherited; mistakes are noted."""
    if node is None or node.is_null:
        reading.problem(None, "", "no route: expected route with a receiver")
        return Route("")
    entries = reading.entries(node, "route")
    fields = given(entries)
    if node.kind == "mapping" and "receiver" not in fields:
        reading.problem(node, "route", "receiver is missing: the root tells whoever no other route does")
    for name in _ROOT_LACKS:
        if name in fields:
            reading.problem(fields[name][0], "route", f"the root must not have {name}: it takes every alert")
    if "continue" in fields and reading.reader.flag(fields["continue"][1], "route: continue"):
        reading.problem(
            fields["continue"][0], "route", "the root cannot have continue: nothing comes after it"
        )
    entries = {name: pair for name, pair in entries.items() if name not in (*_ROOT_LACKS, "continue")}
    return _Routes(reading, receivers, intervals).read(entries, None, "route")


class _Routes:
    def __init__(self, reading: Reading, receivers: Collection[str], intervals: Collection[str]) -> None:
        self._reading = reading
        self._receivers = receivers
        self._intervals = intervals

    def read(self, entries: Fields, parent: Route | None, what: str) -> Route:
        reading = self._reading
        fields = reading.known(entries, what, _ROUTE_KEYS, _REFUSED)
        matchers = read_matchers(fields, "", reading, what)
        inherited = parent or Route("")
        route = replace(
            inherited,
            receiver=self._name(fields, "receiver", what) or inherited.receiver,
            matchers=matchers,
            group_by=self._group_by(fields, inherited.group_by, what),
            group_wait=self._seconds(fields, "group_wait", inherited.group_wait, what),
            group_interval=self._seconds(fields, "group_interval", inherited.group_interval, what),
            repeat_interval=self._seconds(fields, "repeat_interval", inherited.repeat_interval, what),
            goes_on="continue" in fields and reading.reader.flag(fields["continue"][1], f"{what}: continue"),
            mute_times=self._names(fields, "mute_time_intervals", what),
            active_times=self._names(fields, "active_time_intervals", what),
            routes=(),
            key=f"{parent.key}/{show_all(matchers)}" if parent else show_all(matchers),
        )
        children = reading.items(fields["routes"][1], f"{what}.routes") if "routes" in fields else []
        below = tuple(
            self.read(reading.entries(child, f"{what}.routes[{at}]"), route, f"{what}.routes[{at}]")
            for at, child in enumerate(children)
        )
        return replace(route, routes=below)

    def _name(self, fields: Fields, key: str, what: str) -> str:
        if key not in fields:
            return ""
        name = self._reading.text(fields[key][1], f"{what}.{key}")
        if name and name not in self._receivers:
            self._reading.problem(
                fields[key][1],
                f"{what}.{key}",
                f"no receiver {name[:60]} is defined{meant(name, self._receivers)}",
            )
        return name

    def _names(self, fields: Fields, key: str, what: str) -> tuple[str, ...]:
        found: list[str] = []
        for item in self._reading.items(fields[key][1], f"{what}.{key}") if key in fields else []:
            name = self._reading.text(item, f"{what}.{key}")
            found.append(name)
            if name not in self._intervals:
                self._reading.problem(
                    item,
                    f"{what}.{key}",
                    f"no time interval {name[:60]} is defined{meant(name, self._intervals)}",
                )
        return tuple(found)

    def _group_by(self, fields: Fields, inherited: frozenset[str] | None, what: str) -> frozenset[str] | None:
        if "group_by" not in fields:
            return inherited
        node = fields["group_by"][1]
        names = _label_names(node, f"{what}.group_by", self._reading, once=True)
        if "..." not in names:
            return frozenset(names)
        if len(names) > 1:
            self._reading.problem(node, f"{what}.group_by", "'...' is by all labels, and stands alone")
        return None

    def _seconds(self, fields: Fields, key: str, inherited: float, what: str) -> float:
        if key not in fields:
            return inherited
        node = fields[key][1]
        milliseconds = self._reading.reader.duration_ms(node, f"{what}.{key}")
        if milliseconds == 0 and key != "group_wait":
            self._reading.problem(node, f"{what}.{key}", "must be longer than 0")
        return inherited if milliseconds is None else milliseconds / 1000


def read_inhibitions(node: Node | None, reading: Reading) -> tuple[Inhibition, ...]:
    """The inhibitions; mistakes are noted."""
    found: list[Inhibition] = []
    for at, item in enumerate(reading.items(node, "inhibit_rules")):
        what = f"inhibit_rules[{at}]"
        fields = reading.known(reading.entries(item, what), what, _INHIBITION_KEYS, {})
        found.append(
            Inhibition(
                source=read_matchers(fields, "source_", reading, what),
                target=read_matchers(fields, "target_", reading, what),
                equal=_label_names(fields["equal"][1], f"{what}.equal", reading, once=False)
                if "equal" in fields
                else (),
                name=reading.text(fields["name"][1], f"{what}.name") if "name" in fields else "",
            )
        )
    return tuple(found)


def read_matchers(
    fields: Mapping[str, tuple[Node, Node]], prefix: str, reading: Reading, what: str
) -> tuple[Matcher, ...]:
    """`matchers`, and the older `match` and `match_re`, in Alertmanager's order; mistakes are noted."""
    found: list[Matcher] = []
    if (key := f"{prefix}matchers") in fields:
        for item in reading.items(fields[key][1], f"{what}.{key}"):
            try:
                found += parse_matchers(reading.text(item, f"{what}.{key}"))
            except MatcherError as error:
                reading.problem(item, f"{what}.{key}", str(error))
    older: tuple[tuple[str, Literal["=", "=~"]], ...] = ((f"{prefix}match", "="), (f"{prefix}match_re", "=~"))
    for key, op in older:
        for name, (label, value) in (
            reading.entries(fields[key][1], f"{what}.{key}").items() if key in fields else ()
        ):
            if not _CLASSIC_NAME.fullmatch(name):
                reading.problem(label, f"{what}.{key}", f"{name[:60]} is no label name")
            if value.is_null and op == "=~":
                reading.problem(value, f"{what}.{key}.{name}", "there is nothing")
            text = reading.text(value, f"{what}.{key}.{name}")
            try:
                # Alertmanager makes a matcher of the expression with its anchors, and so it stands in the group key.
                found.append(check(Matcher(name, op, text if op == "=" else f"^(?:{text})$")))
            except MatcherError as error:
                reading.problem(value, f"{what}.{key}.{name}", str(error))
    return ordered(found)


def _label_names(node: Node, what: str, reading: Reading, *, once: bool) -> tuple[str, ...]:
    names: list[str] = []
    for item in reading.items(node, what):
        name = reading.text(item, what)
        if not name or any("\ud800" <= character <= "\udfff" for character in name):
            reading.problem(item, what, "a label name must not be empty, and is valid UTF-8")
        elif name in names and once:
            reading.problem(item, what, f"{name[:60]} is there twice")
        names.append(name)
    return tuple(dict.fromkeys(names))
