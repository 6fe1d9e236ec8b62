from __future__ import annotations

import pytest
import structlog

from exporter.engine.board import StatusBoard
from exporter.engine.metrics import FAMILIES, EngineMetrics
from exporter.engine.output.diagnosis import Failure
from exporter.engine.states import ATTACHED_TABLE, EngineState, Event
from exporter.engine.status import EngineStatus
from exporter.exposition.block import Block


class Shown:
    """A board, and what it shows."""

    def __init__(self, *, supervised: bool = True) -> None:
        self.block = Block()
        self.metrics = EngineMetrics(self.block, supervised=supervised)
        mode = "supervised" if supervised else "attached"
        table = {} if supervised else {"table": ATTACHED_TABLE}
        status = EngineStatus(mode, "http://127.0.0.1:8000")  # type: ignore[arg-type]
        self.board = StatusBoard(status, self.metrics, **table)
        self.told: list[EngineStatus] = []
        self.board.subscribe(self.told.append)

    @property
    def lines(self) -> list[str]:
        text = self.block.render(openmetrics=False).decode()
        prefix = "vllm_exporter_engine_"
        return [line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)]


@pytest.fixture
def shown() -> Shown:
    return Shown()


def test_a_change_of_state_is_logged_told_and_shown_once(shown: Shown) -> None:
    with structlog.testing.capture_logs() as logs:
        assert shown.board.move(Event.START, {"pid": 7}, command="vllm serve x")
        assert not shown.board.move(Event.START)
    assert logs == [
        {"event": "engine_starting", "log_level": "info", "was": "stopped", "command": "vllm serve x"}
    ]
    assert [(status.state, status.pid) for status in shown.told] == [(EngineState.starting, 7)]
    assert 'state{state="starting"} 1' in shown.lines
    assert 'state{state="stopped"} 0' in shown.lines


def test_an_event_that_the_contract_ignores_changes_nothing_at_all(shown: Shown) -> None:
    before = shown.board.status
    assert not shown.board.move(Event.SERVE, {"models": ("x",)})
    assert shown.board.status is before
    assert shown.told == []


def test_an_update_within_a_state_is_told_but_not_logged(shown: Shown) -> None:
    with structlog.testing.capture_logs() as logs:
        shown.board.update(generation=3)
        shown.board.update(generation=3)
    assert logs == []
    assert [status.generation for status in shown.told] == [3]


@pytest.mark.parametrize(
    ("events", "level"),
    [
        ([Event.START, Event.SERVE, Event.STALL], "warning"),
        ([Event.START, Event.CRASH], "warning"),
        ([Event.START, Event.GIVE_UP], "error"),
    ],
)
def test_trouble_is_logged_louder_than_progress(shown: Shown, events: list[Event], level: str) -> None:
    with structlog.testing.capture_logs() as logs:
        for event in events:
            shown.board.move(event)
    assert logs[-1]["log_level"] == level


def test_progress_of_loading_is_shown_until_ready_and_absent_afterwards(shown: Shown) -> None:
    shown.board.move(Event.START, {"started_at": 100.0})
    shown.board.move(Event.LOAD, {"load_stage": "loading_weights", "load_ratio": 0.5})
    assert "load_progress_ratio 0.5" in shown.lines
    assert 'load_stage{stage="loading_weights"} 1' in shown.lines
    assert 'load_stage{stage="compiling"} 0' in shown.lines
    assert "up 0" in shown.lines
    shown.board.move(Event.SERVE, {"ready_since": 130.0})
    assert not [line for line in shown.lines if line.startswith(("load_progress", "load_stage"))]
    assert "load_duration_seconds 30" in shown.lines
    assert "up 1" in shown.lines


def test_only_the_last_failure_is_shown(shown: Shown) -> None:
    shown.board.move(Event.START)
    shown.board.move(Event.CRASH, {"last_failure": Failure("hang", "", "", True)})
    shown.board.update(last_failure=Failure("killed", "", "", True))
    assert [line for line in shown.lines if line.startswith("last_failure")] == [
        'last_failure_info{reason="killed"} 1'
    ]


def test_restarts_are_shown_by_reason_and_the_common_ones_from_zero(shown: Shown) -> None:
    assert 'restarts_total{reason="hang"} 0' in shown.lines
    shown.board.update(restarts={"hang": 2, "nccl_error": 1})
    assert 'restarts_total{reason="hang"} 2' in shown.lines
    assert 'restarts_total{reason="nccl_error"} 1' in shown.lines


def test_an_attached_engine_shows_no_restarts_and_no_generation() -> None:
    shown = Shown(supervised=False)
    assert not [line for line in shown.lines if line.startswith(("restarts", "crashes", "generation"))]
    assert 'info{mode="attached"} 1' in shown.lines


def test_down_time_is_the_users_loss_once_the_engine_was_ready_and_until_we_stop_it(shown: Shown) -> None:
    shown.board.move(Event.START)
    assert not shown.board.status.expected_up
    shown.board.move(Event.SERVE, {"was_ready": True})
    assert shown.board.status.expected_up
    shown.board.move(Event.CRASH)
    assert shown.board.status.expected_up
    assert not shown.board.status.serving
    shown.board.move(Event.GONE, {"asked_to_stop": True})
    assert not shown.board.status.expected_up


def test_no_family_is_declared_twice_and_each_says_what_it_is() -> None:
    names = [family.name for family in FAMILIES]
    assert len(set(names)) == len(names)
    assert all(family.help.endswith(".") for family in FAMILIES)
