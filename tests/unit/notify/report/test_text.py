"""What reports say."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from exporter.notify.report.figures import Figures, Hour, Objective, worst_hours
from exporter.notify.report.text import percent, words

SHANGHAI = ZoneInfo("Asia/Shanghai")
END = datetime(2026, 11, 21, 9, tzinfo=SHANGHAI).timestamp()
START = END - 86400


def local(at: float) -> datetime:
    return datetime.fromtimestamp(at, SHANGHAI)


def test_a_report_says_objective_achieved_budget_worst_hours_restarts_and_energy():
    labels = {"job": "vllm", "model_name": "Qwen/Qwen3-8B", "source": "engine"}
    figures = Figures(
        START,
        END,
        since=START,
        objectives=(
            Objective("vllm", "availability", {"job": "vllm"}, 0.99, 0.0, 1.0),
            Objective(
                "vllm",
                "ttft-1s",
                labels,
                0.95,
                0.081,
                -0.2,
                (Hour(END - 7200, 0.5, 90), Hour(END - 3600, 0.3, 40)),
            ),
        ),
        restarts={"hang": 1, "killed": 2},
        requests={"success": 12345, "aborted": 6},
        output_tokens=2_000_000,
        energy_joules=9_000_000,
    )
    said = words(figures, "daily", local)
    assert said.summary == "Daily SLO report to Sat 21 Nov 2026: 1 of 2 objectives missed"
    assert said.description.splitlines() == [
        "Fri 20 Nov 09:00 to Sat 21 Nov 09:00",
        "Engine restarts: 3 (hang 1, killed 2)",
        "Requests: 12,351 (success 12,345, aborted 6)",
        "Energy: 2.50 kWh for 2,000,000 output tokens, 4.5 J each",
        "ttft-1s (Qwen/Qwen3-8B): 91.9% good, objective 95%, MISSED; error budget overspent by 20%",
        "  worst hours: 07:00 to 08:00 (50% bad), 08:00 to 09:00 (30% bad)",
        "availability: 100% good, objective 99%, met; error budget left 100%",
    ]


def test_a_weekly_report_names_the_days_of_its_worst_hours():
    objective = Objective("vllm", "ttft-1s", {}, 0.95, 0.02, 0.6, (Hour(END - 86400, 0.5, 90),))
    said = words(Figures(END - 7 * 86400, END, objectives=(objective,)), "weekly", local)
    assert said.summary == "Weekly SLO report to Sat 21 Nov 2026: the objective was met"
    assert "  worst hours: Fri 09:00 to 10:00 (50% bad)" in said.description.splitlines()


def test_a_report_without_records_says_so():
    said = words(Figures(START, END), "daily", local)
    assert said.summary.endswith(": nothing to judge by")
    assert said.description.splitlines() == [
        "Fri 20 Nov 09:00 to Sat 21 Nov 09:00",
        "No objectives are recorded: their rules are off, or have not run yet.",
    ]


def test_an_objective_without_events_is_neither_met_nor_missed():
    objective = Objective("vllm", "requests", {"model_name": "m"}, 0.99, None, 0.4)
    said = words(Figures(START, END, objectives=(objective,)), "daily", local)
    assert said.summary.endswith(": nothing to judge by")
    assert "requests (m): no events, objective 99%; error budget left 40%" in said.description


def test_records_that_begin_later_than_the_period_are_said_to():
    said = words(Figures(START, END, since=START + 6 * 3600), "daily", local)
    assert (
        said.description.splitlines()[0]
        == "Fri 20 Nov 09:00 to Sat 21 Nov 09:00, records since Fri 20 Nov 15:00"
    )


def test_objectives_of_one_name_are_told_apart_by_what_differs():
    objectives = [
        Objective("vllm", "ttft", {"job": job, "model_name": "m", "source": "engine"}, 0.99, 0.0)
        for job in ("a", "b")
    ]
    said = words(Figures(START, END, objectives=objectives), "daily", local).description
    assert "ttft (a, m): " in said
    assert "ttft (b, m): " in said


def test_services_are_named_where_there_are_several():
    objectives = [Objective(service, "requests", {}, 0.99, 0.0) for service in ("vllm", "shop")]
    said = words(Figures(START, END, objectives=objectives), "daily", local).description
    assert "vllm requests: 100% good" in said
    assert "shop requests: 100% good" in said


def test_no_restarts_are_worth_a_line_and_unknown_ones_are_not():
    assert "Engine restarts: 0" in words(Figures(START, END, restarts={}), "daily", local).description
    assert "restarts" not in words(Figures(START, END), "daily", local).description


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [
        (1.0, "100%"),
        (0.98999, "98.99%"),
        (0.999, "99.9%"),
        (0.95, "95%"),
        (0.0, "0%"),
        (0.5, "50%"),
        (1.2, "120%"),
    ],
)
def test_percentages_are_rounded_down(ratio: float, shown: str):
    assert percent(ratio) == shown


def test_the_worst_hours_are_those_that_cost_most_in_the_order_of_time():
    night = Hour(0, 0.5, 1)
    hours = [night, Hour(3600, 0.2, 200), Hour(7200, 0.01, 900), Hour(10800, 0.3, 100), Hour(14400, 0.1, 300)]
    assert [hour.start for hour in worst_hours(hours, 0.95)] == [3600, 10800, 14400]
    assert worst_hours([Hour(0, 0.05, 10)], 0.95) == ()


def test_a_very_long_report_is_counted_at_its_end():
    objectives = [Objective("vllm", "requests", {"model_name": f"m{n:02}"}, 0.99, 0.0) for n in range(40)]
    lines = words(Figures(START, END, objectives=objectives), "daily", local).description.splitlines()
    assert len(lines) == 32
    assert lines[-1] == "And 10 objectives more."
