"""Whether there is anything to judge an alert by: what expressions need, looked up in a real store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from exporter import promql
from exporter.alerting.evidence import NOTHING, Need, Sample, about, needs
from exporter.alerting.files import read_groups
from exporter.alerting.ground import Ground, Recorder
from exporter.storage.model import Labels

T0 = 1_700_000_000_000


class Recording(NamedTuple):
    """A recording rule, as `Ground` sees it."""

    labels: Mapping[str, str]
    need: Need
    works: bool = True


def labels(text: str) -> Labels:
    """`{a="b"}` as a label set."""
    pairs = [part.split("=", 1) for part in text.strip("{}").split(",") if part]
    return tuple(sorted((key, value.strip('"')) for key, value in pairs))


def recording(expression: str, *, works: bool = True, **fixed: str) -> Recording:
    return Recording(fixed, needs(promql.compile(expression).plan), works)


def bears(
    bench: Any,
    expression: str,
    alert: str = "",
    *,
    second: float = 60,
    recorders: Mapping[str, Sequence[Recorder]] | None = None,
) -> bool:
    ground = Ground(bench.head, T0 + round(second * 1000), 300_000, recorders)
    return ground.bears(needs(promql.compile(expression).plan), labels(alert))


def feed(bench: Any, *series: str, stream: str = "engine", until: int = 60) -> None:
    """These series, with a sample every 10 s."""
    for second in range(0, until + 1, 10):
        bench.put(second, dict.fromkeys(series, 1.0 + second), stream)


@pytest.mark.parametrize(
    ("expression", "there", "expected"),
    [
        ("x > 5", ["x"], True),
        ("x > 5", ["y"], False),
        ("-x < 5", ["x"], True),
        ("x + 1 > 5", ["x"], True),
        ("x > bool 5", [], False),
        ("x unless y", ["x"], True),
        ("x unless y", ["y"], False),
        ("x and y", ["x", "y"], True),
        ("x and y", ["x"], False),
        ("x and y", ["y"], False),
        ("x / y > 5", ["x"], False),
        ("x / y > 5", ["x", "y"], True),
        ("x > y", ["y"], False),
        ("x or y", ["x"], True),
        ("x or y", ["y"], True),
        ("x or y", [], False),
        ("x > 5 or absent(x)", [], False),
        ("x > 5 or vector(1)", [], False),
        ("absent(x)", [], True),
        ("absent_over_time(x[5m])", [], True),
        ("x and absent(y)", ["x"], True),
        ("x and absent(y)", [], False),
        ("vector(1)", [], True),
        ("time() - x > 5", [], False),
        ("vector(time()) > 5", [], True),
        ("vector(scalar(x)) > 5", [], False),
        ("y > scalar(x)", ["y"], False),
        ("y > scalar(x)", ["x", "y"], True),
        ("timestamp(x) < time() - 60", [], False),
        ("timestamp(x) < time() - 60", ["x"], True),
        ("sum(x) > 5", ["x"], True),
        ("sum(x) > 5", ["y"], False),
        ("quantile(scalar(y), x) > 5", ["x"], False),
        ("quantile(scalar(y), x) > 5", ["x", "y"], True),
        ("topk(scalar(y), x) > 5", ["x"], False),
        ("topk(3, x) > 5", ["x"], True),
        ('count_values("value", x) > 5', ["x"], True),
        ("rate(x[1m]) > 5", ["x"], True),
        ("rate(x[1m]) > 5", [], False),
        ("max_over_time(x[1m]) > 5", ["x"], True),
        ("max_over_time(rate(x[1m])[5m:10s]) > 5", ["x"], True),
        ("max_over_time(rate(x[1m])[5m:10s]) > 5", ["y"], False),
        ("x offset 30s > 5", ["x"], True),
        ("x offset 10m > 5", ["x"], False),
        ("x @ 1700000030 > 5", ["x"], True),
        ("x @ 1600000000 > 5", ["x"], False),
        ("ALERTS > 5", [], True),
        ("x and ignoring (alertname, alertstate) ALERTS", ["x"], True),
        ("ALERTS_FOR_STATE > 5", [], True),
        ('{__name__=~"x|z"} > 5', ["x"], True),
        ('{__name__=~"z.*"} > 5', ["x"], False),
        ("(x > 5) * on () group_left () y", ["x"], False),
        ("histogram_quantile(0.9, x) > 5", ["x"], True),
        ("clamp(x, 0, scalar(y)) > 5", ["x"], False),
    ],
)
def test_what_is_needed_is_what_an_expression_cannot_be_judged_without(
    bench: Any, expression: str, there: list[str], expected: bool
) -> None:
    feed(bench, "other", *there)
    assert bears(bench, expression) is expected


@pytest.mark.parametrize(
    ("expression", "alert", "there", "expected"),
    [
        ("x > 5", '{a="1"}', ['x{a="1"}'], True),
        ("x > 5", '{a="1"}', ['x{a="2"}'], False),
        ("x > 5", '{a="1",b="1"}', ['x{a="1"}', 'x{b="2"}'], True),
        ("sum by (a) (x) > 5", '{a="1"}', ['x{a="1",b="1"}'], True),
        ("sum by (a) (x) > 5", '{a="1"}', ['x{a="2",b="1"}'], False),
        ("sum without (b) (x) > 5", '{a="1"}', ['x{a="1",b="1"}'], True),
        ("sum without (b) (x) > 5", '{a="1"}', ['x{a="2",b="1"}'], False),
        # below `by`, the alert's other labels say nothing of the series
        (
            "x * on (a) group_left () sum by (a) (y)",
            '{a="1",b="1"}',
            ['x{a="1",b="1"}', 'y{a="1",b="2"}'],
            True,
        ),
        ("x and on (a) y", '{a="1",b="1"}', ['x{a="1",b="1"}', 'y{a="1",b="2"}'], True),
        ("x and on (a) y", '{a="1",b="1"}', ['x{a="1",b="1"}', 'y{a="2",b="1"}'], False),
        ("x and y", '{a="1",b="1"}', ['x{a="1",b="1"}', 'y{a="1",b="2"}'], False),
        ("x and ignoring (b) y", '{a="1",b="1"}', ['x{a="1",b="1"}', 'y{a="1",b="2"}'], True),
        ("x > on (a) y", '{a="1"}', ['x{a="1",b="1"}', 'y{a="1",b="2"}'], True),
        ("x > ignoring (b) y", '{a="1"}', ['x{a="1",b="1"}', 'y{a="1",b="2"}'], True),
        # another reason for the same thing is data, too
        ("x * on (a) group_left (why) y", '{a="1",why="old"}', ['x{a="1"}', 'y{a="1",why="new"}'], True),
        ("y * on (a) group_right (why) x", '{a="1",why="old"}', ['x{a="1"}', 'y{a="1",why="new"}'], True),
        (
            "x * ignoring (b) group_left (why) y",
            '{a="1",b="1",why="old"}',
            ['x{a="1",b="1"}', 'y{a="1",why="new"}'],
            True,
        ),
        ("x * on (a) group_left (why) y", '{a="1",why="old"}', ['x{a="1"}', 'y{a="2",why="old"}'], False),
        ("x > 5 or on () y > 5", '{a="1"}', ['x{a="2"}', 'y{b="1"}'], True),
        ('label_replace(x, "a", "$1", "b", "(.*)") > 5', '{a="1",b="1"}', ['x{a="9",b="1"}'], True),
        ('label_replace(x, "a", "$1", "b", "(.*)") > 5', '{a="1",b="1"}', ['x{a="1",b="2"}'], False),
        ('label_join(x, "a", "-", "b") > 5', '{a="1",b="1"}', ['x{a="9",b="1"}'], True),
        ('count_values("a", x) > 0', '{a="1"}', ['x{a="9"}'], True),
        ("x > scalar(y)", '{a="1"}', ['x{a="1"}', 'y{a="2"}'], True),
        ("histogram_quantile(0.9, x) > 5", '{a="1"}', ['x{a="1",le="1.0"}'], True),
        ("topk by (b) (1, x) > 5", '{a="1",b="1"}', ['x{a="2",b="1"}'], False),
    ],
)
def test_series_count_that_agree_with_the_alert_in_the_labels_that_they_share(
    bench: Any, expression: str, alert: str, there: list[str], expected: bool
) -> None:
    feed(bench, *there)
    assert bears(bench, expression, alert) is expected


def test_a_series_that_ended_is_not_there_although_its_window_has_samples(bench: Any) -> None:
    feed(bench, "x")
    bench.head.stream("engine").end(T0 + 65_000)
    assert bears(bench, "rate(x[5m]) > 5", second=60)
    for expression in (
        "x > 5",
        "rate(x[5m]) > 5",
        "sum(max_over_time(x[1h])) > 5",
        "max_over_time(x[5m:]) > 5",
    ):
        assert not bears(bench, expression, second=70), expression


def test_what_no_rate_can_be_made_of_is_not_there_yet(bench: Any) -> None:
    bench.put(0, {"x": 1.0})
    assert not bears(bench, "rate(x[1m]) > 5", second=0)
    assert bears(bench, "max_over_time(x[1m]) > 5", second=0)
    bench.put(10, {"x": 2.0})
    assert bears(bench, "rate(x[1m]) > 5", second=10)
    assert not bears(bench, "rate(x[1m]) > 5", second=80)


def test_a_sample_within_a_long_window_that_is_older_than_the_lookback_is_not_there(bench: Any) -> None:
    bench.put(0, {"x": 1.0})
    assert bears(bench, "max_over_time(x[1h]) > 5", second=299)
    assert not bears(bench, "max_over_time(x[1h]) > 5", second=301)


def test_labels_that_the_rule_itself_sets_are_asked_of_no_series(bench: Any) -> None:
    feed(bench, 'x{severity="of the series"}')
    need = about(needs(promql.compile("x > 5").plan), ("severity", "alertname"))
    ground = Ground(bench.head, T0 + 60_000, 300_000)
    assert ground.bears(need, labels('{alertname="A",severity="warning"}'))
    assert not ground.bears(needs(promql.compile("x > 5").plan), labels('{severity="warning"}'))


def test_what_needs_nothing_is_nothing() -> None:
    assert needs(promql.compile("absent(x) or vector(1) > time()").plan) is NOTHING
    assert isinstance(needs(promql.compile("(x)").plan), Sample)


# --- recorded series


def test_a_recorded_series_stands_for_what_its_rule_reads(bench: Any) -> None:
    feed(bench, "recorded", stream="rule")
    recorders = {"recorded": [recording("sum(x) / sum(y)")]}
    assert not bears(bench, "recorded > 5", recorders=recorders)
    feed(bench, "x", "y")
    assert bears(bench, "recorded > 5", recorders=recorders)
    assert bears(bench, "avg_over_time(recorded[3d]) > 5", recorders=recorders)


def test_a_rule_that_finds_nothing_where_there_is_something_to_find_is_evidence(bench: Any) -> None:
    feed(bench, "x", "y")
    assert bears(bench, "recorded > 5", recorders={"recorded": [recording("x / (y > 1000)")]})


def test_a_recording_rule_that_fails_or_was_never_evaluated_is_none(bench: Any) -> None:
    feed(bench, "x", "recorded")
    assert not bears(bench, "recorded > 5", recorders={"recorded": [recording("x", works=False)]})


def test_the_labels_asked_for_are_asked_of_what_the_rule_reads(bench: Any) -> None:
    feed(bench, 'x{a="1",b="1"}')
    recorders = {"recorded": [recording("sum by (a) (x)")]}
    assert bears(bench, "recorded > 5", '{a="1"}', recorders=recorders)
    assert not bears(bench, "recorded > 5", '{a="2"}', recorders=recorders)
    assert bears(bench, 'sum(recorded{a="1"}) > 5', recorders=recorders)
    assert not bears(bench, 'sum(recorded{a="2"}) > 5', recorders=recorders)
    assert not bears(bench, 'sum(recorded{a=~"2|3"}) > 5', recorders=recorders)
    assert not bears(bench, 'recorded{a="1"} > 5', '{a="2"}', recorders=recorders)


def test_of_several_rules_that_record_a_name_the_ones_that_fit_count(bench: Any) -> None:
    feed(bench, "x")
    recorders = {"recorded": [recording("x", slo="one"), recording("y", slo="two")]}
    assert bears(bench, 'recorded{slo="one"} > 5', recorders=recorders)
    assert not bears(bench, 'recorded{slo="two"} > 5', recorders=recorders)
    assert not bears(bench, "recorded > 5", '{slo="two"}', recorders=recorders)
    assert bears(bench, "recorded > 5", recorders=recorders)
    assert not bears(bench, 'recorded{slo="three"} > 5', recorders=recorders)


def test_a_rule_that_reads_what_it_records_needs_the_series_themselves(bench: Any) -> None:
    recorders = {"recorded": [recording("recorded + x")]}
    feed(bench, "x")
    assert not bears(bench, "recorded > 5", recorders=recorders)
    feed(bench, "recorded", stream="rule")
    assert bears(bench, "recorded > 5", recorders=recorders)


# --- the engine's indicators


@pytest.mark.parametrize(
    ("up", "scraped", "expected"), [(1.0, 1.0, True), (0.0, 1.0, False), (1.0, 0.0, False), (0.0, 0.0, False)]
)
def test_an_indicator_stands_still_while_the_engine_is_away_and_is_no_evidence(
    bench: Any, up: float, scraped: float, expected: bool
) -> None:
    feed(bench, 'vllm_slo_requests_total{instance="i"}', 'nvidia_gpu_up{instance="i"}')
    seen = {
        'vllm_exporter_engine_up{instance="i"}': up,
        'vllm_exporter_scrape_success{instance="i"}': scraped,
    }
    bench.put(60, seen, "exporter")
    assert bears(bench, "rate(vllm_slo_requests_total[1m]) > 5", '{instance="i"}') is expected
    assert bears(bench, "sum(rate(vllm_slo_requests_total[1m])) > 5") is expected
    assert (
        bears(bench, "recorded > 5", recorders={"recorded": [recording("vllm_slo_requests_total")]})
        is expected
    )
    assert bears(bench, "nvidia_gpu_up == 0", '{instance="i"}')
    assert bears(bench, "vllm_exporter_engine_up == 1", '{instance="i"}')


def test_another_instances_engine_is_another_matter(bench: Any) -> None:
    feed(bench, 'vllm_slo_requests_total{instance="i"}')
    bench.put(60, {'vllm_exporter_engine_up{instance="other"}': 0.0}, "exporter")
    assert bears(bench, "vllm_slo_requests_total > 5", '{instance="i"}')


# --- what ships


def test_every_shipped_alert_but_the_watchdog_needs_something() -> None:
    groups, _ = read_groups((), builtin=True)
    rules = [rule for group in groups for rule in group.rules if rule.kind == "alerting"]
    assert len(rules) > 20
    free = {rule.name for rule in rules if needs(promql.compile(rule.expr).plan) is NOTHING}
    assert free == {"Watchdog"}


# --- what can be missed


def well(
    bench: Any,
    expression: str,
    alert: str = "",
    recorders: Mapping[str, Sequence[Recorder]] | None = None,
) -> bool:
    ground = Ground(bench.head, T0 + 60_000, 300_000, recorders)
    return ground.well(needs(promql.compile(expression).plan), labels(alert))


AT_A = 'instance="a",job="j"'


def test_a_source_is_well_where_its_target_has_other_series_of_that_name(bench: Any) -> None:
    feed(bench, f'temperature{{gpu="1",{AT_A}}}', 'temperature{gpu="0",instance="b",job="j"}', "other{}")
    assert well(bench, "temperature > 90", f'{{gpu="0",{AT_A}}}')
    assert well(bench, 'temperature{gpu="0"} > 90 and other', f'{{gpu="0",{AT_A}}}')
    assert well(bench, 'sum by (gpu) (temperature{gpu="0",instance="a"}) > 90', '{gpu="0"}')
    assert not well(bench, "temperature > 90", '{gpu="0",instance="c",job="j"}'), "another target's"
    assert not well(bench, 'temperature{instance="c"} > 90', '{gpu="0"}')
    assert not well(bench, "power > 90", f'{{gpu="0",{AT_A}}}')
    assert not well(bench, "temperature / power > 9", f'{{gpu="0",{AT_A}}}')
    assert not well(bench, '{gpu="0"} > 9', f'{{gpu="0",{AT_A}}}'), "a source that is not named"


def test_series_that_ended_do_not_speak_for_their_source(bench: Any) -> None:
    feed(bench, f'temperature{{gpu="1",{AT_A}}}', until=50)
    assert well(bench, "temperature > 90", f'{{gpu="0",{AT_A}}}')
    bench.head.stream("engine").end(T0 + 60_000)
    assert not well(bench, "temperature > 90", f'{{gpu="0",{AT_A}}}')


@pytest.mark.parametrize("up", [0, 1])
@pytest.mark.parametrize("page", [0, 1])
@pytest.mark.parametrize("name", ["vllm:waiting", "vllm_slo_requests"])
def test_the_engine_is_well_while_the_daemon_sees_it(bench: Any, name: str, up: int, page: int) -> None:
    bench.put(
        60,
        {f"vllm_exporter_engine_up{{{AT_A}}}": up, f"vllm_exporter_scrape_success{{{AT_A}}}": page},
        "exporter",
    )
    assert well(bench, f"{name} > 5", f'{{model_name="old",{AT_A}}}') is bool(up and page)
    assert well(bench, f"sum({name}) > 5") is bool(up and page)


def test_nobody_knows_of_an_engine_that_no_daemon_sees(bench: Any) -> None:
    feed(bench, "vllm:waiting")
    assert not well(bench, "vllm:waiting > 5", '{model_name="old"}')


def test_what_is_recorded_is_well_where_its_rule_works_and_what_that_reads_is(bench: Any) -> None:
    feed(bench, 'temperature{gpu="1"}')
    for expression, works, expected in [
        ("temperature", True, True),
        ("temperature", False, False),
        ("power", True, False),
    ]:
        rule = recording(f"max by (gpu) ({expression})", works=works, team="t")
        found = well(bench, "hottest > 90", '{gpu="0",team="t"}', {"hottest": [rule]})
        assert found is expected


def test_a_rule_that_reads_what_it_records_is_looked_up_once(bench: Any) -> None:
    need = needs(promql.compile("total + temperature").plan)
    feed(bench, 'temperature{gpu="1"}', 'total{gpu="1"}')
    assert well(bench, "total > 90", '{gpu="0"}', {"total": [Recording({}, need)]})
