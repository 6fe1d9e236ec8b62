"""Numbers that outlive the daemon: read with suspicion, never smaller than what is known."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from exporter.engine import carryover
from exporter.engine.carryover import Carried
from exporter.engine.metrics import EngineMetrics
from exporter.engine.verdict.hang import CanaryOutcome
from exporter.engine.verdict.restart import RestartHistory
from exporter.exposition.block import Block


def test_crash_times_move_to_the_clock_of_the_new_daemon() -> None:
    carried = Carried(crashes=(1_000_050.0, 1_000_020.0, 1_000_900.0), streak=2, never_ready=1)
    history = carried.history(clock_offset=1_000_000.0, now=100.0)
    assert history == RestartHistory((20.0, 50.0), streak=2, never_ready=1)


@pytest.mark.parametrize(
    "saved",
    [
        {"restarts": 5},
        {"restarts": {"hang": "x"}},
        {"generation": -1},
        {"counters": {"a": 1}},
        {"counters": {"a": {"b": float("nan")}}},
        {"crashes": [None]},
        {"mark": 5},
    ],
)
def test_saved_numbers_that_make_no_sense_start_over_with_one_warning(saved: dict[str, Any]) -> None:
    with structlog.testing.capture_logs() as logs:
        assert carryover.read(saved) == Carried()
    assert [entry["event"] for entry in logs] == ["engine_counts_not_restored"]


def test_of_two_counts_the_larger_one_is_the_later() -> None:
    assert carryover.at_least({"hang": 2, "killed": 1}, {"hang": 1, "exited": 4}) == {
        "hang": 2,
        "killed": 1,
        "exited": 4,
    }


def page(block: Block) -> str:
    return block.render(openmetrics=False).decode()


def test_every_counter_goes_on_where_the_last_daemon_left_it() -> None:
    first = EngineMetrics(Block(), supervised=True)
    first.crashed("out_of_memory")
    first.stalled("health")
    first.canary(CanaryOutcome.FAILED)
    first.incident("hang")
    first.log_lines("error", 7)
    first.log_dropped(3)
    first.log_skipped(4096)

    block = Block()
    second = EngineMetrics(block, supervised=True)
    second.restore(carryover.read({"counters": first.state()}).counters)
    second.log_lines("error", 1)
    second.incident("hang")
    text = page(block)
    assert 'engine_crashes_total{reason="out_of_memory"} 1\n' in text
    assert 'engine_stalls_total{signal="health"} 1\n' in text
    assert 'engine_canaries_total{outcome="failed"} 1\n' in text
    assert 'engine_incidents_total{reason="hang"} 2\n' in text
    assert 'engine_log_lines_total{level="error"} 8\n' in text
    assert "engine_log_lines_dropped_total 3\n" in text
    assert "engine_log_bytes_skipped_total 4096\n" in text
    assert second.state() != first.state()


def test_a_counter_is_not_restored_below_what_it_shows_and_strange_names_are_left_out() -> None:
    block = Block()
    metrics = EngineMetrics(block, supervised=True)
    metrics.crashed("killed")
    metrics.crashed("killed")
    metrics.restore(
        {
            "vllm_exporter_engine_crashes_total": {"killed": 1.0},
            "vllm_exporter_engine_up": {"": 9.0},
            "vllm_exporter_engine_restarts_total": {"killed": 9.0},
            "nonsense": {"": 1.0},
        }
    )
    text = page(block)
    assert 'engine_crashes_total{reason="killed"} 2\n' in text
    assert 'engine_restarts_total{reason="killed"} 0\n' in text
    assert "nonsense" not in text
    assert "engine_up 9" not in text
