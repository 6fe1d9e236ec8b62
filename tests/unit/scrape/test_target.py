"""What an engine's state means for a scrape."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import SecretStr

from exporter.engine.states import EngineState
from exporter.engine.status import EngineStatus
from exporter.scrape.target import EngineTarget


class FakeEngine:
    """An engine that only has a status."""

    def __init__(self, status: EngineStatus) -> None:
        self.status = status


def target(mode: str, state: str, **more: object) -> EngineTarget:
    status = EngineStatus(mode, "http://127.0.0.1:8000", EngineState(state), **more)  # type: ignore[arg-type]
    return EngineTarget(FakeEngine(status), SecretStr("k"))  # type: ignore[arg-type]


@pytest.mark.parametrize("state", list(EngineState))
def test_a_supervised_engine_is_asked_only_when_it_may_answer(state: EngineState):
    assert target("supervised", state).scrapable == (state in ("ready", "unresponsive", "draining"))


@pytest.mark.parametrize("state", list(EngineState))
def test_somebody_elses_engine_is_always_asked(state: EngineState):
    assert target("attached", state).scrapable


def test_an_adopted_engine_that_was_ready_is_asked_at_once_and_not_called_down():
    adopted = target("adopted", "starting", ready_since=1.0, was_ready=True)
    assert adopted.scrapable
    assert not adopted.down


def test_an_engine_is_down_when_it_was_ready_and_does_not_serve_unless_it_was_asked_to_stop():
    assert target("supervised", "backoff", was_ready=True).down
    assert target("supervised", "loading", was_ready=True).down
    assert not target("supervised", "loading").down
    assert not target("supervised", "ready", was_ready=True).down
    assert not target("supervised", "draining", was_ready=True, asked_to_stop=True).down


def test_the_key_goes_into_the_request():
    assert target("attached", "ready").headers == {"Authorization": "Bearer k"}
    assert str(target("attached", "ready").metrics_url) == "http://127.0.0.1:8000/metrics"


def test_an_engine_that_listens_elsewhere_is_asked_there():
    asked = target("supervised", "ready")
    before = asked.metrics_url
    assert asked.metrics_url is before
    asked._engine.status = replace(asked._engine.status, base_url="http://127.0.0.1:45678")  # type: ignore[misc]
    assert str(asked.metrics_url) == "http://127.0.0.1:45678/metrics"
