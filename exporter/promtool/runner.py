"""One rule test at work: series go into a store of their own, groups are evaluated step by step, results compared.

Nothing here reads a clock; time is what the test file says.
Source: `testGroup.test` in https://github.com/prometheus/prometheus/blob/main/cmd/promtool/unittest.go
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from exporter import promql
from exporter.alerting.alerts import Alerting
from exporter.alerting.conditions import Conditions, evaluate
from exporter.alerting.durations import format_duration_ms
from exporter.alerting.group import LiveGroup, LiveRule
from exporter.alerting.rulefile import Group
from exporter.alerting.template.literals import quote_go
from exporter.alerting.template.values import Duration
from exporter.promql.model import QueryError
from exporter.promtool.difference import (
    alert_differences,
    same_samples,
    sample_differences,
    shown_alerts,
    shown_samples,
)
from exporter.promtool.series import InputSeries
from exporter.promtool.testfile import AlertTest, ExpressionTest, RuleTest, RuleTestFile
from exporter.storage.head import Head
from exporter.storage.layout import Layout
from exporter.storage.model import Labels
from exporter.storage.retention import Retention
from exporter.storage.stream import Stream

FOREVER_MS = 1 << 50
MEMORY_LIMIT = 1 << 40
INDENT = " " * 12


def run_test(file: RuleTestFile, test: RuleTest, groups: Sequence[Group]) -> list[str]:
    """Everything that is not as the test says; nothing when it passes."""
    return _Run(file, test, groups).run()


class _Run:
    def __init__(self, file: RuleTestFile, test: RuleTest, groups: Sequence[Group]) -> None:
        self.file = file
        self.test = test
        self.head = Head(retention=Retention(FOREVER_MS), memory_limit=MEMORY_LIMIT)
        self.input = _Input(self.head, test)
        self.conditions = Conditions(
            head=self.head, external_labels=test.external_labels, external_url=test.external_url
        )
        self.failures: list[str] = []
        places = {name: place for place, name in enumerate(file.order)}
        ordered = sorted(groups, key=lambda group: places.get(group.name, 0))
        self.groups = [self._live(group, number) for number, group in enumerate(ordered)]

    def _live(self, group: Group, number: int) -> LiveGroup:
        rules = [
            LiveRule(
                rule,
                promql.compile(rule.expr, subquery_step=self.file.interval),
                self.head.stream(f"rule:{number}:{place}"),
                restored=True,
            )
            for place, rule in enumerate(group.rules)
        ]
        offset = round(1000 * (group.query_offset or 0.0))
        return LiveGroup(group, rules, interval_ms=self.file.interval, offset_ms=offset, restored=True)

    def run(self) -> list[str]:
        """Evaluate from the start to the last time that is asked for, and compare on the way."""
        start, interval = self.test.start, self.file.interval
        waiting = sorted(self.test.alerts, key=lambda one: one.at)[::-1]
        for at in range(start, start + self.test.end + 1, interval):
            self.input.load(at)
            errors = list(self._evaluate(at))
            if errors:
                return [*self.failures, *errors]
            while waiting and waiting[-1].at < at - start + interval:
                self._check_alerts(waiting.pop())
        for one in self.test.expressions:
            self._check_expression(one)
        return self.failures

    def _evaluate(self, at: int) -> Iterator[str]:
        for group in self.groups:
            group.evaluate(at, self.conditions)
            for rule in group.rules:
                if rule.report.health == "err":
                    time = Duration(at * 1_000_000)
                    yield f"    rule: {rule.rule.name}, time: {time}, err: {rule.report.error}"

    def _check_alerts(self, one: AlertTest) -> None:
        got: list[tuple[Labels, Labels]] = sorted(
            (alert.labels, tuple(sorted(alert.annotations)))
            for group in self.groups
            for rule in group.rules
            if isinstance(rule.work, Alerting) and rule.rule.name == one.name
            for alert in rule.work.alerts.values()
            if alert.state == "firing"
        )
        if got == list(one.alerts):
            return
        name = f"    name: {self.test.name},\n" if self.test.name else ""
        self.failures.append(
            f"{name}    alertname: {one.name}, time: {format_duration_ms(one.at)}, \n"
            f"        exp:{shown_alerts(one.alerts, INDENT)}, \n"
            f"        got:{shown_alerts(got, INDENT)}\n" + _listed(alert_differences(one.alerts, got))
        )

    def _check_expression(self, one: ExpressionTest) -> None:
        where = f"    expr: {quote_go(one.expr)}, time: {format_duration_ms(one.at)},"
        try:
            query = promql.compile(one.expr, subquery_step=self.file.interval)
            result = evaluate(query, self.test.start + one.at, self.conditions.budget(), self.conditions)
        except QueryError as error:
            self.failures.append(f"{where} err: {error}")
            return
        present = [True] * len(result.labels) if result.present is None else result.present.tolist()
        got = sorted(
            (labels, value)
            for labels, value, here in zip(result.labels, result.values.tolist(), present, strict=True)
            if here
        )
        if same_samples(one.samples, got, fuzzy=self.file.fuzzy):
            return
        self.failures.append(
            f"{where}\n        exp: {shown_samples(one.samples)}\n        got: {shown_samples(got)}\n"
            + _listed(sample_differences(one.samples, got, fuzzy=self.file.fuzzy))
        )


def _listed(differences: Iterator[str]) -> str:
    return "\n".join(["        difference:", *(f"{INDENT}{line}" for line in differences)])


class _Input:
    """The input series, which come into the store as time goes on.

    Series with samples at the same times share a stream; one that has none at a time must not end by that.
    """

    def __init__(self, head: Head, test: RuleTest) -> None:
        unique = {
            series.labels: series for series in test.series
        }  # of two with the same labels the last counts
        alike: defaultdict[tuple[int, bytes], list[InputSeries]] = defaultdict(list)
        for series in unique.values():
            pattern = bytes(value is not None for value in series.values)
            alike[len(pattern), pattern].append(series)
        self._feeds = [
            _Feed(head.stream(f"input:{number}"), members, pattern, test)
            for number, ((_, pattern), members) in enumerate(alike.items())
        ]

    def load(self, until: int) -> None:
        """Append all samples up to a time, in unix ms."""
        for feed in self._feeds:
            feed.load(until)


class _Feed:
    def __init__(
        self, stream: Stream, members: Sequence[InputSeries], pattern: bytes, test: RuleTest
    ) -> None:
        self._stream = stream
        self._layout = Layout([series.labels for series in members])
        self._places = np.flatnonzero(np.frombuffer(pattern, np.uint8))
        self._times = test.start + self._places * test.interval
        self._rows = np.array(
            [[value for value in series.values if value is not None] for series in members], np.float64
        ).T
        self._next = 0

    def load(self, until: int) -> None:
        while self._next < len(self._times) and self._times[self._next] <= until:
            self._stream.append(int(self._times[self._next]), self._layout, self._rows[self._next])
            self._next += 1
