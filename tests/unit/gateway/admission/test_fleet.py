from __future__ import annotations

import pytest

from exporter.gateway.admission.fleet import (
    SHUN_SECONDS,
    Backend,
    Fleet,
    Standing,
    least_outstanding,
    pickable,
    remaining,
)


def backend(name: str, *models: str, standing: Standing = Standing.READY, outstanding: int = 0) -> Backend:
    made = Backend(name, "127.0.0.1", 8001, models=models, standing=standing)
    made.outstanding = outstanding
    return made


def names(backends: tuple[Backend, ...]) -> list[str]:
    return [one.name for one in backends]


def test_models_are_known_by_name_and_others_are_nameless():
    fleet = Fleet([backend("a", "m", "n"), backend("b", "n")])
    assert fleet.known("m") == "m"
    assert fleet.known("other") == ""
    assert fleet.known(None) == "", "there are two"
    assert names(fleet.routes["n"].backends) == ["a", "b"]


def test_a_request_without_a_model_gets_the_only_one():
    fleet = Fleet([backend("a", "m"), backend("b", "m")])
    assert fleet.known(None) == "m"
    assert fleet.known("") == "m"


def test_the_models_of_an_engine_that_is_down_stay_known():
    fleet = Fleet([backend("a", "m"), backend("b", "n")])
    fleet.follow("a", standing=Standing.DOWN, now=1.0)
    assert fleet.known("m") == "m"
    assert fleet.routes["m"].open == ()
    fleet.follow("a", standing=Standing.READY, models=("other",), now=2.0)
    assert fleet.known("m") == ""
    assert fleet.known("other") == "other"


def test_a_route_is_the_same_object_for_as_long_as_its_model_is_listed():
    fleet = Fleet([backend("a", "m")])
    route = fleet.routes["m"]
    fleet.follow("a", standing=Standing.SHAKY, models=("m", "n"), now=1.0)
    assert fleet.routes["m"] is route
    fleet.follow("a", standing=Standing.READY, models=("n",), now=2.0)
    assert route.backends == route.open == ()


def test_only_the_soundest_are_open():
    ready, shaky = backend("r"), backend("s", standing=Standing.SHAKY)
    loading, down = backend("l", standing=Standing.LOADING), backend("d", standing=Standing.DOWN)
    assert pickable([ready, shaky, loading, down], 0.0) == (ready,)
    assert pickable([shaky, loading, down], 0.0) == (shaky,)
    assert pickable([loading, down], 0.0) == ()


def test_one_that_refused_a_connection_comes_last_but_is_there_when_nothing_else_is():
    ready, other = backend("r"), backend("o")
    ready.shunned_until = 10.0
    shaky = backend("s", standing=Standing.SHAKY)
    assert pickable([ready, other, shaky], 9.0) == (other,)
    assert pickable([ready, shaky], 9.0) == (shaky,)
    assert pickable([ready], 9.0) == (ready,)
    assert pickable([ready, shaky], 10.0) == (ready,)


def test_a_shunned_backend_returns_after_a_moment_or_when_it_becomes_ready_again():
    fleet = Fleet([backend("a", "m"), backend("b", "m")])
    changes: list[float] = []
    fleet.subscribe(changes.append)
    fleet.shun(fleet["a"], 100.0)
    assert names(fleet.routes["m"].open) == ["b"]
    fleet.tick(100.0 + SHUN_SECONDS - 0.1)
    assert names(fleet.routes["m"].open) == ["b"]
    fleet.tick(100.0 + SHUN_SECONDS)
    assert names(fleet.routes["m"].open) == ["a", "b"]
    fleet.shun(fleet["a"], 200.0)
    fleet.follow("a", standing=Standing.READY, now=200.5)
    assert names(fleet.routes["m"].open) == ["b"], "it was thought ready all along"
    fleet.follow("a", standing=Standing.DOWN, now=201.0)
    fleet.follow("a", standing=Standing.READY, now=202.0)
    assert names(fleet.routes["m"].open) == ["a", "b"]
    assert changes == [100.0, 105.0, 200.0, 200.5, 201.0, 202.0]


def test_the_only_engine_is_never_shunned():
    fleet = Fleet([backend("a", "m")])
    fleet.shun(fleet["a"], 100.0)
    assert names(fleet.routes["m"].open) == ["a"]
    assert fleet["a"].shunned_until < 100.0


def test_the_least_work_wins_and_of_equals_the_one_picked_longest_ago():
    a, b, c = backend("a", outstanding=2), backend("b", outstanding=1), backend("c", outstanding=1)
    b.picked, c.picked = 7, 5
    assert least_outstanding([a, b, c], 10) is c
    assert least_outstanding([a, b, c], 1) is None
    assert least_outstanding([a, b, c], 2) is c
    assert least_outstanding([], 10) is None


def test_one_engine_is_where_everything_goes_that_names_a_model_it_does_not_list():
    fleet = Fleet([backend("a", "m")])
    assert fleet.route("", named=True) is fleet.everyone
    assert names(fleet.everyone.backends) == ["a"]


def test_replicas_of_one_list_take_requests_without_a_model():
    fleet = Fleet([backend("a", "m", "n"), backend("b", "n", "m")])
    assert fleet.route("", named=True) is fleet.everyone


def test_with_different_models_an_unknown_one_may_only_be_served_by_an_engine_that_has_not_said_what_it_serves():
    fleet = Fleet([backend("a", "m"), backend("b", standing=Standing.LOADING)])
    assert names(fleet.route("", named=True).backends) == ["b"]
    assert names(fleet.route("", named=False).backends) == ["a", "b"]
    fleet.follow("b", standing=Standing.READY, models=("n",), now=1.0)
    assert fleet.route("", named=True).backends == ()


def test_an_engines_address_may_move():
    fleet = Fleet([backend("a", "m")])
    fleet.follow("a", standing=Standing.READY, address=("::1", 9000), now=1.0)
    assert (fleet["a"].host, fleet["a"].port) == ("::1", 9000)


@pytest.mark.parametrize(
    ("elapsed", "ratio", "last", "expected"),
    [
        (10.0, None, None, None),
        (10.0, None, 60.0, 50.0),
        (10.0, 0.5, 60.0, 50.0),
        (70.0, 0.5, 60.0, 70.0),
        (10.0, 0.25, None, 30.0),
        (10.0, 0.001, None, None),
        (10.0, 1.0, None, None),
        (0.0, 0.5, None, None),
    ],
)
def test_the_rest_of_a_load_is_told_from_the_last_one_or_from_the_weights(
    elapsed: float, ratio: float | None, last: float | None, expected: float | None
):
    assert remaining(elapsed, ratio, last) == expected


def test_how_long_an_engine_took_to_load_is_remembered():
    fleet = Fleet([Backend("a", "127.0.0.1", 8001)])
    fleet.follow("a", standing=Standing.LOADING, now=100.0)
    fleet.follow("a", standing=Standing.LOADING, load_ratio=0.5, now=120.0)
    assert fleet["a"].remaining_load_seconds(120.0) == pytest.approx(20.0)
    fleet.follow("a", standing=Standing.READY, models=("m",), now=150.0)
    assert fleet["a"].remaining_load_seconds(150.0) is None
    fleet.follow("a", standing=Standing.DOWN, now=200.0)
    fleet.follow("a", standing=Standing.LOADING, now=210.0)
    assert fleet["a"].remaining_load_seconds(220.0) == pytest.approx(40.0)


def test_a_load_that_failed_says_nothing_about_the_next():
    fleet = Fleet([Backend("a", "127.0.0.1", 8001)])
    fleet.follow("a", standing=Standing.LOADING, now=100.0)
    fleet.follow("a", standing=Standing.DOWN, now=101.0)
    fleet.follow("a", standing=Standing.LOADING, now=110.0)
    assert fleet["a"].remaining_load_seconds(111.0) is None


@pytest.mark.parametrize("backends", [[], [backend("a"), backend("a")]])
def test_a_fleet_has_backends_of_different_names(backends: list[Backend]):
    with pytest.raises(ValueError, match="backends"):
        Fleet(backends)


def test_a_backend_shows_no_secret():
    from pydantic import SecretStr

    assert "sk-secret" not in repr(Backend("a", "127.0.0.1", 1, api_key=SecretStr("sk-secret")))
