from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from exporter.gateway.admission.fleet import SHUN_SECONDS, Backend, Fleet, Standing
from exporter.gateway.admission.gate import Gate
from exporter.gateway.keys.key import Key
from exporter.gateway.model import Dialect, Endpoint, Exchange, Outcome, Priority, Refusal
from exporter.settings.gateway import GatewaySettings

CHAT = Endpoint("/v1/chat/completions", Dialect.CHAT, frozenset({"POST"}))
AUDIO = Endpoint("/v1/audio/transcriptions", Dialect.OPAQUE, frozenset({"POST"}))
HEALTH = Endpoint("/health", Dialect.OPAQUE, frozenset({"GET"}), counted=False)
READY, LOADING, DOWN = Standing.READY, Standing.LOADING, Standing.DOWN


class Timer:
    def cancel(self) -> None:
        pass


class Setting:
    """A gate with a clock and a loop of the test's own. `engines`: name -> models."""

    def __init__(
        self, engines: dict[str, tuple[str, ...]] | None = None, standing: Standing = READY, **settings: Any
    ) -> None:
        self.now = 1000.0
        self.turns: list[Callable[[], None]] = []
        self.answers: dict[str, Backend | Refusal] = {}
        self.fleet = Fleet(
            Backend(name, "127.0.0.1", 8001 + i, models=models, standing=standing)
            for i, (name, models) in enumerate((engines or {"a": ("m",)}).items())
        )
        self.gate = Gate(GatewaySettings(**settings), self.fleet, later=self._later, clock=lambda: self.now)

    def _later(self, delay: float, callback: Callable[[], None]) -> Timer:
        self.turns.append(callback)
        return Timer()

    def turn(self) -> None:
        turns, self.turns = self.turns, []
        for turn in turns:
            turn()

    def request(
        self,
        name: str = "r",
        model: str | None = "m",
        *,
        endpoint: Endpoint = CHAT,
        priority: Priority | None = None,
        client: str = "10.0.0.1",
    ) -> Exchange:
        exchange = Exchange(endpoint, "POST", name, client, self.now)
        exchange.asked_priority = priority
        exchange.model = self.fleet.known(model)
        return exchange

    def enter(
        self, exchange: Exchange, key: Key | None = None, asked: str | None = "m"
    ) -> Backend | Refusal | None:
        def wake(answer: Backend | Refusal) -> None:
            assert exchange.request_id not in self.answers
            self.answers[exchange.request_id] = answer

        return self.gate.enter(exchange, key, wake, asked)

    def follow(self, name: str, standing: Standing, *models: str, **more: Any) -> None:
        self.fleet.follow(name, standing=standing, models=models, now=self.now, **more)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.gate.tick(self.now)
        self.turn()


def refusal_of(answer: object) -> Refusal:
    assert isinstance(answer, Refusal)
    return answer


# Room, and the queue


def test_a_request_goes_on_at_once_where_there_is_room():
    here = Setting()
    request = here.request()
    backend = here.enter(request)
    assert isinstance(backend, Backend) and backend.outstanding == 1 == here.gate.running
    here.gate.leave(request, backend)
    assert here.gate.running == 0


def test_replicas_share_the_work_and_take_turns():
    here = Setting({"a": ("m",), "b": ("m",), "c": ("m",)})
    given = []
    for _ in range(6):
        request = here.request()
        backend = here.enter(request)
        assert isinstance(backend, Backend)
        given.append(backend.name)
        here.gate.leave(request, backend)
    assert given == ["a", "b", "c"] * 2
    for _ in range(6):
        here.enter(here.request())
    assert [backend.outstanding for backend in here.fleet.backends] == [2, 2, 2]


def test_at_the_bound_requests_wait_and_are_woken_interactive_first_in_order_of_arrival():
    here = Setting(max_concurrent=1)
    first = here.request("first")
    backend = here.enter(first)
    assert isinstance(backend, Backend)
    waiting = [("b1", Priority.BATCH), ("i1", None), ("b2", Priority.BATCH), ("i2", Priority.INTERACTIVE)]
    requests = {name: here.request(name, priority=priority) for name, priority in waiting}
    for request in requests.values():
        assert here.enter(request) is None
    assert here.gate.queued == 4
    order: list[str] = []
    leaving = first
    while len(order) < 4:
        here.gate.leave(leaving, backend)
        assert backend.outstanding == 1, "the place is taken before anybody is woken"
        assert len(here.answers) == len(order)
        here.turn()
        (woken,) = here.answers.keys() - set(order)
        assert here.answers[woken] is backend
        order.append(woken)
        leaving = requests[woken]
    assert order == ["i1", "i2", "b1", "b2"]
    here.gate.leave(leaving, backend)
    assert here.gate.running == here.gate.queued == 0


def test_whoever_comes_when_a_place_is_promised_does_not_overtake():
    here = Setting(max_concurrent=1)
    first, second, third = here.request("1"), here.request("2"), here.request("3")
    backend = here.enter(first)
    assert isinstance(backend, Backend)
    assert here.enter(second) is None
    here.gate.leave(first, backend)
    assert here.enter(third) is None, "the place is the second one's"
    here.turn()
    assert here.answers == {"2": backend}


def test_a_client_that_left_when_its_place_was_promised_hands_it_to_the_next():
    here = Setting(max_concurrent=1)
    first, second, third = here.request("1"), here.request("2"), here.request("3")
    backend = here.enter(first)
    assert isinstance(backend, Backend)
    here.enter(second)
    here.enter(third)
    here.gate.leave(first, backend)
    here.gate.withdraw(second)
    here.turn()
    assert here.answers == {"3": backend}
    here.gate.leave(third, backend)
    assert backend.outstanding == 0


def test_one_whose_waking_fails_keeps_nobody_else_asleep():
    here = Setting(max_concurrent=2)
    running = [here.request("1"), here.request("2")]
    backends = [here.enter(request) for request in running]

    def broken(answer: object) -> None:
        raise RuntimeError("a fault of the relay")

    assert here.gate.enter(here.request("3"), None, broken) is None
    assert here.enter(here.request("4")) is None
    for request, backend in zip(running, backends, strict=True):
        assert isinstance(backend, Backend)
        here.gate.leave(request, backend)
    with pytest.raises(RuntimeError):
        here.turn()
    here.turn()
    assert set(here.answers) == {"4"}


def test_a_full_queue_refuses_with_429_and_the_time_that_its_pace_suggests():
    here = Setting(max_concurrent=1, max_queued=2)
    running = here.request("0")
    backend = here.enter(running)
    assert isinstance(backend, Backend)
    requests = [here.request(str(i)) for i in range(1, 30)]
    assert here.enter(requests[0]) is None and here.enter(requests[1]) is None
    full = refusal_of(here.enter(requests[2]))
    assert (full.status, full.kind, full.code) == (429, "rate_limit_error", "queue_full")
    assert full.outcome is Outcome.REJECTED
    assert full.retry_after == 5.0, "nothing is known yet"
    here.gate.tick(here.now)
    leaving = running
    for i in range(20):  # one each four seconds
        here.now += 4.0
        here.gate.leave(leaving, backend)
        here.gate.tick(here.now)
        here.turn()
        leaving = requests[i if i < 2 else i + 1]
        assert here.enter(requests[i + 3]) is None
    full = refusal_of(here.enter(here.request("late")))
    assert full.retry_after == pytest.approx(8.0)
    assert "8s" in full.message


def test_who_waited_for_too_long_gets_503():
    here = Setting(max_concurrent=1, queue_timeout=10.0)
    running = here.request("0")
    here.enter(running)
    assert here.enter(here.request("1")) is None
    here.pass_time(9.9)
    assert not here.answers
    here.pass_time(0.1)
    late = refusal_of(here.answers["1"])
    assert (late.status, late.kind, late.code) == (503, "service_unavailable", "queue_timeout")
    assert late.outcome is Outcome.REJECTED and late.retry_after == 5.0
    assert here.gate.queued == 0


def test_no_queue_means_no_wait():
    here = Setting(max_concurrent=1, max_queued=0)
    here.enter(here.request())
    assert refusal_of(here.enter(here.request())).code == "queue_full"


def test_what_is_not_counted_passes_the_bound_by_and_takes_no_place():
    here = Setting(max_concurrent=1)
    user, health = here.request(), here.request(endpoint=HEALTH)
    backend = here.enter(user)
    assert isinstance(backend, Backend)
    assert here.enter(health, asked=None) is backend
    assert (backend.outstanding, backend.passing, here.gate.running) == (1, 1, 2)
    here.gate.leave(health, backend)
    here.gate.leave(user, backend)
    assert here.gate.running == 0


def test_the_wait_of_one_model_is_not_the_wait_of_another():
    here = Setting({"a": ("m",), "b": ("n",)}, max_concurrent=1)
    here.enter(here.request("1"))
    assert here.enter(here.request("2")) is None
    assert isinstance(here.enter(here.request("3", "n"), asked="n"), Backend)


# Engines that are not ready


def test_while_the_engine_loads_the_answer_says_how_far_it_is_and_when_to_come_back():
    here = Setting(standing=DOWN)
    here.follow("a", LOADING)
    here.now += 30.0
    here.follow("a", LOADING, load_stage="weights", load_ratio=0.25)
    loading = refusal_of(here.enter(here.request()))
    assert (loading.status, loading.kind, loading.code) == (503, "service_unavailable", "engine_loading")
    assert loading.outcome is Outcome.REJECTED
    assert loading.retry_after == pytest.approx(90.0)
    assert (
        loading.message
        == "The engine is loading its model (stage weights, 25% of the weights). Please try again in 90s."
    )


def test_a_load_of_which_nothing_is_known_is_tried_again_in_5_seconds():
    here = Setting(standing=LOADING)
    loading = refusal_of(here.enter(here.request()))
    assert loading.retry_after == 5.0
    assert loading.message == "The engine is loading its model. Please try again in 5s."


@pytest.mark.parametrize(
    ("standing", "code", "outcome"),
    [
        (Standing.DOWN, "engine_down", Outcome.ENGINE_UNREACHABLE),
        (Standing.FAILED, "engine_failed", Outcome.ENGINE_UNREACHABLE),
        (Standing.DRAINING, "engine_draining", Outcome.REJECTED),
    ],
)
def test_an_engine_that_is_not_there_is_a_503_by_its_cause(standing: Standing, code: str, outcome: Outcome):
    here = Setting(standing=standing)
    for endpoint in (CHAT, AUDIO, HEALTH):
        refusal = refusal_of(here.enter(here.request(endpoint=endpoint), asked=None))
        assert (refusal.status, refusal.kind, refusal.code) == (503, "service_unavailable", code)
        assert refusal.outcome is outcome and refusal.retry_after


def test_the_most_hopeful_replica_says_why():
    here = Setting({"a": ("m",), "b": ("m",)}, standing=Standing.FAILED)
    here.follow("b", LOADING)
    assert refusal_of(here.enter(here.request())).code == "engine_loading"


def test_an_engine_that_does_not_answer_is_used_only_where_nothing_else_is():
    here = Setting({"a": ("m",), "b": ("m",)}, max_concurrent=1)
    here.follow("a", Standing.SHAKY)
    backend = here.enter(here.request("1"))
    assert isinstance(backend, Backend) and backend.name == "b"
    assert here.enter(here.request("2")) is None, "it waits for the sound one"
    here.follow("b", DOWN)
    here.turn()
    answer = here.answers["2"]
    assert isinstance(answer, Backend) and answer.name == "a"


def test_a_request_is_held_while_the_engine_loads_and_let_in_when_it_is_ready():
    here = Setting(standing=LOADING, hold_timeout=30.0)
    request = here.request()
    assert here.enter(request) is None
    here.pass_time(29.0)
    assert not here.answers
    here.follow("a", READY, "m")
    assert not here.answers, "not from within"
    here.turn()
    assert here.answers["r"] is here.fleet["a"]


def test_a_held_request_is_told_of_the_load_when_it_was_held_for_long_enough():
    here = Setting(standing=LOADING, hold_timeout=30.0)
    assert here.enter(here.request()) is None
    here.pass_time(30.0)
    assert refusal_of(here.answers["r"]).code == "engine_loading"


def test_a_request_is_held_over_a_restart_too():
    here = Setting(standing=DOWN, hold_timeout=30.0)
    assert here.enter(here.request()) is None
    here.pass_time(5.0)
    here.follow("a", LOADING)
    here.pass_time(5.0)
    here.follow("a", READY)
    here.turn()
    assert here.answers["r"] is here.fleet["a"]


@pytest.mark.parametrize("standing", [Standing.FAILED, Standing.DRAINING])
def test_nobody_is_held_for_an_engine_that_will_not_come(standing: Standing):
    here = Setting(standing=LOADING, hold_timeout=30.0)
    assert here.enter(here.request("held")) is None
    here.follow("a", standing)
    here.turn()
    assert refusal_of(here.answers["held"]).status == 503
    assert refusal_of(here.enter(here.request("new"))).status == 503


def test_the_held_that_find_no_room_have_the_queues_time_from_then_on():
    here = Setting(standing=LOADING, hold_timeout=300.0, queue_timeout=10.0, max_concurrent=1)
    for name in ("1", "2"):
        assert here.enter(here.request(name)) is None
    here.pass_time(200.0)
    here.follow("a", READY)
    here.pass_time(9.0)
    assert set(here.answers) == {"1"}
    here.pass_time(1.0)
    assert refusal_of(here.answers["2"]).code == "queue_timeout"


def test_an_engine_that_comes_and_goes_keeps_nobody_for_longer_than_both_timeouts():
    here = Setting(standing=LOADING, hold_timeout=30.0, queue_timeout=20.0, max_concurrent=1)
    here.follow("a", READY)
    here.enter(here.request("running"))
    assert here.enter(here.request("waiting")) is None
    began = here.now
    for _ in range(30):
        if here.answers:
            break
        here.follow("a", LOADING)
        here.pass_time(2.5)
        here.follow("a", READY)
        here.pass_time(2.5)
    assert here.now - began == 50.0


def test_those_that_wait_are_told_at_once_when_the_engine_goes_and_nobody_is_held():
    here = Setting(max_concurrent=1)
    here.enter(here.request("running"))
    here.enter(here.request("waiting"))
    here.follow("a", DOWN)
    here.turn()
    assert refusal_of(here.answers["waiting"]).code == "engine_down"


def test_a_held_request_counts_as_queued():
    here = Setting(standing=LOADING, hold_timeout=30.0, max_queued=1)
    assert here.enter(here.request("1")) is None
    assert refusal_of(here.enter(here.request("2"))).code == "engine_loading"


# Models


def test_one_engine_gets_requests_for_models_it_does_not_list_and_answers_itself():
    here = Setting()
    request = here.request(model="unheard of")
    assert request.model == ""
    assert here.enter(request, asked="unheard of") is here.fleet["a"]


def test_with_several_engines_an_unknown_model_is_not_found_in_openais_words():
    here = Setting({"a": ("m",), "b": ("n",)})
    missing = refusal_of(here.enter(here.request(model="gpt-x"), asked="gpt-x"))
    assert (missing.status, missing.kind, missing.code) == (404, "invalid_request_error", "model_not_found")
    assert missing.message == "The model `gpt-x` does not exist or you do not have access to it."
    assert missing.outcome is Outcome.CLIENT_ERROR and missing.retry_after is None


def test_with_several_models_a_request_has_to_name_one_where_its_kind_does():
    here = Setting({"a": ("m",), "b": ("n",)})
    assert refusal_of(here.enter(here.request(model=None), asked=None)).code == "model_missing"
    assert isinstance(here.enter(here.request(model=None, endpoint=AUDIO), asked=None), Backend)


def test_a_model_that_an_engine_turns_out_to_serve_is_waited_for():
    here = Setting({"a": ("m",), "b": ()}, standing=READY, hold_timeout=60.0)
    here.follow("b", LOADING)
    request, wrong = here.request("right", "n"), here.request("wrong", "x")
    assert here.enter(request, asked="n") is None
    assert here.enter(wrong, asked="x") is None
    here.follow("b", READY, "n")
    here.turn()
    assert here.answers["right"] is here.fleet["b"]
    assert request.model == "n", "its series has a name now"
    assert refusal_of(here.answers["wrong"]).code == "model_not_found"


def test_who_waits_for_a_model_that_is_no_longer_served_is_told():
    here = Setting({"a": ("m",), "b": ("n",)}, max_concurrent=1)
    here.enter(here.request("1"))
    assert here.enter(here.request("2")) is None
    here.follow("a", READY, "other")
    here.turn()
    assert refusal_of(here.answers["2"]).code == "model_not_found"


def test_the_only_engine_is_asked_for_a_model_that_it_does_not_list_any_more():
    here = Setting(max_concurrent=1)
    first, second, third = here.request("1"), here.request("2"), here.request("3", "unheard of")
    backend = here.enter(first)
    assert isinstance(backend, Backend)
    assert here.enter(second) is None
    assert here.enter(third, asked="unheard of") is None
    here.follow("a", READY, "other")
    here.turn()
    assert not here.answers
    here.gate.leave(first, backend)
    here.turn()
    assert here.answers == {"2": backend}, "in the order of arrival"


def test_a_key_may_use_its_models_only_and_does_not_learn_of_others():
    here = Setting({"a": ("m", "secret")})
    key = Key("k", models=frozenset({"m", "adapter"}))
    assert isinstance(here.enter(here.request(), key), Backend)
    for name in ("secret", "unheard of"):
        refusal = refusal_of(here.enter(here.request(model=name), key, name))
        assert (refusal.status, refusal.code) == (404, "model_not_found")
        assert name in refusal.message
    assert isinstance(here.enter(here.request(model="adapter"), key, "adapter"), Backend), "not listed yet"


def test_a_key_with_models_sends_nothing_whose_model_cannot_be_told():
    here = Setting({"a": ("m", "secret")})
    key = Key("k", models=frozenset({"m"}))
    assert refusal_of(here.enter(here.request(model=None), key, None)).code == "model_missing"
    upload = here.request(model=None, endpoint=AUDIO)
    assert refusal_of(here.enter(upload, key, None)).status == 403
    everything = Key("k", models=frozenset({"m", "secret"}))
    assert isinstance(here.enter(here.request(model=None, endpoint=AUDIO), everything, None), Backend)


# Limits


def test_a_key_has_its_requests_per_minute_and_is_told_when_to_come_back():
    here = Setting()
    key = Key("k", requests_per_minute=2)
    for _ in range(2):
        assert isinstance(here.enter(here.request(), key), Backend)
    limited = refusal_of(here.enter(here.request(), key))
    assert (limited.status, limited.kind, limited.code) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert limited.outcome is Outcome.CLIENT_ERROR
    assert limited.retry_after == pytest.approx(30.0)
    assert limited.message == (
        "Rate limit reached for your API key on requests per min (RPM): Limit 2. Please try again in 30s."
    )
    here.now += 30.0
    assert isinstance(here.enter(here.request(), key), Backend)
    assert isinstance(here.enter(here.request(), Key("other", requests_per_minute=2)), Backend)


def test_the_time_told_is_enough_when_it_is_rounded_up():
    here = Setting()
    key = Key("k", requests_per_minute=7)
    for _ in range(7):
        here.enter(here.request(), key)
    limited = refusal_of(here.enter(here.request(), key))
    assert limited.retry_after is not None
    here.now += math.ceil(limited.retry_after)
    assert isinstance(here.enter(here.request(), key), Backend)


def test_tokens_are_charged_when_they_are_known_and_the_debt_is_waited_for():
    here = Setting()
    key = Key("k", tokens_per_minute=600)
    request = here.request()
    backend = here.enter(request, key)
    assert isinstance(backend, Backend)
    assert request.key == "k"
    request.input_tokens, request.output_tokens = 700, 500
    here.gate.leave(request, backend)
    limited = refusal_of(here.enter(here.request(), key))
    assert limited.retry_after == pytest.approx(60.1)
    assert "tokens per min (TPM): Limit 600" in limited.message
    here.now += 61.0
    assert isinstance(here.enter(here.request(), key), Backend)


def test_a_reply_whose_end_nobody_saw_costs_the_tokens_that_were_seen():
    here = Setting(tokens_per_minute=600)
    request = here.request()
    backend = here.enter(request)
    assert isinstance(backend, Backend)
    request.tokens_seen = 1200
    here.gate.leave(request, backend)
    limited = refusal_of(here.enter(here.request()))
    assert limited.retry_after == pytest.approx(60.1)
    assert "your address" in limited.message
    assert isinstance(here.enter(here.request(client="10.0.0.2")), Backend)


def test_a_model_has_its_limit_over_all_clients():
    here = Setting({"a": ("m", "n")}, model_requests_per_minute={"m": 1}, model_tokens_per_minute={"n": 60})
    assert isinstance(here.enter(here.request()), Backend)
    limited = refusal_of(here.enter(here.request(client="10.0.0.2"), Key("k")))
    assert (limited.status, limited.code) == (429, "model_rate_limit_exceeded")
    assert limited.outcome is Outcome.CLIENT_ERROR
    assert limited.retry_after == pytest.approx(60.0)
    request = here.request(model="n")
    backend = here.enter(request, asked="n")
    assert isinstance(backend, Backend)
    request.output_tokens = 120
    here.gate.leave(request, backend)
    limited = refusal_of(here.enter(here.request(model="n", client="10.0.0.3"), asked="n"))
    assert "the model `n` on tokens per min" in limited.message


def test_what_is_turned_away_costs_nothing_of_the_limits():
    here = Setting(standing=LOADING, requests_per_minute=1)
    for _ in range(5):
        assert refusal_of(here.enter(here.request())).code == "engine_loading"
    here.follow("a", READY)
    assert isinstance(here.enter(here.request()), Backend)
    assert refusal_of(here.enter(here.request())).code == "rate_limit_exceeded"


def test_health_is_not_limited():
    here = Setting(requests_per_minute=1)
    for _ in range(3):
        assert isinstance(here.enter(here.request(endpoint=HEALTH), asked=None), Backend)


# Another replica


def test_a_connection_that_failed_goes_to_another_replica_and_nobody_is_sent_there_for_a_moment():
    here = Setting({"a": ("m",), "b": ("m",)})
    request = here.request()
    failed = here.enter(request)
    assert isinstance(failed, Backend) and failed.name == "a"
    other = here.gate.another(request, failed)
    assert isinstance(other, Backend) and other.name == "b"
    here.gate.leave(request, failed)
    assert [backend.outstanding for backend in here.fleet.backends] == [0, 1]
    for _ in range(3):
        backend = here.enter(here.request())
        assert isinstance(backend, Backend) and backend.name == "b"
    here.pass_time(SHUN_SECONDS)
    backend = here.enter(here.request())
    assert isinstance(backend, Backend) and backend.name == "a"


def test_each_replica_is_tried_once():
    here = Setting({"a": ("m",), "b": ("m",), "c": ("m",)})
    request = here.request()
    backend = here.enter(request)
    tried = []
    while isinstance(backend, Backend):
        tried.append(backend.name)
        here.now += 2 * SHUN_SECONDS  # each connection took its time to fail
        following = here.gate.another(request, backend)
        here.gate.leave(request, backend)
        backend = following
    assert sorted(tried) == ["a", "b", "c"] == sorted(request.tried)
    assert backend is not None
    assert (backend.status, backend.code) == (502, "engine_unreachable")
    assert backend.outcome is Outcome.ENGINE_UNREACHABLE
    assert here.gate.running == 0


def test_the_only_engine_has_no_other():
    here = Setting()
    request = here.request()
    backend = here.enter(request)
    assert isinstance(backend, Backend)
    assert refusal_of(here.gate.another(request, backend)).status == 502
    here.gate.leave(request, backend)
    assert isinstance(here.enter(here.request()), Backend), "it is tried again by the next"


def test_another_replica_serves_the_same_model_and_has_room():
    here = Setting({"a": ("m",), "b": ("n",), "c": ("m",)}, max_concurrent=1)
    request = here.request("1")
    backend = here.enter(request)
    assert isinstance(backend, Backend) and backend.name == "a"
    second = here.enter(here.request("2"))
    assert isinstance(second, Backend) and second.name == "c"
    assert refusal_of(here.gate.another(request, backend)).status == 502


# The daemon's end


def test_while_draining_nothing_new_comes_in_those_that_wait_are_told_and_those_that_run_go_on():
    here = Setting({"a": ("m",), "b": ("m",)}, max_concurrent=1)
    running, waiting = here.request("running"), here.request("waiting")
    backend = here.enter(running)
    assert isinstance(backend, Backend)
    assert isinstance(here.enter(here.request("other")), Backend)
    assert here.enter(waiting) is None
    here.gate.draining = True
    here.turn()
    assert refusal_of(here.answers["waiting"]).code == "gateway_draining"
    for endpoint in (CHAT, HEALTH):
        refusal = refusal_of(here.enter(here.request(endpoint=endpoint)))
        assert (refusal.status, refusal.outcome, refusal.retry_after) == (503, Outcome.REJECTED, 5.0)
    assert here.gate.running == 2
    here.gate.leave(running, backend)
    assert here.gate.running == 1
    here.gate.draining = False
    assert isinstance(here.enter(here.request("new")), Backend)
