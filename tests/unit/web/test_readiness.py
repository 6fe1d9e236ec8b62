from __future__ import annotations

import json

import pytest

from exporter.engine.output.diagnosis import Failure
from exporter.engine.states import EngineState
from exporter.engine.status import EngineStatus
from exporter.web.landing import landing_page
from exporter.web.readiness import readiness

FAILURE = Failure("unknown_flag", "vllm: unrecognized arguments: --frob", "remove <--frob>", False)


def status(state: EngineState, **changes: object) -> EngineStatus:
    return EngineStatus(
        mode="supervised", base_url="http://127.0.0.1:8000", state=state, since=100.0, **changes
    )  # type: ignore[arg-type]


def test_only_a_ready_engine_is_ready() -> None:
    answers = {state: readiness(status(state), now=101.5, details=True) for state in EngineState}
    assert [state for state, answer in answers.items() if answer.ready] == [EngineState.ready]
    assert {answer.code for state, answer in answers.items() if state != EngineState.ready} == {503}
    assert len({answer.line for answer in answers.values()}) == len(EngineState)
    assert answers[EngineState.ready].body["state_age_seconds"] == 1.5


def test_a_loading_engine_says_how_far_it_is() -> None:
    answer = readiness(
        status(EngineState.loading, load_stage="weights", load_ratio=0.456), now=101, details=True
    )
    assert answer.line == "loading: the engine is loading its model (stage weights, 46%)"
    assert answer.body["load"] == {"stage": "weights", "ratio": 0.456}


def test_a_failed_engine_says_why_and_what_to_change() -> None:
    answer = readiness(status(EngineState.failed, last_failure=FAILURE), now=101, details=True)
    assert "unknown_flag: vllm: unrecognized arguments: --frob: remove <--frob>" in answer.line
    assert answer.body["failure"]["advice"] == "remove <--frob>"
    json.dumps(answer.body)


def test_without_the_token_no_message_and_no_model_name_is_shown() -> None:
    answer = readiness(
        status(EngineState.failed, last_failure=FAILURE, models=("secret/model",)), now=101, details=False
    )
    assert "frob" not in answer.line
    assert answer.body["failure"] == {"reason": "unknown_flag"}
    assert "models" not in answer.body


@pytest.mark.parametrize("state", list(EngineState))
def test_the_landing_page_shows_the_state_and_escapes_what_comes_from_outside(state: EngineState) -> None:
    answer = readiness(status(state, last_failure=FAILURE), now=101, details=True)
    page = landing_page(answer)
    assert f"<strong>{state}</strong>" in page
    assert "<--frob>" not in page
    assert 'href="/metrics"' in page
