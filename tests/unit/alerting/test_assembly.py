"""A reload: what did not change goes on, what is gone ends."""

from __future__ import annotations

from typing import Any

ALERT = """
  - name: {group}
    rules:
      - alert: Queue
        expr: {expr}
        for: {wait}
        labels: {{severity: {severity}}}
"""


def text(*, group: str = "g", expr: str = "waiting > 5", wait: str = "10s", severity: str = "warning") -> str:
    return "groups:" + ALERT.format(group=group, expr=expr, wait=wait, severity=severity)


def test_a_group_that_did_not_change_goes_on_as_it_is(bench: Any) -> None:
    group = bench.load(text())
    assert bench.load("# moved down\n\n" + text()) is group
    assert not bench.assembly.gone
    assert not bench.assembly.ended


def test_a_rule_whose_expression_changed_keeps_its_alerts_and_its_series(bench: Any) -> None:
    group = bench.load(text())
    bench.feed(0, waiting=9)
    bench.run(0)
    changed = bench.load(text(expr="waiting > 8"))
    assert changed is not group
    assert not bench.assembly.gone
    bench.feed(10, waiting=9)
    (fired,) = bench.run(10).transitions
    assert (fired.before, fired.after) == ("pending", "firing")
    assert list(bench.ask("ALERTS", 10)) == [
        'ALERTS{alertname="Queue",alertstate="firing",severity="warning"}'
    ]
    bench.feed(15, waiting=1)
    bench.run(15)
    assert bench.ask("ALERTS", 15) == {}


def test_an_alert_that_no_longer_holds_after_a_reload_ends_its_series(bench: Any) -> None:
    bench.load(text())
    bench.feed(0, waiting=9)
    bench.run(0)
    bench.load(text(expr="waiting > 50"))
    bench.feed(5, waiting=9)
    bench.run(5)
    assert bench.ask('{__name__=~"ALERTS.*"}', 5) == {}


def test_a_rule_with_other_labels_is_another_rule(bench: Any) -> None:
    bench.load(text())
    bench.feed(0, waiting=9)
    bench.run(0)
    bench.load(text(severity="critical"))
    assert [(rule.rule.name, group.group.name) for group, rule in bench.assembly.gone] == [("Queue", "g")]
    assert len(bench.assembly.ended) == 1
    group, rule = bench.assembly.gone[0]
    (end,) = group.forget(rule, 1_700_000_001_000)
    assert (end.before, end.after, end.alert.resolved_at) == ("pending", "inactive", 1_700_000_001_000)
    bench.feed(10, waiting=9)
    assert [one.after for one in bench.run(10).transitions] == ["pending"]


def test_a_rule_that_moves_to_another_group_begins_anew_but_writes_on_in_its_stream(bench: Any) -> None:
    """Prometheus copies no state between groups; the series stay without a break."""
    first = bench.load(text())
    stream = first.rules[0].work.stream
    bench.feed(0, waiting=9)
    bench.run(0)
    second = bench.load(text(group="h"))
    assert second.rules[0].work.stream is stream
    assert len(bench.assembly.gone) == 1
    assert not bench.assembly.ended
    bench.feed(10, waiting=9)
    assert [one.after for one in bench.run(10).transitions] == ["pending"]
    assert list(bench.ask("ALERTS", 10)) == [
        'ALERTS{alertname="Queue",alertstate="pending",severity="warning"}'
    ]


def test_a_recording_rule_that_becomes_an_alert_carries_nothing_over(bench: Any) -> None:
    bench.load("groups: [{name: g, rules: [{record: same, expr: up}]}]")
    bench.load("groups: [{name: g, rules: [{alert: same, expr: up}]}]")
    assert len(bench.assembly.gone) == len(bench.assembly.ended) == 1


def test_rules_of_the_same_name_and_labels_are_matched_in_order(bench: Any) -> None:
    bench.load(
        "groups: [{name: g, rules: [{alert: A, expr: up == 1, for: 1m}, {alert: A, expr: up == 2, for: 1m}]}]"
    )
    bench.put(0, {'up{n="1"}': 1, 'up{n="2"}': 2})
    bench.run(0)
    group = bench.load(
        "groups: [{name: g, rules: [{alert: A, expr: up > 0 < 2, for: 1m}, {alert: A, expr: up > 1, for: 1m}]}]"
    )
    assert [[dict(labels)["n"] for labels in rule.work.alerts] for rule in group.rules] == [["1"], ["2"]]
    assert [rule.work.stream.name for rule in group.rules] == ["rule:alerting:A{}", "rule:alerting:A{}#2"]
    bench.load("groups: [{name: g, rules: [{alert: A, expr: up > 3, for: 1m}]}]")
    assert [stream.name for _, stream in bench.assembly.ended] == ["rule:alerting:A{}#2"]


def test_a_group_that_is_gone_ends_its_rules(bench: Any) -> None:
    bench.load(
        "groups: [{name: g, rules: [{record: one, expr: up}]}, {name: h, rules: [{record: two, expr: up}]}]"
    )
    bench.load("groups: [{name: g, rules: [{record: one, expr: up}]}]")
    assert [(group.group.name, rule.rule.name) for group, rule in bench.assembly.gone] == [("h", "two")]
    assert [stream.name for _, stream in bench.assembly.ended] == ["rule:recording:two{}"]


def test_a_new_default_interval_makes_another_group_of_the_same_rules(bench: Any) -> None:
    group = bench.load(text(), interval=5)
    other = bench.load(text(), interval=10)
    assert other is not group
    assert other.interval_ms == 10_000
    assert other.rules[0].work.stream is group.rules[0].work.stream
