"""Groups over a real head: what they write, and how they fail."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.alerting import conditions
from exporter.alerting.template import Template

ALERT = """
groups:
  - name: g
    rules:
      - alert: Queue
        expr: waiting > 5
        for: 10s
        labels: {severity: warning, team: ""}
        annotations: {summary: "too many"}
"""


def recording(expr: str, *, extra: str = "", group: str = "") -> str:
    return f"""
groups:
  - name: g
    {group}
    rules:
      - record: made
        expr: {expr}
        {extra}
"""


def test_a_recording_rule_writes_its_result_under_its_name(bench: Any) -> None:
    bench.load(recording("sum by (host) (up)", extra='labels: {level: host, host: "all"}'))
    bench.put(0, {'up{host="a",job="x"}': 1})
    assert bench.run(0).samples == 1
    assert bench.ask("made", 0) == {'made{host="all",level="host"}': 1}


def test_a_label_that_a_rule_sets_to_nothing_is_gone(bench: Any) -> None:
    bench.load(recording("up", extra='labels: {host: ""}'))
    bench.put(0, {'up{host="a",job="x"}': 1})
    bench.run(0)
    assert bench.ask("made", 0) == {'made{job="x"}': 1}


def test_a_scalar_is_recorded_as_one_series(bench: Any) -> None:
    bench.load(recording("1 + 1"))
    bench.run(0)
    assert bench.ask("made", 0) == {"made{}": 2}


def test_a_string_is_no_result(bench: Any) -> None:
    group = bench.load(recording("'\"words\"'"))
    assert bench.run(0).failures == 1
    assert group.status().rules[0].last_error == "rule result is not a vector or scalar"


def test_a_rule_sees_what_the_rules_before_it_wrote_at_the_same_time(bench: Any) -> None:
    bench.load("""
groups:
  - name: g
    rules:
      - {record: one, expr: up * 2}
      - {record: two, expr: one * 2}
      - {alert: Four, expr: two == 4}
      - {record: firing, expr: "count(ALERTS{alertname='Four'})"}
""")
    bench.feed(0, up=1)
    assert bench.run(0).samples == 5
    assert bench.ask("firing", 0) == {"firing{}": 1}


def test_series_that_a_rule_no_longer_gives_end(bench: Any) -> None:
    bench.load(recording("up"))
    bench.put(0, {'up{host="a"}': 1, 'up{host="b"}': 1})
    bench.run(0)
    bench.put(5, {'up{host="b"}': 1})
    bench.run(5)
    assert bench.ask("made", 5) == {'made{host="b"}': 1}
    assert bench.ask("made", 4) == {'made{host="a"}': 1, 'made{host="b"}': 1}


def test_series_of_a_rule_that_fails_do_not_end_by_that(bench: Any) -> None:
    """As in Prometheus: they stand until a success, or until they are too old."""
    group = bench.load(recording("sum by (host) (up) / on () group_left () other"))
    bench.put(0, {'up{host="a"}': 1, 'other{x="1"}': 2})
    bench.run(0)
    bench.put(5, {'up{host="a"}': 1, 'other{x="1"}': 2, 'other{x="2"}': 2})
    assert bench.run(5).failures == 1
    rule = group.status().rules[0]
    assert rule.health == "err"
    assert "many-to-many" in rule.last_error or "duplicate series" in rule.last_error
    assert bench.ask("made", 5) == {'made{host="a"}': 0.5}
    bench.put(10, {'up{host="a"}': 1, 'other{x="1"}': 1})
    assert bench.run(10).failures == 0
    rule = group.status().rules[0]
    assert (rule.health, rule.last_error) == ("ok", "")


def test_two_series_that_the_rules_labels_make_one_are_an_error(bench: Any) -> None:
    group = bench.load(recording("up", extra="labels: {host: all}"))
    bench.put(0, {'up{host="a"}': 1, 'up{host="b"}': 1})
    assert bench.run(0).failures == 1
    assert (
        group.status().rules[0].last_error
        == "vector contains metrics with the same labelset after applying rule labels"
    )
    assert bench.ask("made", 0) == {}


def test_series_that_would_be_one_matter_only_where_both_are_there(bench: Any) -> None:
    bench.load(recording("up > 0", extra="labels: {host: all}"))
    bench.put(0, {'up{host="a"}': 1, 'up{host="b"}': 0})
    assert bench.run(0).failures == 0
    bench.put(5, {'up{host="a"}': 0, 'up{host="b"}': 3})
    assert bench.run(5).failures == 0
    assert bench.ask("made", 5) == {'made{host="all"}': 3}
    bench.put(10, {'up{host="a"}': 1, 'up{host="b"}': 3})
    assert bench.run(10).failures == 1


def test_a_recording_rule_over_the_limit_fails_and_writes_nothing(bench: Any) -> None:
    group = bench.load(recording("up", group="limit: 1"))
    bench.put(0, {'up{host="a"}': 1, 'up{host="b"}': 1})
    assert bench.run(0).failures == 1
    assert group.status().rules[0].last_error == "exceeded limit of 1 with 2 series"
    assert bench.ask("made", 0) == {}


def test_the_query_offset_moves_what_is_read_and_what_is_written(bench: Any) -> None:
    bench.load(recording("up", group="query_offset: 10s"))
    bench.feed(0, up=1)
    bench.feed(5, up=2)
    bench.run(10)
    bench.feed(12, up=3)
    assert bench.ask("timestamp(made)", 10) == {"{}": 1_700_000_000}
    assert bench.ask("made", 10) == {"made{}": 1}


def test_names_and_labels_may_be_any_utf8(bench: Any) -> None:
    bench.load("""
groups:
  - name: g
    rules:
      - record: "größe.des puffers"
        expr: up
        labels: {"ort": "münchen", "a.b": "c"}
""")
    bench.feed(0, up=1)
    assert bench.run(0).failures == 0
    assert bench.ask('{"größe.des puffers", "a.b"="c"}', 0) == {'größe.des puffers{a.b="c",ort="münchen"}': 1}


def test_an_alert_shows_as_two_series_with_its_state_and_since_when_it_is_active(bench: Any) -> None:
    bench.load(ALERT)
    bench.feed(0, waiting=9)
    bench.run(0)
    pending = 'ALERTS{alertname="Queue",alertstate="pending",severity="warning"}'
    assert bench.ask("ALERTS", 0) == {pending: 1}
    bench.feed(10.75, waiting=9)
    bench.run(10.75)
    assert bench.ask("ALERTS", 10.75) == {pending.replace("pending", "firing"): 1}
    assert bench.ask("ALERTS_FOR_STATE", 10.75) == {
        'ALERTS_FOR_STATE{alertname="Queue",severity="warning"}': 1_700_000_000
    }
    bench.feed(15, waiting=0)
    bench.run(15)
    assert bench.ask('{__name__=~"ALERTS.*"}', 15) == {}
    assert len(bench.ask('{__name__=~"ALERTS.*"}', 14)) == 2


def test_the_alerts_of_a_rule_that_fails_stay_as_they_are(bench: Any) -> None:
    group = bench.load(ALERT)
    bench.feed(0, waiting=9)
    bench.run(0)
    bench.feed(10, waiting=9)
    bench.set(query_samples=0)
    evaluated = bench.run(10)
    assert (evaluated.failures, evaluated.transitions) == (1, [])
    assert group.status().rules[0].state == "pending"
    bench.set(query_samples=1000)
    assert [one.after for one in bench.run(12).transitions] == ["firing"]


def test_alerts_over_the_limit_are_forgotten_and_their_series_stand_until_a_success(bench: Any) -> None:
    group = bench.load(ALERT.replace("name: g", "name: g\n    limit: 1").replace("for: 10s", "for: 0s"))
    bench.put(0, {'waiting{m="a"}': 9})
    bench.run(0)
    bench.put(5, {'waiting{m="a"}': 9, 'waiting{m="b"}': 9})
    evaluated = bench.run(5)
    assert [(one.before, one.after) for one in evaluated.transitions] == [("firing", "inactive")]
    rule = group.status().rules[0]
    assert (rule.last_error, rule.alerts, rule.state) == ("exceeded limit of 1 with 2 alerts", (), "inactive")
    assert len(bench.ask("ALERTS", 5)) == 1
    bench.put(10, {'waiting{m="a"}': 0})
    bench.run(10)
    assert bench.ask("ALERTS", 10) == {}


def test_alerts_that_become_one_by_the_rules_labels_are_an_error(bench: Any) -> None:
    group = bench.load(ALERT.replace('team: ""', "m: all"))
    bench.put(0, {'waiting{m="a"}': 9, 'waiting{m="b"}': 9})
    assert bench.run(0).failures == 1
    assert "same labelset after applying alert labels" in group.status().rules[0].last_error


def test_alerts_that_differ_in_the_state_label_share_one_series(bench: Any) -> None:
    """As in Prometheus, where the second sample for it changes nothing."""
    bench.load(ALERT.replace("waiting > 5", "waiting"))
    bench.put(0, {'waiting{alertstate="x"}': 9, 'waiting{alertstate="y"}': 9})
    assert bench.run(0).failures == 0
    assert len(bench.ask("ALERTS", 0)) == 1
    assert len(bench.ask("ALERTS_FOR_STATE", 0)) == 2


def test_the_status_tells_everything_about_an_alert(bench: Any) -> None:
    group = bench.load(ALERT.replace("for: 10s", "for: 0s\n        keep_firing_for: 1m"))
    bench.put(1.5, {'waiting{m="a"}': 9})
    bench.run(1.5)
    bench.put(3, {'waiting{m="a"}': 1})
    bench.run(3)
    status = group.status()
    assert (status.name, status.file, status.interval, status.query_offset) == ("g", "test.yml", 5.0, 0.0)
    assert status.last_evaluation == 1_700_000_003.0
    rule = status.rules[0]
    assert (rule.kind, rule.name, rule.query, rule.duration, rule.keep_firing_for) == (
        "alerting",
        "Queue",
        "waiting > 5",
        0.0,
        60.0,
    )
    assert (rule.health, rule.last_evaluation) == ("ok", 1_700_000_003.0)
    alert = rule.alerts[0]
    assert alert.labels == {"alertname": "Queue", "m": "a", "severity": "warning"}
    assert alert.annotations == {"summary": "too many"}
    assert (alert.state, alert.active_at, alert.value) == ("firing", 1_700_000_001.5, 9)
    assert alert.keep_firing_since == 1_700_000_003.0


def test_transitions_say_of_which_rule_they_are(bench: Any) -> None:
    bench.load(ALERT)
    bench.feed(0, waiting=9)
    (one,) = bench.run(0).transitions
    assert (one.file, one.group, one.rule, one.query) == ("test.yml", "g", "Queue", "waiting > 5")
    assert (one.before, one.after, one.at) == ("inactive", "pending", 1_700_000_000.0)


def test_templates_are_expanded_with_labels_value_and_queries_at_the_evaluations_time(bench: Any) -> None:
    group = bench.load("""
groups:
  - name: g
    rules:
      - alert: Queue
        expr: waiting > 5
        labels: {engine: "{{ $labels.m }}-x", empty: "{{ $labels.nothing }}"}
        annotations:
          summary: "{{ $value | humanize }} wait on {{ .Labels.m }}, {{ query \\"sum(up)\\" | first | value }} are up"
""")
    bench.put(0, {'waiting{m="a"}': 9000, "up{}": 1})
    assert bench.run(0).failures == 0
    alert = group.status().rules[0].alerts[0]
    assert alert.labels == {"alertname": "Queue", "engine": "a-x", "m": "a"}
    assert alert.annotations == {"summary": "9k wait on a, 1 are up"}


def test_a_template_that_fails_says_so_in_its_place(bench: Any) -> None:
    group = bench.load(
        ALERT.replace('"too many"', "'{{ query \"nothing\" | first | value }}'").replace(
            "for: 10s", "for: 0s"
        )
    )
    bench.feed(0, waiting=9)
    assert bench.run(0).failures == 0
    summary = group.status().rules[0].alerts[0].annotations["summary"]
    assert summary.startswith("<error expanding template: ")


def test_a_label_that_its_template_makes_empty_shows_unexpanded_in_the_series(bench: Any) -> None:
    """Prometheus' own way: the alert lacks the label, its series have the template's text."""
    bench.load(ALERT.replace('team: ""', "'team': '{{ $labels.nothing }}'"))
    bench.feed(0, waiting=9)
    bench.run(0)
    assert list(bench.ask("ALERTS", 0)) == [
        'ALERTS{alertname="Queue",alertstate="pending",severity="warning",team="{{ $labels.nothing }}"}'
    ]


def test_an_unexpected_failure_is_the_rules_own_and_the_next_rule_goes_on(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = bench.load("groups: [{name: g, rules: [{record: one, expr: up}, {record: two, expr: up}]}]")
    bench.feed(0, up=1)
    monkeypatch.setattr(group.rules[0].work, "_row", None)
    assert bench.run(0).failures == 1
    first, second = group.status().rules
    assert first.last_error.startswith("internal error: TypeError")
    assert second.health == "ok"
    assert bench.ask("two", 0) == {"two{}": 1}


def test_a_rule_over_its_budget_fails_alone(bench: Any) -> None:
    group = bench.load("groups: [{name: g, rules: [{record: one, expr: up}, {record: two, expr: 1 + 1}]}]")
    bench.set(query_samples=2)
    bench.put(0, {f'up{{n="{n}"}}': 1 for n in range(10)})
    assert bench.run(0).failures == 1
    assert "too many samples" in group.status().rules[0].last_error


def test_a_clock_that_was_set_back_leaves_a_pending_alert_its_time(bench: Any) -> None:
    bench.load(ALERT)
    bench.feed(0, waiting=9)
    bench.run(0)
    bench.feed(8, waiting=9)
    bench.run(8)
    bench.head.truncate_after(1_700_000_000_000 - 3_600_000)
    bench.feed(-3600, waiting=9)
    assert not bench.run(-3600).transitions
    bench.feed(-3600 + 2, waiting=9)
    assert [one.after for one in bench.run(-3600 + 2).transitions] == ["firing"]


def test_what_a_group_wrote_after_the_clock_was_set_back_goes_with_its_next_evaluation(bench: Any) -> None:
    """A group at work when the store forgets the future wrote into it: until then it took no row any more."""
    group = bench.load(recording("sum by (host) (up)"))
    bench.put(0, {"up": 1})
    bench.run(0)
    bench.head.truncate_after(1_700_000_000_000 - 3_600_000)
    bench.put(-3600 + 1, {"up": 1})
    bench.run(1)
    stream = group.rules[0].work.stream
    assert stream.last_ms == 1_700_000_001_000
    bench.run(-3600 + 1)
    assert stream.last_ms == 1_700_000_001_000 - 3_600_000
    assert len(stream.stamps) == 1


def test_an_alert_that_stays_keeps_one_layout(bench: Any) -> None:
    group = bench.load(ALERT)
    seen = []
    for second in (0, 5, 10, 15, 20):
        bench.feed(second, waiting=9)
        bench.run(second)
        seen.append(group.rules[0].work._row.layout)
    assert seen[0] is seen[1]
    assert seen[2] is seen[3] is seen[4]


def test_alerts_and_their_series_share_what_they_have_in_common(bench: Any) -> None:
    """Of 10,000 alerts each had its own copy of its name, of what its rule says and of its state."""
    group = bench.load(ALERT.replace("for: 10s", "for: 0s"))
    series = {f'waiting{{host="h{n:04}",rack="r{n % 10}"}}': 9.0 for n in range(1000)}
    bench.put(0, series)
    bench.run(0)
    work = group.rules[0].work
    pairs = {id(pair) for labels in work.stream.labels for pair in labels}
    pairs |= {id(pair) for alert in work.alerts.values() for pair in (*alert.labels, *alert.annotations)}
    assert len(pairs) <= 2 * len(series) + 10, "host and rack, as they came, and a few of all alerts"


def test_a_recording_rule_keeps_one_layout_while_its_series_stay(bench: Any) -> None:
    group = bench.load(recording("sum by (host) (up)"))
    seen = set()
    for second in range(0, 50, 5):
        bench.put(second, {'up{host="a"}': second, 'up{host="b"}': 1})
        bench.run(second)
        seen.add(id(group.rules[0].work.stream._layout))
    assert len(seen) == 1


def many(count: int) -> dict[str, float]:
    return {f'up{{n="{n}"}}': float(n % 2) for n in range(count)}


def test_a_rule_that_gives_too_many_series_fails_and_says_so(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """90,000 recorded series took seconds of the event loop, and a gigabyte."""
    monkeypatch.setattr(conditions, "RESULT_LIMIT", 10)
    group = bench.load(
        "groups: [{name: g, rules: [{record: r, expr: up}, {alert: A, expr: up}, {alert: Few, expr: up == 1}]}]"
    )
    bench.put(0, many(12))
    evaluated = bench.run(0)
    errors = [rule.last_error for rule in group.status().rules]
    assert errors[:2] == ["the result has 12 series, more than 10: select fewer, or aggregate them"] * 2
    assert errors[2] == ""
    assert evaluated.failures == 2
    assert len(group.status().rules[2].alerts) == 6


def test_a_templates_query_that_gives_too_many_series_is_an_error_in_the_text(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditions, "RESULT_LIMIT", 10)
    annotations = """{s: '{{ query "up" | first | value }}'}"""
    group = bench.load(
        f"groups: [{{name: g, rules: [{{alert: A, expr: vector(1), annotations: {annotations}}}]}}]"
    )
    bench.put(0, many(12))
    assert not bench.run(0).failures
    assert "more than 10" in group.status().rules[0].alerts[0].annotations["s"]


def test_the_texts_of_a_rules_alerts_are_paid_for(bench: Any) -> None:
    bench.set(query_samples=2000)
    group = bench.load(
        """groups: [{name: g, rules: [{alert: A, expr: up, annotations: {s: '{{ printf "%9000d" 1 }}'}}]}]"""
    )
    bench.put(0, many(12))
    assert bench.run(0).failures == 1
    assert "too many samples" in group.status().rules[0].last_error


def test_an_alert_fires_whatever_its_text_runs_into(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> str:
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(Template, "expand", broken)
    group = bench.load(
        "groups: [{name: g, rules: [{alert: A, expr: vector(1), annotations: {s: '{{ $value }}'}}]}]"
    )
    assert not bench.run(0).failures
    (alert,) = group.status().rules[0].alerts
    assert (
        alert.annotations["s"]
        == "<error expanding template: internal error: ZeroDivisionError('unforeseen')>"
    )


def test_what_is_shown_of_alerts_is_put_together_once_after_each_evaluation(bench: Any) -> None:
    group = bench.load(ALERT)
    bench.feed(0, waiting=9)
    bench.run(0)
    first = group.status().rules[0].alerts
    assert group.status().rules[0].alerts is first
    bench.feed(20, waiting=8)
    bench.run(20)
    assert [(alert.state, alert.value) for alert in group.status().rules[0].alerts] == [("firing", 8)]


def test_a_group_that_is_halted_ends_after_the_rule_that_it_is_at(bench: Any) -> None:
    group = bench.load(
        "groups: [{name: g, rules: [{record: a, expr: vector(1)}, {record: b, expr: vector(1)}]}]"
    )
    group.halted = True
    assert bench.run(0).samples == 0
    group.halted = False
    assert bench.run(1).samples == 2
