"""Whatever comes in whatever order: nobody is forgotten, nobody is let in twice, nobody overtakes, no engine gets too much."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from exporter.gateway.admission.fleet import Backend, Fleet, Standing
from exporter.gateway.admission.gate import Gate
from exporter.gateway.admission.queue import Waiter
from exporter.gateway.keys.key import Key
from exporter.gateway.model import Dialect, Endpoint, Exchange, Priority, Refusal
from exporter.settings.gateway import GatewaySettings

CHAT = Endpoint("/v1/chat/completions", Dialect.CHAT, frozenset({"POST"}))
AUDIO = Endpoint("/v1/audio/transcriptions", Dialect.OPAQUE, frozenset({"POST"}))
HEALTH = Endpoint("/health", Dialect.OPAQUE, frozenset({"GET"}), counted=False)

QUEUE_TIMEOUT = 5.0
KEYS = (
    None,
    Key("limited", requests_per_minute=20, tokens_per_minute=500),
    Key("night", priority=Priority.BATCH),
)
STANDINGS = st.sampled_from([*Standing, *[Standing.READY] * 6, *[Standing.LOADING] * 2])
SERVED = st.sampled_from([(), ("m",), ("m", "n"), ("n",)])


class Timer:
    def cancel(self) -> None:
        raise AssertionError("nothing is ever cancelled")


class Seat:
    """One request as its client's connection sees it."""

    def __init__(self, exchange: Exchange, began: float, number: int, reaction: str) -> None:
        self.exchange = exchange
        self.began = began
        self.number = number
        self.reaction = reaction
        self.backend: Backend | None = None
        self.waits = False
        self.withdrawn = False
        self.woken = 0


class GateMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.turns: list[Callable[[], None]] = []
        self.seats: list[Seat] = []
        self.numbers = 0
        self.given = 0
        self.left = 0
        self.looked_at: set[Waiter] = set()
        self.waited_before: set[Waiter] = set()

    @initialize(
        served=st.lists(st.tuples(SERVED, STANDINGS), min_size=1, max_size=3),
        bound=st.integers(1, 3),
        max_queued=st.sampled_from([20, 0, 3, 20]),
        hold=st.sampled_from([7.0, 0.0]),
        requests_per_minute=st.sampled_from([0, 0, 30]),
    )
    def open_gate(
        self,
        served: list[tuple[tuple[str, ...], Standing]],
        bound: int,
        max_queued: int,
        hold: float,
        requests_per_minute: int,
    ) -> None:
        self.bound = bound
        self.max_queued = max_queued
        self.longest = QUEUE_TIMEOUT + hold
        self.fleet = Fleet(
            Backend(f"e{i}", "127.0.0.1", 8001 + i, models=models, standing=standing)
            for i, (models, standing) in enumerate(served)
        )
        self.gate = Gate(
            GatewaySettings(
                max_concurrent=bound,
                max_queued=max_queued,
                queue_timeout=QUEUE_TIMEOUT,
                hold_timeout=hold,
                requests_per_minute=requests_per_minute,
            ),
            self.fleet,
            later=self.later,
            clock=lambda: self.now,
        )

    def later(self, delay: float, callback: Callable[[], None]) -> Timer:
        assert delay == 0.0
        self.turns.append(callback)
        return Timer()

    # What clients and the relay do

    @rule(
        endpoint=st.sampled_from([CHAT, CHAT, CHAT, AUDIO, HEALTH]),
        model=st.sampled_from(["m", "m", "n", "other", None]),
        asked=st.sampled_from([None, Priority.BATCH, Priority.INTERACTIVE]),
        key=st.sampled_from(KEYS),
        reaction=st.sampled_from(["stay", "stay", "leave", "fail", "enter"]),
    )
    def enter(
        self, endpoint: Endpoint, model: str | None, asked: Priority | None, key: Key | None, reaction: str
    ) -> None:
        self.come(endpoint, model if endpoint is CHAT else None, asked, key, reaction)

    @rule(
        models=st.lists(st.sampled_from(["m", "m", "n", "other"]), min_size=3, max_size=6),
        asked=st.lists(st.sampled_from([None, Priority.BATCH]), min_size=6, max_size=6),
        reaction=st.sampled_from(["stay", "stay", "leave", "fail"]),
    )
    def many_enter(self, models: list[str], asked: list[Priority | None], reaction: str) -> None:
        for model, priority in zip(models, asked, strict=False):
            self.come(CHAT, model, priority, None, reaction)

    def come(
        self, endpoint: Endpoint, model: str | None, asked: Priority | None, key: Key | None, reaction: str
    ) -> None:
        self.numbers += 1
        exchange = Exchange(endpoint, "POST", f"r{self.numbers}", f"10.0.0.{self.numbers % 3}", self.now)
        exchange.asked_priority = asked
        exchange.model = self.fleet.known(model)
        seat = Seat(exchange, self.now, self.numbers, reaction)
        full_before = self.gate.queued >= self.max_queued
        woken_before = sum(seat.woken for seat in self.seats)
        answer = self.gate.enter(exchange, key, lambda answer: self.wake(seat, answer), model)
        assert sum(seat.woken for seat in self.seats) == woken_before, "nobody is woken from within enter"
        if answer is None:
            assert not full_before
            assert endpoint.counted
            seat.waits = True
            self.seats.append(seat)
        elif isinstance(answer, Backend):
            self.seated(seat, answer)
        else:
            assert (answer.retry_after is not None) == (answer.status in (429, 503))

    def seated(self, seat: Seat, backend: Backend) -> None:
        assert backend.standing in (Standing.READY, Standing.SHAKY)
        self.given += 1
        seat.backend = backend
        if seat not in self.seats:
            self.seats.append(seat)

    def wake(self, seat: Seat, answer: Backend | Refusal) -> None:
        assert seat.waits and not seat.withdrawn, "who withdrew is left alone"
        seat.woken += 1
        assert seat.woken == 1, "woken once"
        seat.waits = False
        if isinstance(answer, Refusal):
            assert answer.status in (400, 404, 503)
            return
        self.given += 1
        seat.backend = answer
        if seat.reaction == "leave":
            self.go(seat)
        elif seat.reaction == "fail":
            self.try_another(seat)
        elif seat.reaction == "enter":
            self.come(CHAT, "m", None, None, "stay")

    def seated_ones(self) -> list[Seat]:
        return [seat for seat in self.seats if seat.backend is not None]

    def go(self, seat: Seat) -> None:
        assert seat.backend is not None
        backend, seat.backend = seat.backend, None
        self.left += 1
        self.gate.leave(seat.exchange, backend)

    @precondition(lambda self: self.seated_ones())
    @rule(which=st.integers(0, 100), tokens=st.sampled_from([None, 3, 400]))
    def leave(self, which: int, tokens: int | None) -> None:
        seats = self.seated_ones()
        seat = seats[which % len(seats)]
        seat.exchange.output_tokens = tokens
        self.go(seat)

    @precondition(lambda self: self.seated_ones())
    @rule(which=st.integers(0, 100))
    def connection_fails(self, which: int) -> None:
        seats = self.seated_ones()
        self.try_another(seats[which % len(seats)])

    def try_another(self, seat: Seat) -> None:
        failed = seat.backend
        assert failed is not None
        answer = self.gate.another(seat.exchange, failed)
        self.go(seat)
        if isinstance(answer, Backend):
            assert answer is not failed
            assert answer.name not in seat.exchange.tried
            self.seated(seat, answer)
        else:
            assert answer.status == 502

    @precondition(lambda self: any(seat.waits for seat in self.seats))
    @rule(which=st.integers(0, 100))
    def client_leaves_while_it_waits(self, which: int) -> None:
        seats = [seat for seat in self.seats if seat.waits]
        seat = seats[which % len(seats)]
        seat.waits = False
        seat.withdrawn = True
        self.gate.withdraw(seat.exchange)
        self.gate.withdraw(seat.exchange)  # once more does nothing

    # What happens around them

    @rule(which=st.integers(0, 2), standing=STANDINGS, models=SERVED)
    def engine_changes(self, which: int, standing: Standing, models: tuple[str, ...]) -> None:
        name = self.fleet.backends[which % len(self.fleet.backends)].name
        self.fleet.follow(name, standing=standing, models=models, now=self.now)

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.5, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.gate.tick(self.now)

    @rule()
    def loop_turns(self) -> None:
        turns, self.turns = self.turns, []
        for turn in turns:
            turn()

    @rule(draining=st.sampled_from([False, False, True]))
    def drains(self, draining: bool) -> None:
        self.gate.draining = draining
        if draining:
            assert self.gate.queued == 0

    # What always holds

    @invariant()
    def each_backend_has_what_it_was_given_and_no_more_than_its_bound(self) -> None:
        promised = [
            waiter.answer for waiter in self.gate._waiters.values() if isinstance(waiter.answer, Backend)
        ]
        for backend in self.fleet.backends:
            here = [seat for seat in self.seated_ones() if seat.backend is backend]
            counted = sum(seat.exchange.endpoint.counted for seat in here) + promised.count(backend)
            assert backend.outstanding == counted <= self.bound
            assert backend.passing == sum(not seat.exchange.endpoint.counted for seat in here)
        assert self.gate.queued <= self.max_queued
        assert self.gate.running == self.given - self.left + len(promised)

    @invariant()
    def nobody_waits_where_there_is_room(self) -> None:
        for waiter in self.gate._queue:
            assert all(backend.outstanding >= self.bound for backend in waiter.route.open)
            assert waiter.answer is None
            assert waiter.route.open or (self.longest > QUEUE_TIMEOUT and waiter.route.coming)
        assert {id(waiter.exchange) for waiter in self.gate._waiters.values()} == {
            id(seat.exchange) for seat in self.seats if seat.waits
        }

    @invariant()
    def each_waits_where_its_model_is(self) -> None:
        for waiter in self.gate._queue:
            exchange = waiter.exchange
            assert waiter.route.backends
            assert waiter.route is self.fleet.route(exchange.model, named=exchange.endpoint is CHAT)
            assert exchange.model or not self.fleet.known(waiter.asked)

    @invariant()
    def nobody_waits_for_longer_than_both_timeouts(self) -> None:
        for waiter in self.gate._queue:
            assert self.now < waiter.deadline <= waiter.since + self.longest

    @invariant()
    def lines_are_in_order_of_arrival(self) -> None:
        for line in self.gate._queue.lines.values():
            assert any(line.lanes)
            for priority, lane in zip(Priority, line.lanes, strict=True):
                numbers = [waiter.number for waiter in lane]
                assert numbers == sorted(numbers)
                assert all(waiter.exchange.priority is priority for waiter in lane)

    @invariant()
    def nobody_was_overtaken(self) -> None:
        """Of those that were let in since the last look, each came before, or goes before, whoever still waits with it."""
        waiting = list(self.gate._queue)
        for waiter in list(self.gate._told):
            if isinstance(waiter.answer, Backend) and waiter not in self.looked_at:
                for other in waiting:
                    if other.route is waiter.route and other in self.waited_before:
                        assert (waiter.priority, waiter.number) < (other.priority, other.number)
                self.looked_at.add(waiter)
        self.waited_before = set(waiting)

    def teardown(self) -> None:
        if not hasattr(self, "gate"):
            return
        for seat in self.seats:
            seat.reaction = "stay"
        self.now += self.longest
        self.gate.tick(self.now)
        self.loop_turns()
        assert not any(seat.waits for seat in self.seats)
        assert self.gate.queued == 0
        for seat in self.seated_ones():
            self.go(seat)
        assert self.given == self.left
        assert self.gate.running == 0
        assert not self.gate._waiters
        assert not self.turns


GateMachine.TestCase.settings = settings(
    max_examples=250, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestGate = GateMachine.TestCase
