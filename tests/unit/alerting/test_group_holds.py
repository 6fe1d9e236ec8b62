"""Alerts whose data goes away, in groups over a real head: told as held, going on, over. Seconds after T0."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.alerting.alerts import Alerting
from exporter.alerting.group import Evaluated, LiveGroup
from exporter.alerting.holding import RULE_GONE

T0 = 1_700_000_000


@pytest.fixture
def holding(bench: Any) -> Any:
    bench.set(no_data_timeout_ms=60_000)
    return bench


def rule(expr: str = "waiting > 5", more: str = "") -> str:
    return f"""
groups:
  - name: g
    limit: 2
    rules:
      - alert: Queue
        expr: {expr}
        labels: {{severity: warning}}
        annotations: {{summary: "{{{{ $value }}}} wait"}}
        {more}
"""


def told(evaluated: Evaluated) -> list[tuple[str, str]]:
    return [(one.before, one.after) for one in evaluated.transitions]


def active(group: LiveGroup) -> list[str]:
    return [alert.state for alert in group.status().rules[0].alerts]


def end(bench: Any, second: float) -> None:
    bench.head.stream("engine").end(T0 * 1000 + round(second * 1000))


def test_a_series_that_ends_does_not_end_its_alert_for_others(holding: Any) -> None:
    """The rules themselves judge as Prometheus: the alert is active no more."""
    group = holding.load(rule())
    holding.feed(0, waiting=9)
    assert told(holding.run(0)) == [("inactive", "firing")]
    end(holding, 5)
    evaluated = holding.run(5)
    assert told(evaluated) == [("firing", "held")]
    assert evaluated.transitions[0].no_data_since == T0 + 5
    assert evaluated.transitions[0].alert.annotations == (("summary", "9 wait"),)
    assert active(group) == []
    assert holding.ask("ALERTS", 5) == {}
    assert told(holding.run(10)) == []


def test_it_goes_on_where_the_data_comes_back_and_still_says_so(holding: Any) -> None:
    group = holding.load(rule())
    holding.feed(0, waiting=9)
    holding.run(0)
    end(holding, 5)
    holding.run(5)
    holding.feed(20, waiting=8)
    evaluated = holding.run(20)
    assert told(evaluated) == [("held", "firing")]
    assert evaluated.transitions[0].starts_at == T0
    assert evaluated.transitions[0].alert.annotations == (("summary", "8 wait"),)
    status = group.status().rules[0].alerts[0]
    assert (status.fired_at, status.active_at) == (T0, T0 + 20)
    end(holding, 25)
    assert told(holding.run(25)) == [("firing", "held")]
    holding.feed(30, waiting=8)
    assert holding.run(30).transitions[0].starts_at == T0


def test_it_is_over_where_the_data_comes_back_and_says_otherwise(holding: Any) -> None:
    holding.load(rule())
    holding.feed(0, waiting=9)
    holding.run(0)
    end(holding, 5)
    holding.run(5)
    holding.feed(20, waiting=1)
    evaluated = holding.run(20)
    assert told(evaluated) == [("held", "inactive")]
    assert evaluated.transitions[0].no_data_since is None
    holding.feed(25, waiting=9)
    assert holding.run(25).transitions[0].starts_at == T0 + 25


def test_it_is_given_up_after_the_timeout(holding: Any) -> None:
    holding.load(rule())
    holding.feed(0, waiting=9)
    holding.run(0)
    end(holding, 5)
    holding.run(5)
    assert told(holding.run(64)) == []
    evaluated = holding.run(65)
    assert told(evaluated) == [("held", "inactive")]
    assert evaluated.transitions[0].no_data_since == T0 + 5


@pytest.mark.parametrize("recorded", [False, True])
def test_of_alternatives_those_are_needed_that_were_there_when_it_fired(holding: Any, recorded: bool) -> None:
    """It fired by the one that went: that the other one finds nothing says nothing."""
    holding.set(no_data_timeout_ms=86_400_000)
    text = rule("a > 5 or b > 5")
    if recorded:
        group = "  - {name: r, rules: [{record: either, expr: a or b}]}"
        text = rule("either > 5").replace("groups:", f"groups:\n{group}")
    recording = holding.load(text).rules[0]
    for one in holding.groups:
        one.recorders = {"either": [recording]} if recorded else {}
    holding.feed(0, "of a", a=9)
    holding.feed(0, "of b", b=1)
    holding.run(0)
    holding.head.stream("of a").end(T0 * 1000 + 5000)
    holding.feed(5, "of b", b=1)
    assert told(holding.run(5)) == [("firing", "held")]
    for second in range(10, 600, 5):
        holding.feed(second, "of b", b=1)
        assert told(holding.run(second)) == []
    holding.feed(600, "of a", a=1)
    holding.feed(600, "of b", b=1)
    assert told(holding.run(600)) == [("held", "inactive")]


def test_of_alternatives_those_are_needed_that_were_there_before_it_was_kept_firing(holding: Any) -> None:
    holding.load(rule("a > 5 or b > 5", more="keep_firing_for: 20s"))
    for second in range(0, 30, 5):
        if second == 5:
            holding.head.stream("of a").end(T0 * 1000 + 5000)
        elif second == 0:
            holding.feed(0, "of a", a=9)
        holding.feed(second, "of b", b=1)
        last = told(holding.run(second))
    assert last == [("firing", "held")]


def test_an_alternative_that_was_not_there_when_it_fired_is_not_needed(holding: Any) -> None:
    holding.load(rule("a > 5 or b > 5"))
    holding.feed(0, "of b", b=9)
    assert told(holding.run(0)) == [("inactive", "firing")]
    holding.feed(5, "of b", b=1)
    assert told(holding.run(5)) == [("firing", "inactive")]
    holding.feed(10, "of b", b=9)
    holding.run(10)
    holding.feed(15, "of a", a=1)
    holding.feed(15, "of b", b=1)
    assert told(holding.run(15)) == [("firing", "inactive")]


def test_where_the_engine_comes_back_with_another_model_the_old_ones_alert_is_over(holding: Any) -> None:
    """Its series can never return; for ten minutes of an engine that is seen at work it is held, and no longer."""
    holding.set(no_data_timeout_ms=86_400_000)
    holding.load(rule("vllm:waiting > 5"))

    def page(second: int, model: str | None) -> list[tuple[str, str]]:
        up = float(model is not None)
        holding.feed(second, "exporter", vllm_exporter_engine_up=up, vllm_exporter_scrape_success=up)
        if model is None:
            end(holding, second)
        else:
            holding.put(second, {f'vllm:waiting{{model_name="{model}"}}': 9 if model == "old" else 1})
        return told(holding.run(second))

    assert page(0, "old") == [("inactive", "firing")]
    assert page(5, None) == [("firing", "held")]
    for second in range(10, 1000, 5):
        assert page(second, None) == []
    ends = [(second, change) for second in range(1000, 2000, 5) for change in page(second, "new")]
    assert ends == [(1600, ("held", "inactive"))]


def test_where_nobody_holds_an_alert_ends_as_in_prometheus(bench: Any) -> None:
    bench.load(rule())
    bench.feed(0, waiting=9)
    bench.run(0)
    end(bench, 5)
    assert told(bench.run(5)) == [("firing", "inactive")]


def test_each_series_alert_is_judged_by_its_own_series(holding: Any) -> None:
    holding.load(rule())
    holding.put(0, {'waiting{model="a"}': 9, 'waiting{model="b"}': 9})
    holding.run(0)
    holding.put(5, {'waiting{model="b"}': 1})
    evaluated = holding.run(5)
    assert {(dict(one.alert.labels)["model"], one.after) for one in evaluated.transitions} == {
        ("a", "held"),
        ("b", "inactive"),
    }


def test_an_alert_that_is_kept_firing_is_judged_when_that_ends(holding: Any) -> None:
    holding.load(rule(more="keep_firing_for: 10s"))
    holding.feed(0, waiting=9)
    holding.run(0)
    end(holding, 5)
    assert told(holding.run(5)) == []
    assert told(holding.run(15)) == [("firing", "held")]


def test_a_rule_that_fails_says_nothing_of_what_it_held_or_fired(holding: Any) -> None:
    group = holding.load(rule("waiting * on () other > 5"))
    holding.feed(0, waiting=9, other=1)
    holding.run(0)
    end(holding, 5)
    assert told(holding.run(5)) == [("firing", "held")]
    holding.put(10, {"waiting": 1, 'other{x="1"}': 1, 'other{x="2"}': 1})
    assert told(holding.run(10)) == []
    assert group.status().rules[0].health == "err"
    holding.feed(15, waiting=1, other=1)
    assert told(holding.run(15)) == [("held", "inactive")]


def test_more_alerts_than_the_limit_are_not_taken_for_resolved(holding: Any) -> None:
    group = holding.load(rule())
    holding.put(0, {'waiting{model="a"}': 9})
    holding.run(0)
    models = {f'waiting{{model="{name}"}}': 9 for name in "abc"}
    holding.put(5, models)
    assert told(holding.run(5)) == [("firing", "held")]
    assert "limit" in group.status().rules[0].last_error
    holding.put(10, {'waiting{model="a"}': 9})
    assert told(holding.run(10)) == [("held", "firing")]


def test_what_cannot_be_judged_for_a_mistake_of_ours_is_held(
    holding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr("exporter.alerting.ground.Ground.bears", fails)
    group = holding.load(rule())
    holding.feed(0, waiting=9)
    holding.run(0)
    holding.feed(5, waiting=1)
    evaluated = holding.run(5)
    assert told(evaluated) == [("firing", "held")]
    assert isinstance(evaluated.turns[0].crash, ZeroDivisionError)
    assert "internal error" in group.status().rules[0].last_error


def test_a_reload_takes_held_alerts_along_and_the_new_expression_judges_them(holding: Any) -> None:
    holding.load(rule())
    holding.feed(0, waiting=9)
    holding.run(0)
    end(holding, 5)
    holding.run(5)
    holding.load(rule("waiting > 5 or vector(0) > 1"))
    assert told(holding.run(10)) == []
    holding.load(rule("vector(0) > 1"))
    assert told(holding.run(15)) == [("held", "inactive")]


def test_a_rule_that_is_gone_ends_what_it_held(holding: Any) -> None:
    group = holding.load(rule())
    holding.feed(0, waiting=9)
    holding.run(0)
    end(holding, 5)
    holding.run(5)
    holding.load("groups: [{name: g, rules: []}]")
    (gone,) = holding.assembly.gone
    ends = group.forget(gone[1], (T0 + 10) * 1000)
    assert [(one.before, one.after, one.reason) for one in ends] == [("held", "inactive", RULE_GONE)]


def test_a_rule_that_is_gone_says_that_this_is_why_its_alerts_end(holding: Any) -> None:
    group = holding.load(rule())
    holding.feed(0, waiting=9)
    holding.run(0)
    holding.load("groups: [{name: g, rules: []}]")
    (gone,) = holding.assembly.gone
    ends = group.forget(gone[1], (T0 + 10) * 1000)
    assert [(one.before, one.after, one.reason) for one in ends] == [("firing", "inactive", RULE_GONE)]


def test_a_clock_that_is_set_back_does_not_end_the_patience(holding: Any) -> None:
    group = holding.load(rule())
    holding.feed(100, waiting=9)
    holding.run(100)
    end(holding, 105)
    holding.run(105)
    holding.head.truncate_after(T0 * 1000)
    assert told(holding.run(45)) == []
    work = group.rules[0].work
    assert isinstance(work, Alerting)
    assert [one.since for one in work.held.values()] == [(T0 + 45) * 1000]
    assert told(holding.run(104)) == []
    assert told(holding.run(105)) == [("held", "inactive")]


def test_nothing_is_looked_up_where_nothing_went_away(holding: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.alerting.ground.Ground.bears", None)
    holding.load(rule())
    for second in range(0, 50, 5):
        holding.feed(second, waiting=9 + second)
        assert holding.run(second).turns == []
