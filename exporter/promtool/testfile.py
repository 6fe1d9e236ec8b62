"""Unit-test files of rules, as `promtool test rules` takes them: read, with every mistake and its place.

Source: https://prometheus.io/docs/prometheus/latest/configuration/unit_testing_rules/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from exporter.alerting.document import DocumentError, Node, parse_document
from exporter.alerting.fields import Reader
from exporter.alerting.rulefile import RuleFileError, read_rule_file
from exporter.errors import ConfigError
from exporter.promtool.series import InputSeries, NotationError, parse_labels, parse_values
from exporter.storage.model import Labels

MINUTE_MS = 60_000
STEP_LIMIT = 500_000
"""Most evaluations that a test may take."""
VALUE_LIMIT = 5_000_000
"""Most values in all the series of a file."""

_FILE_FIELDS = ("rule_files", "evaluation_interval", "group_eval_order", "tests", "fuzzy_compare")
_TEST_FIELDS = (
    "interval",
    "input_series",
    "alert_rule_test",
    "promql_expr_test",
    "external_labels",
    "external_url",
    "name",
    "start_timestamp",
)

T = TypeVar("T")


class RuleTestFileError(ConfigError):
    """A unit-test file cannot be used; `problems` has a line for each mistake."""


@dataclass(frozen=True, slots=True)
class AlertTest:
    """Which alerts of a name must fire at a time, in ms from the start."""

    at: int
    name: str
    alerts: Sequence[tuple[Labels, Labels]]
    """Labels and annotations of each, sorted."""


@dataclass(frozen=True, slots=True)
class ExpressionTest:
    """What an expression must give at a time, in ms from the start."""

    at: int
    expr: str
    samples: Sequence[tuple[Labels, float]]


@dataclass(frozen=True, slots=True)
class RuleTest:
    """One test: series, and what must come of them. `interval` between samples, `start` in unix time: ms."""

    name: str
    interval: int
    start: int
    series: Sequence[InputSeries]
    alerts: Sequence[AlertTest]
    expressions: Sequence[ExpressionTest]
    external_labels: Mapping[str, str]
    external_url: str

    @property
    def end(self) -> int:
        """The last time that is asked for, in ms from the start."""
        return max([0, *(one.at for one in self.alerts), *(one.at for one in self.expressions)])


@dataclass(frozen=True, slots=True)
class RuleTestFile:
    """A unit-test file; `interval` between evaluations in ms, `order` the groups that are evaluated in this order."""

    rule_files: Sequence[str]
    interval: int
    order: Sequence[str]
    fuzzy: bool
    tests: Sequence[RuleTest]


def read_test_file(path: Path, *, ignore_unknown: bool = False) -> RuleTestFile:
    """A unit-test file from disk; RuleTestFileError."""
    try:
        text = read_rule_file(path)
    except RuleFileError as error:
        raise RuleTestFileError(error.problems) from error
    return load_tests(text, str(path), ignore_unknown=ignore_unknown)


def load_tests(text: str, file: str, *, ignore_unknown: bool = False) -> RuleTestFile:
    """A unit-test file; RuleTestFileError with every mistake in it."""
    reader = _Reader(file, ignore_unknown=ignore_unknown)
    try:
        root, more = parse_document(text)
        found = reader.file(root)
        if more:
            reader.problem_at(0, 0, "more than one YAML document")
    except DocumentError as error:
        reader.ends(error)
        found = None
    if reader.problems or found is None:
        raise RuleTestFileError(reader.problems)
    return found


class _Reader(Reader):
    values = 0

    def file(self, root: Node | None) -> RuleTestFile:
        fields = self.fields(root, "the file", _FILE_FIELDS)
        interval = self.duration_ms(fields.get("evaluation_interval"), "evaluation_interval") or MINUTE_MS
        order = self._texts(fields.get("group_eval_order"), "group_eval_order")
        for number, name in enumerate(order):
            if name in order[:number]:
                where = fields["group_eval_order"]
                self.problem(where, f"group name repeated in evaluation order: {name}")
        tests = self.items(fields.get("tests"), "tests")
        return RuleTestFile(
            rule_files=self._texts(fields.get("rule_files"), "rule_files"),
            interval=interval,
            order=order,
            fuzzy=self.flag(fields.get("fuzzy_compare"), "fuzzy_compare"),
            tests=[self._test(node, number, interval) for number, node in enumerate(tests)],
        )

    def _texts(self, node: Node | None, what: str) -> list[str]:
        return [self.text(item, f"an entry of {what}") for item in self.items(node, what)]

    def _test(self, node: Node, number: int, evaluation_interval: int) -> RuleTest:
        fields = self.fields(node, f"test {number + 1}", _TEST_FIELDS)
        test = RuleTest(
            name=self.text(fields.get("name"), "name"),
            interval=self.duration_ms(fields.get("interval"), "interval") or evaluation_interval,
            start=self._start(fields.get("start_timestamp")),
            series=[self._series(one) for one in self.items(fields.get("input_series"), "input_series")],
            alerts=[
                self._alert_test(one) for one in self.items(fields.get("alert_rule_test"), "alert_rule_test")
            ],
            expressions=[
                self._expression_test(one)
                for one in self.items(fields.get("promql_expr_test"), "promql_expr_test")
            ],
            external_labels=self.texts(fields.get("external_labels"), "external_labels"),
            external_url=self.text(fields.get("external_url"), "external_url"),
        )
        if test.end // evaluation_interval > STEP_LIMIT:
            self.problem(node, f"the test takes more than {STEP_LIMIT} evaluations")
        return test

    def _start(self, node: Node | None) -> int:
        text = self.text(node, "start_timestamp")
        if not text:
            return 0
        try:
            try:
                seconds = float(text)
            except ValueError:
                moment = datetime.fromisoformat(text)
                if moment.tzinfo is None:
                    raise ValueError("no time zone") from None
                seconds = moment.timestamp()
            if not math.isfinite(seconds) or not 0 <= seconds < 2**40:
                raise ValueError("out of range")
        except (ValueError, OverflowError) as error:
            self.problem(node, f'start_timestamp: cannot parse "{text[:50]}" to a valid timestamp: {error}')
            return 0
        return round(seconds * 1000)

    def _parsed(self, node: Node | None, what: str, parse: Callable[[str], T]) -> T | None:
        try:
            return parse(self.text(node, what))
        except NotationError as error:
            self.problem(node, f"{what}: {error}")
            return None

    def _series(self, node: Node) -> InputSeries:
        fields = self.fields(node, "an input series", ("series", "values"))
        labels = self._parsed(fields.get("series"), "series", parse_labels)
        if labels == ():
            self.problem(node, "an input series has no labels, not even a name")
        values = self._parsed(fields.get("values"), "values", parse_values) or []
        self.values += len(values)
        if self.values > VALUE_LIMIT:
            raise DocumentError(
                f"all series together have more than {VALUE_LIMIT} values", node.line, node.column
            )
        return InputSeries(labels or (), values)

    def _time(self, node: Node | None) -> int:
        return self.duration_ms(node, "eval_time") or 0

    def _alert_test(self, node: Node) -> AlertTest:
        fields = self.fields(node, "an alert_rule_test", ("eval_time", "alertname", "exp_alerts"))
        name = self.text(fields.get("alertname"), "alertname")
        if not name:
            self.problem(node, "an item under alert_rule_test misses required attribute alertname")
        alerts: list[tuple[Labels, Labels]] = []
        for one in self.items(fields.get("exp_alerts"), "exp_alerts"):
            expected = self.fields(one, "an expected alert", ("exp_labels", "exp_annotations"))
            labels = self.texts(expected.get("exp_labels"), "exp_labels")
            annotations = self.texts(expected.get("exp_annotations"), "exp_annotations")
            labels["alertname"] = name
            alerts.append((_sorted(labels), _sorted(annotations)))
        return AlertTest(self._time(fields.get("eval_time")), name, sorted(alerts))

    def _expression_test(self, node: Node) -> ExpressionTest:
        fields = self.fields(node, "a promql_expr_test", ("expr", "eval_time", "exp_samples"))
        samples: list[tuple[Labels, float]] = []
        for one in self.items(fields.get("exp_samples"), "exp_samples"):
            expected = self.fields(one, "an expected sample", ("labels", "value", "histogram"))
            if self.text(expected.get("histogram"), "histogram"):
                self.problem(expected["histogram"], "native histograms are not supported")
            labels = self._parsed(expected.get("labels"), "labels", parse_labels) or ()
            samples.append((labels, self.number(expected.get("value"), "value") or 0.0))
        samples.sort(key=lambda sample: sample[0])
        return ExpressionTest(
            self._time(fields.get("eval_time")), self.text(fields.get("expr"), "expr"), samples
        )


def _sorted(labels: Mapping[str, str]) -> Labels:
    return tuple(sorted(labels.items()))
