"""From rule files to groups at work; at a reload what did not change goes on as it is.

As Prometheus does it: a group that is the same stays; in one that changed, rules of the same name and labels keep their
alerts. Each rule writes a stream of its own, named by what it makes and not by where it stands, so that a rule whose
expression changes, or that moves to another group, goes on with its own series.
Source: `Manager.Update` and `Group.CopyState` in https://github.com/prometheus/prometheus/tree/main/rules
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from exporter import promql
from exporter.alerting.alerts import Alerting
from exporter.alerting.group import LiveGroup, LiveRule
from exporter.alerting.rulefile import Group, Rule
from exporter.storage.head import Head
from exporter.storage.stream import Stream

STREAM_PREFIX = "rule:"


class Assembly(NamedTuple):
    """The groups to evaluate from now on, the rules that are gone with the group that they were in, and the streams that
    nobody writes any more."""

    groups: tuple[LiveGroup, ...]
    gone: Sequence[tuple[LiveGroup, LiveRule]] = ()
    ended: Sequence[tuple[LiveGroup, Stream]] = ()


def assemble(
    groups: Sequence[Group],
    head: Head,
    *,
    interval: float,
    query_offset: float = 0.0,
    restored: bool = True,
    previous: Sequence[LiveGroup] = (),
) -> Assembly:
    """Groups ready to be evaluated; `interval` and `query_offset` in seconds, for groups that do not say their own.

    `restored` false: at the daemon's start, when alerts may go on from what was saved. QueryError for an expression that
    does not compile: files are checked when they are read.
    """
    known = {group.key: group for group in previous}
    plans = [_Plan(group, known, interval, query_offset) for group in groups]
    used = {rule.work.stream.name for plan in plans for rule in plan.carried if rule is not None}
    made = tuple(plan.make(head, used, restored) for plan in plans)
    carried = {id(rule) for plan in plans for rule in plan.carried if rule is not None}
    gone = [(group, rule) for group in previous for rule in group.rules if id(rule) not in carried]
    written = {id(rule.work.stream) for group in made for rule in group.rules}
    ended = [(group, rule.work.stream) for group, rule in gone if id(rule.work.stream) not in written]
    return Assembly(made, gone, ended)


def unchanged(
    groups: Sequence[Group], *, interval: float, query_offset: float, previous: Sequence[LiveGroup]
) -> set[str]:
    """The keys of the groups that `assemble` leaves as they are, at work or not."""
    known = {group.key: group for group in previous}
    plans = [_Plan(group, known, interval, query_offset) for group in groups]
    return {plan.old.key for plan in plans if plan.old is not None and plan.same}


class _Plan:
    """One group to be: what of the group before it goes on."""

    def __init__(
        self, group: Group, known: dict[str, LiveGroup], interval: float, query_offset: float
    ) -> None:
        self.group = group
        self.interval_ms = round(1000 * (interval if group.interval is None else group.interval))
        self.offset_ms = round(1000 * (query_offset if group.query_offset is None else group.query_offset))
        self.old = known.get(f"{group.file};{group.name}")
        self.same = (
            self.old is not None
            and _without_lines(self.old.group) == _without_lines(group)
            and (self.old.interval_ms, self.old.offset_ms) == (self.interval_ms, self.offset_ms)
        )
        self.carried: list[LiveRule | None] = []
        if self.old is not None:
            self.carried = list(self.old.rules) if self.same else _matched(group.rules, self.old.rules)

    def make(self, head: Head, used: set[str], restored: bool) -> LiveGroup:
        if self.old is not None:
            if self.same:
                return self.old
            restored = self.old.restored
        rules = []
        for rule, old in zip(self.group.rules, self.carried or [None] * len(self.group.rules), strict=True):
            stream = head.stream(_free_name(rule, used)) if old is None else old.work.stream
            live = LiveRule(rule, promql.compile(rule.expr), stream, restored=restored)
            if old is not None and isinstance(live.work, Alerting) and isinstance(old.work, Alerting):
                live.work.take_over(old.work)
            rules.append(live)
        made = LiveGroup(
            self.group, rules, interval_ms=self.interval_ms, offset_ms=self.offset_ms, restored=restored
        )
        if self.old is not None:
            made.take_over(self.old)
        return made


def _matched(rules: Sequence[Rule], old: Sequence[LiveRule]) -> list[LiveRule | None]:
    """For each rule the old one of the same kind, name and labels: the first for the first, the second for the second."""
    waiting: defaultdict[str, list[LiveRule]] = defaultdict(list)
    for live in reversed(old):
        waiting[_base_name(live.rule)].append(live)
    return [waiting[name].pop() if waiting[name := _base_name(rule)] else None for rule in rules]


def _free_name(rule: Rule, used: set[str]) -> str:
    base = name = _base_name(rule)
    number = 1
    while name in used:
        number += 1
        name = f"{base}#{number}"
    used.add(name)
    return name


def _base_name(rule: Rule) -> str:
    labels = json.dumps(dict(sorted(rule.labels.items())), ensure_ascii=False, separators=(",", ":"))
    return f"{STREAM_PREFIX}{rule.kind}:{rule.name}{labels}"


def _without_lines(group: Group) -> Group:
    return replace(group, rules=tuple(replace(rule, line=0) for rule in group.rules))
