from __future__ import annotations

import json

import pytest

from exporter.engine.output.diagnosis import Failure
from exporter.engine.states import EngineState
from exporter.engine.status import EngineStatus
from exporter.web.landing import landing_page
from exporter.web.readiness import EngineGroup, readiness

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


def group(served: dict[str, tuple[str, ...]], **states: EngineState) -> EngineGroup:
    statuses = {
        name: status(state, models=served[name] if state is EngineState.ready else ())
        for name, state in states.items()
    }
    return EngineGroup(statuses, {name: frozenset(models) for name, models in served.items()})


REPLICAS = {"a1": ("alpha",), "a2": ("alpha",), "b": ("beta",)}
S = EngineState


def test_several_engines_are_ready_while_every_model_has_a_replica_that_is() -> None:
    whole = readiness(group(REPLICAS, a1=S.ready, a2=S.ready, b=S.ready), now=101, details=True)
    assert (whole.code, whole.line) == (200, "ready: 3 of 3 engines are ready")
    one_down = readiness(group(REPLICAS, a1=S.backoff, a2=S.ready, b=S.ready), now=101, details=True)
    assert one_down.code == 200
    assert one_down.line.startswith(
        "degraded: 2 of 3 engines are ready; every model has one; a1: backoff: the engine ended"
    )
    lone_down = readiness(group(REPLICAS, a1=S.ready, a2=S.ready, b=S.loading), now=101, details=True)
    assert lone_down.code == 503
    assert lone_down.line.startswith("loading: 2 of 3 engines are ready; without one: beta; b: loading:")
    assert (lone_down.body["engines_ready"], lone_down.body["engines_total"]) == (2, 3)
    assert lone_down.body["engines"]["a1"]["models"] == ["alpha"]


def test_an_engine_of_which_nobody_knows_what_it_serves_has_no_replica() -> None:
    unknown = {"a": ("alpha",), "new": ()}
    answer = readiness(group(unknown, a=S.ready, new=S.starting), now=101, details=True)
    assert answer.code == 503
    assert "without one: the engine new" in answer.line


def test_names_of_engines_and_models_are_details() -> None:
    answer = readiness(group(REPLICAS, a1=S.ready, a2=S.failed, b=S.failed), now=101, details=False)
    assert answer.line == "failed: 1 of 3 engines are ready; some model has none"
    assert not {"engines", "models"} & answer.body.keys()


def test_the_landing_page_has_a_line_for_each_of_several_engines() -> None:
    answer = readiness(group({"a": ("alpha",), "b": ()}, a=S.ready, b=S.failed), now=101, details=True)
    page = landing_page(answer)
    assert "Engines: <strong>failed</strong>" in page
    assert "<li>a: <strong>ready</strong>, the engine is ready</li>" in page
    assert "<li>b: <strong>failed</strong>," in page
    assert "<li>a:" not in landing_page(readiness(status(S.ready), now=101, details=True))
