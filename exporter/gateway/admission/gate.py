"""Who is let in, who waits, who is turned away: one synchronous call when a request comes, and one when it ends."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from exporter.gateway.admission import refusals
from exporter.gateway.admission.fleet import Backend, Fleet, Route, least_outstanding, pickable
from exporter.gateway.admission.limits import Limits, settled_priority
from exporter.gateway.admission.queue import Line, Pace, Queue, Waiter
from exporter.gateway.admission.rates import Rates, over_limit
from exporter.gateway.model import Dialect, Exchange, Refusal
from exporter.settings.gateway import GatewaySettings

__all__ = ["Cancellable", "Gate", "Limits"]


class Cancellable(Protocol):
    """What `later` gives back, such as asyncio's TimerHandle."""

    def cancel(self) -> None: ...


class Gate:
    """Admission for all requests. Every Backend that it gives, at once or later, is to be left exactly once.

    `later`: runs a function in a later turn of the event loop, such as `loop.call_later`. Nobody is woken from within
    `enter`, `leave`, `withdraw`, `another` or `tick`, so a caller may be in the middle of anything.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        fleet: Fleet,
        *,
        later: Callable[[float, Callable[[], None]], Cancellable],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet = fleet
        self._routes = fleet.routes
        self._clock = clock
        self._later = later
        self._bound = settings.max_concurrent
        self._max_queued = settings.max_queued
        self._queue_timeout = settings.queue_timeout
        self._hold_timeout = settings.hold_timeout
        self._rates = Rates(settings)
        self._draining = False
        self._quick = not self._rates.everybody
        self._queue = Queue()
        self._pace = Pace()
        self._waiters: dict[Exchange, Waiter] = {}
        self._told: deque[Waiter] = deque()
        self._telling: Cancellable | None = None
        self._picks = 0
        fleet.subscribe(self._look_again)

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the daemon stops. Those that wait are turned away when it is set."""
        return self._draining

    @draining.setter
    def draining(self, draining: bool) -> None:
        self._draining = draining
        self._quick = not draining and not self._rates.everybody
        if draining:
            for waiter in list(self._queue):
                self._settle(waiter, refusals.GATEWAY_DRAINING)

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Requests that are at an engine, or about to be."""
        return sum(backend.outstanding + backend.passing for backend in self._fleet.backends)

    def enter(
        self,
        exchange: Exchange,
        limits: Limits | None,
        wake: Callable[[Backend | Refusal], None],
        asked: str | None = None,
    ) -> Backend | Refusal | None:
        """Let a request in (a Backend, which is to be left), turn it away, or have it wait (None): then `wake` is called once,
        in another turn of the event loop, unless it is withdrawn. `asked`: the model as the client wrote it, for answers.
        """
        if limits is None and self._quick:
            route = self._routes.get(exchange.model)
            if route is not None:
                backend = route.only
                if (
                    backend is not None and backend.outstanding < self._bound and exchange.endpoint.counted
                    # who waits elsewhere for the same backend waits because it is full: nobody is overtaken
                ):
                    backend.outstanding += 1
                    return backend
        return self._enter(exchange, limits, wake, asked)

    def leave(self, exchange: Exchange, backend: Backend) -> None:
        """A request is over, or has given this backend up. Its tokens are charged, and the next one is let in."""
        if not exchange.endpoint.counted:
            backend.passing -= 1
            return
        backend.outstanding -= 1
        if self._rates.charges:
            self._rates.charge(exchange, self._clock())
        if self._waiters:
            self._admit()

    def withdraw(self, exchange: Exchange) -> None:
        """The client left while it waited: it is not woken, and what it was about to get goes to the next."""
        waiter = self._waiters.pop(exchange, None)
        if waiter is None:
            return
        if waiter.answer is None:
            self._queue.remove(waiter)
        elif isinstance(waiter.answer, Backend):
            waiter.answer.outstanding -= 1
            self._admit()

    def another(self, exchange: Exchange, failed: Backend) -> Backend | Refusal:
        """A different replica for a request whose connection failed before its client had a byte; `failed` is still to be
        left. A refusal where each was tried or is full.
        """
        if failed.name not in exchange.tried:
            exchange.tried += (failed.name,)
        now = self._clock()
        self._fleet.shun(failed, now)
        route = self._fleet.route(exchange.model, named=_names_models(exchange))
        untried = [backend for backend in route.backends if backend.name not in exchange.tried]
        counted = exchange.endpoint.counted
        found = least_outstanding(pickable(untried, now), self._bound if counted else float("inf"))
        return refusals.no_other(failed) if found is None else self._take(found, counted)

    def tick(self, now: float) -> None:
        """Turn away who has waited too long. Called every quarter of a second or so."""
        self._fleet.tick(now)
        self._pace.tick(now, waiting=bool(self._queue))
        if self._queue:
            for waiter in self._queue.expired(now):
                self._settle(waiter, self._too_late(waiter, now))
        self._rates.tick(now)

    def _enter(
        self,
        exchange: Exchange,
        limits: Limits | None,
        wake: Callable[[Backend | Refusal], None],
        asked: str | None,
    ) -> Backend | Refusal | None:
        if self._draining:
            return refusals.GATEWAY_DRAINING
        named = _names_models(exchange)
        route = self._fleet.route(exchange.model, named=named)
        if not route.backends:
            return refusals.missing_model(asked)
        if not exchange.endpoint.counted:
            return self._pass(route)
        if limits is not None:
            if limits.models is not None and not self._may_use(limits.models, exchange.model, asked, route):
                return refusals.not_allowed(asked or exchange.model, named=named)
            exchange.key = limits.name
            exchange.priority = settled_priority(exchange, limits)
        elif exchange.asked_priority is not None:
            exchange.priority = settled_priority(exchange, None)
        if limits is None and not self._rates.everybody:
            return self._place(exchange, route, wake, asked)
        now = self._clock()
        own, by_model = self._rates.of(exchange, limits, now)
        refusal = over_limit(own, by_model, exchange, now)
        if refusal is not None:
            return refusal
        answer = self._place(exchange, route, wake, asked)
        if type(answer) is not Refusal:
            if own is not None:
                own.begin(now)
            if by_model is not None:
                by_model.begin(now)
        return answer

    def _pass(self, route: Route) -> Backend | Refusal:
        """For what is not counted among users' requests: no limits, no bound, no wait."""
        backend = least_outstanding(route.open, float("inf"))
        return refusals.not_open(route, self._clock()) if backend is None else self._take(backend, False)

    def _place(
        self,
        exchange: Exchange,
        route: Route,
        wake: Callable[[Backend | Refusal], None],
        asked: str | None,
    ) -> Backend | Refusal | None:
        backend = least_outstanding(route.open, self._bound)
        if backend is not None:
            return self._take(backend, True)
        now = self._clock()
        held = not route.open
        if held and not (self._hold_timeout and route.coming):
            return refusals.not_open(route, now)
        if len(self._queue) >= self._max_queued:
            if held:
                return refusals.not_open(route, now)
            return refusals.queue_full(len(self._queue), self._pace.seconds_for(len(self._queue)))
        deadline = now + (self._hold_timeout if held else self._queue_timeout)
        waiter = Waiter(exchange, route, asked, wake, now, deadline, held=held)
        self._waiters[exchange] = waiter
        self._queue.push(waiter)
        return None

    def _take(self, backend: Backend, counted: bool) -> Backend:
        if counted:
            backend.outstanding += 1
        else:
            backend.passing += 1
        self._picks += 1
        backend.picked = self._picks
        return backend

    def _may_use(self, allowed: frozenset[str], model: str, asked: str | None, route: Route) -> bool:
        name = asked or model
        if name:
            return name in allowed
        return all(backend.models and backend.models <= allowed for backend in route.backends)

    def _has_room(self, route: Route) -> bool:
        bound = self._bound
        return any(backend.outstanding < bound for backend in route.open)

    def _admit(self) -> None:
        """Let in who is next, as long as there is room."""
        while self._queue:
            waiter = self._queue.first(self._has_room)
            if waiter is None:
                return
            backend = least_outstanding(waiter.route.open, self._bound)
            assert backend is not None
            self._pace.let_in()
            self._settle(waiter, self._take(backend, True))

    def _settle(self, waiter: Waiter, answer: Backend | Refusal) -> None:
        self._queue.remove(waiter)
        waiter.answer = answer
        self._told.append(waiter)
        if self._telling is None:
            self._telling = self._later(0.0, self._tell)

    def _tell(self) -> None:
        """Wake those that were settled; one that fails must not keep the others waiting."""
        self._telling = None
        told = self._told
        self._told = deque()
        try:
            while told:
                waiter = told.popleft()
                answer = waiter.answer
                if answer is not None and self._waiters.get(waiter.exchange) is waiter:
                    del self._waiters[waiter.exchange]
                    waiter.wake(answer)
        finally:
            if told:
                self._told.extendleft(reversed(told))
                if self._telling is None:
                    self._telling = self._later(0.0, self._tell)

    def _look_again(self, now: float) -> None:
        """The fleet has changed: who waits may go, or waits for something else now, or in vain."""
        for waiter in list(self._queue):
            if not waiter.exchange.model or not waiter.route.backends:
                self._find_again(waiter)
        for line in list(self._queue.lines.values()):
            route = line.route
            if route.open:
                self._postpone(line, now, self._queue_timeout, held=False)
            elif self._hold_timeout and route.coming:
                self._postpone(line, now, self._hold_timeout, held=True)
            else:
                refusal = refusals.not_open(route, now)
                for waiter in list(line):
                    self._settle(waiter, refusal)
        self._admit()

    def _find_again(self, waiter: Waiter) -> None:
        """Its model was not known when it came, and a backend may have said by now that it serves it; or it is no longer."""
        exchange = waiter.exchange
        model = self._fleet.known(waiter.asked)
        route = self._fleet.route(model, named=_names_models(exchange))
        exchange.model = model
        if not route.backends:
            self._settle(waiter, refusals.missing_model(waiter.asked))
        elif route is not waiter.route:
            self._queue.move(waiter, route)

    def _postpone(self, line: Line, now: float, wait: float, *, held: bool) -> None:
        """New deadlines for those that wait for something else from now on; however often an engine comes and goes, nobody
        waits longer than both timeouts together.
        """
        longest = self._queue_timeout + self._hold_timeout
        for waiter in line:
            if waiter.held != held:
                waiter.held = held
                waiter.deadline = min(now + wait, waiter.since + longest)

    def _too_late(self, waiter: Waiter, now: float) -> Refusal:
        if not waiter.route.open:
            return refusals.not_open(waiter.route, now)
        return refusals.queue_timeout(now - waiter.since, self._pace.seconds_for(len(self._queue)))


def _names_models(exchange: Exchange) -> bool:
    return exchange.endpoint.dialect is not Dialect.OPAQUE
