"""The figures of a report, read from what the shipped rules record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from exporter.alerting.rulefile import load_rule_file
from exporter.notify.report import reading
from exporter.notify.report.reading import read
from exporter.promql.model import Budget, QueryError
from exporter.storage.head import Head, Layout
from exporter.storage.retention import Retention

DAY = 86_400
END = 1_795_251_600
START = END - DAY
ID = {"sloth_id": "vllm-ttft", "sloth_service": "vllm", "sloth_slo": "ttft"}
MODEL = {**ID, "job": "vllm", "model_name": "m", "source": "engine"}


def head_with(*series: tuple[dict[str, str], Sequence[tuple[float, float]]]) -> Head:
    head = Head(retention=Retention(40 * DAY * 1000), memory_limit=1 << 28)
    for number, (labels, samples) in enumerate(series):
        layout = Layout([tuple(sorted(labels.items()))])
        stream = head.stream(f"rules-{number}")
        for at, value in samples:
            stream.append(round(at * 1000), layout, np.array([value]))
    return head


def every(seconds: int, value: float, *, start: float = START, end: float = END) -> list[tuple[float, float]]:
    return [(float(at), value) for at in range(int(start) + seconds, int(end) + 1, seconds)]


def figures(head: Head, samples: int = 10_000_000):
    return read(head, START, END, Budget(samples=samples, timeout=30.0))


def events(bad: list[tuple[float, float]], total: list[tuple[float, float]], labels: dict[str, str]):
    return (
        ({"__name__": "slo:sli_error:events_rate5m", **labels}, bad),
        ({"__name__": "slo:sli_total:events_rate5m", **labels}, total),
    )


def test_achieved_budget_and_worst_hours_come_from_the_recorded_events():
    bad = [(at, 5.0 if START + 7200 < at <= START + 10800 else 0.01) for at, _ in every(60, 0.0)]
    head = head_with(
        ({"__name__": "slo:objective:ratio", **ID}, every(120, 0.95)),
        ({"__name__": "slo:period_error_budget_remaining:ratio", **MODEL}, every(120, 0.42)),
        *events(bad, every(60, 10.0), MODEL),
    )
    found = figures(head)
    [objective] = found.objectives
    assert (objective.service, objective.name, objective.target) == ("vllm", "ttft", 0.95)
    assert objective.labels == {"job": "vllm", "model_name": "m", "source": "engine"}
    assert objective.error_ratio == pytest.approx((23 * 0.01 + 5) / 24 / 10)
    assert not objective.missed
    assert objective.budget_left == pytest.approx(0.42)
    [hour] = objective.worst
    assert hour.start == START + 7200
    assert hour.error_ratio == pytest.approx(0.5)
    assert found.since == START + 120


def test_an_objective_that_nobody_asked_anything_of_has_no_ratio():
    head = head_with(
        ({"__name__": "slo:objective:ratio", **ID}, every(120, 0.95)),
        *events(every(60, 0.0), every(60, 0.0), MODEL),
    )
    [objective] = figures(head).objectives
    assert objective.error_ratio is None
    assert not objective.missed


def test_an_objective_that_knows_only_a_ratio_is_judged_by_its_mean():
    ratio = {"__name__": "slo:sli_error:ratio_rate5m", "sloth_window": "5m", **MODEL}
    head = head_with(
        ({"__name__": "slo:objective:ratio", **ID}, every(120, 0.95)),
        (ratio, [(at, 0.2 if at > END - 3600 else 0.0) for at, _ in every(60, 0.0)]),
    )
    [objective] = figures(head).objectives
    assert objective.error_ratio == pytest.approx(0.2 / 24)
    assert [hour.start for hour in objective.worst] == [END - 3600]


def test_what_was_before_the_period_does_not_count():
    before = every(60, 10.0, start=START - DAY, end=START)
    head = head_with(
        ({"__name__": "slo:objective:ratio", **ID}, every(120, 0.95)),
        *events(before + every(60, 0.0), every(60, 10.0, start=START - DAY), MODEL),
    )
    [objective] = figures(head).objectives
    assert objective.error_ratio == 0


def restarts(reason: str, samples: list[tuple[float, float]]):
    return ({"__name__": "instance:vllm_engine_restarts:last", "instance": "a", "reason": reason}, samples)


def test_restarts_are_counted_exactly_also_the_first_of_a_reason():
    middle = START + DAY // 2
    head = head_with(
        restarts("hang", every(120, 4.0, start=START - DAY, end=middle) + every(120, 6.0, start=middle)),
        restarts("cuda_error", every(120, 1.0, start=middle)),
        restarts("killed", every(120, 2.0, start=START - DAY)),
    )
    assert figures(head).restarts == {"cuda_error": 1, "hang": 2}


def test_restarts_that_nobody_recorded_are_unknown_and_totals_that_began_anew_count_from_nothing():
    assert figures(head_with()).restarts is None
    head = head_with(restarts("hang", every(120, 9.0, start=START - DAY, end=START) + every(120, 2.0)))
    assert figures(head).restarts == {"hang": 2}


def test_a_daemon_that_was_off_when_the_period_began_counts_from_what_it_knew_before():
    head = head_with(
        restarts(
            "hang",
            every(120, 7.0, start=START - DAY, end=START - 7200) + every(120, 8.0, start=START + 7200),
        )
    )
    assert figures(head).restarts == {"hang": 1}


def rising(step: float, *, start: float = START - 3600) -> list[tuple[float, float]]:
    return [(at, 1e6 + place * step) for place, (at, _) in enumerate(every(120, 0.0, start=start))]


def test_requests_tokens_and_energy_are_increases():
    requests = {"__name__": "model:vllm_requests:last", "model_name": "m", "outcome": "success"}
    energy = {"__name__": "gpu:nvidia_energy_joules:last", "gpu": "0"}
    head = head_with(
        (requests, rising(10)),
        ({**requests, "model_name": "n"}, rising(2)),
        ({"__name__": "model:vllm_output_tokens:last", "model_name": "m"}, rising(1000)),
        (energy, rising(36_000)),
        ({**energy, "gpu": "1"}, rising(12_000)),
    )
    found = figures(head)
    assert found.requests == {"success": 720 * 12}
    assert found.output_tokens == pytest.approx(720_000)
    assert found.energy_joules == pytest.approx(400 * DAY)


def test_an_empty_store_gives_an_empty_report():
    found = figures(head_with())
    assert (found.objectives, found.since, found.requests, found.energy_joules) == ((), None, {}, None)


def test_the_shipped_rules_record_what_a_report_reads():
    """Nothing else is kept for a week."""
    recorded = {
        rule.name
        for file in (Path(__file__).parents[4] / "rules").glob("*.rules.yml")
        for group in load_rule_file(file)
        for rule in group.rules
        if rule.kind == "recording"
    }
    expressions = [
        value for name, value in vars(reading).items() if name.isupper() and isinstance(value, str)
    ]
    read_names = {name for text in expressions for name in re.findall(r"\w+:[\w:]+(?=\[)", text)}
    assert sum("[" in text for text in expressions) == 10
    assert len(read_names) == 9, sorted(read_names)
    assert read_names <= recorded


def test_a_report_may_not_cost_more_than_its_budget():
    head = head_with(
        ({"__name__": "slo:objective:ratio", **ID}, every(120, 0.95)),
        *events(every(60, 0.0), every(60, 10.0), MODEL),
    )
    with pytest.raises(QueryError):
        figures(head, samples=10)
