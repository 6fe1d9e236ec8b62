"""Every alert that ships: no end of its data ends it for others, and with its data there it is never held."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.alerting.group import LiveRule
from exporter.alerting.rulefile import load_rule_file
from exporter.alerting.transition import Transition
from exporter.promtool.runner import _Run
from exporter.promtool.testfile import RuleTest, RuleTestFile, read_test_file

RULES = Path(__file__).parents[3] / "rules"
OUTAGE_MS = 90 * 60_000
STEP_MS = 60_000
LONG = ("slos-page", "slos-ticket")
"""Their tests take seconds each; one that fires everything at once stands for all of them."""


def cases() -> Iterator[Any]:
    for path in sorted(RULES.glob("*.test.yml")):
        file = read_test_file(path)
        for test in file.tests:
            stem = path.name.removesuffix(".test.yml")
            if any(one.alerts for one in test.alerts) and (stem not in LONG or "many bad" in test.name):
                yield pytest.param(file, test, id=f"{stem}: {test.name}")


def begun(file: RuleTestFile, test: RuleTest) -> _Run:
    """The test's series and rules, with alerts held for ever."""
    run = _Run(file, test, [group for name in file.rule_files for group in load_rule_file(RULES / name)])
    run.conditions = replace(run.conditions, no_data_timeout_ms=0)
    recorders: dict[str, list[LiveRule]] = {}
    for group in run.groups:
        group.recorders = recorders
        for rule in group.rules:
            if rule.rule.kind == "recording":
                recorders.setdefault(rule.rule.name, []).append(rule)
    return run


def evaluated(run: _Run, times: Sequence[int], *, feed: bool) -> list[Transition]:
    told: list[Transition] = []
    for at in times:
        if feed:
            run.input.load(at)
        for group in run.groups:
            told += group.evaluate(at, run.conditions).transitions
    return told


@pytest.mark.parametrize(("file", "test"), list(cases()))
def test_no_shipped_alert_is_resolved_by_the_end_of_all_series(file: RuleTestFile, test: RuleTest) -> None:
    run = begun(file, test)
    last = test.start + max(one.at for one in test.alerts if one.alerts)
    told = evaluated(run, range(test.start, last + 1, file.interval), feed=True)
    assert any(one.after == "firing" for one in told)
    for feed in run.input._feeds:
        feed._stream.end(last + 1)
    after = evaluated(run, range(last + STEP_MS, last + OUTAGE_MS, STEP_MS), feed=False)
    assert [one.rule for one in after if one.before in ("firing", "held") and one.after == "inactive"] == []


@pytest.mark.parametrize(("file", "test"), list(cases()))
def test_a_shipped_alert_is_held_only_where_its_test_takes_series_away(
    file: RuleTestFile, test: RuleTest
) -> None:
    run = begun(file, test)
    told = evaluated(run, range(test.start, test.start + test.end + 1, file.interval), feed=True)
    held = {one.rule for one in told if one.after == "held"}
    assert held == ({"VLLMHighQueueLength"} if "went away" in test.name else set())
