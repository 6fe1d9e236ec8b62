from __future__ import annotations

import itertools

import pytest

from exporter.engine.states import ALIVE, TABLE, EngineState, Event, after

STATES = [state.value for state in EngineState]

# Written out by hand, so that a change of the contract is a change in two places.
CONTRACT = """
              start     load     serve  stall         crash    give_up  stop      gone
stopped       starting  -        -      -             -        failed   -         -
starting      -         loading  ready  -             backoff  failed   draining  stopped
loading       -         -        ready  -             backoff  failed   draining  stopped
ready         -         -        -      unresponsive  backoff  failed   draining  stopped
unresponsive  -         -        ready  -             backoff  failed   draining  stopped
draining      -         -        -      -             -        -        -         stopped
backoff       starting  -        -      -             -        failed   -         stopped
failed        -         -        -      -             -        -        -         stopped
"""


def cells() -> list[tuple[str, str, str]]:
    header, *rows = [line.split() for line in CONTRACT.strip().splitlines()]
    return [
        (row[0], event, row[0] if target == "-" else target)
        for row in rows
        for event, target in zip(header, row[1:], strict=True)
    ]


@pytest.mark.parametrize(("state", "event", "target"), cells())
def test_each_event_does_from_each_state_what_the_contract_says(state: str, event: str, target: str) -> None:
    assert after(EngineState(state), Event(event)) == target


def test_the_contract_has_a_cell_for_every_state_and_event() -> None:
    assert {(s, e) for s, e, _ in cells()} == set(itertools.product(STATES, [event.value for event in Event]))


def test_the_states_are_named_as_the_design_names_them() -> None:
    named = "starting, loading, ready, unresponsive, draining, stopped, backoff, failed"
    assert ", ".join(STATES) == named


def test_a_process_is_expected_in_every_state_that_can_crash_or_drain() -> None:
    assert {s for s in EngineState if Event.CRASH in TABLE[s]} | {EngineState.draining} == ALIVE


def test_nothing_but_the_end_leads_out_of_failed_and_draining() -> None:
    for state in (EngineState.failed, EngineState.draining):
        assert set(TABLE[state]) == {Event.GONE}
