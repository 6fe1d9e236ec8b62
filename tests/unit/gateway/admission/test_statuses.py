from __future__ import annotations

import pytest

from exporter.engine.states import EngineState
from exporter.engine.status import EngineStatus
from exporter.gateway.admission.fleet import Standing
from exporter.gateway.admission.statuses import seen


def status(state: EngineState, **known: object) -> EngineStatus:
    return EngineStatus(mode="supervised", base_url="http://127.0.0.1:8001", state=state, **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "standing"),
    [
        (EngineState.starting, Standing.LOADING),
        (EngineState.loading, Standing.LOADING),
        (EngineState.ready, Standing.READY),
        (EngineState.unresponsive, Standing.SHAKY),
        (EngineState.draining, Standing.DRAINING),
        (EngineState.stopped, Standing.DOWN),
        (EngineState.backoff, Standing.DOWN),
        (EngineState.failed, Standing.FAILED),
    ],
)
def test_each_state_has_its_standing(state: EngineState, standing: Standing):
    assert seen(status(state)).standing is standing


@pytest.mark.parametrize("state", EngineState)
def test_what_was_asked_to_stop_gets_nothing_new_whatever_its_state(state: EngineState):
    expected = Standing.FAILED if state is EngineState.failed else Standing.DRAINING
    assert seen(status(state, asked_to_stop=True)).standing is expected


@pytest.mark.parametrize("state", EngineState)
def test_how_far_it_has_loaded_is_told_only_of_one_that_loads(state: EngineState):
    told = seen(status(state, load_stage="weights", load_ratio=0.4))
    if state in (EngineState.starting, EngineState.loading):
        assert (told.load_stage, told.load_ratio) == ("weights", 0.4)
    else:
        assert (told.load_stage, told.load_ratio) == (None, None)


def test_before_the_output_names_a_stage_the_state_does():
    assert seen(status(EngineState.starting)).load_stage == "starting"


def test_its_models_are_those_that_it_lists():
    assert seen(status(EngineState.ready, models=("m", "n"))).models == frozenset({"m", "n"})
