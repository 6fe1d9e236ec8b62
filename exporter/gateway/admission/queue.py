"""Requests that wait at the gateway: interactive before batch, first come first served within, each with a deadline."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice, takewhile

from exporter.gateway.admission.fleet import Backend, Route
from exporter.gateway.model import Exchange, Priority, Refusal


class Waiter:
    """One request that waits. `since`, `deadline`: monotonic seconds."""

    __slots__ = (
        "answer",
        "asked",
        "deadline",
        "exchange",
        "held",
        "number",
        "priority",
        "route",
        "since",
        "wake",
    )

    def __init__(
        self,
        exchange: Exchange,
        route: Route,
        asked: str | None,
        wake: Callable[[Backend | Refusal], None],
        since: float,
        deadline: float,
        *,
        held: bool,
    ) -> None:
        self.exchange = exchange
        self.route = route
        self.asked = asked
        """The model as its client wrote it."""
        self.priority = exchange.priority
        self.wake = wake
        self.since = since
        self.deadline = deadline
        self.held = held
        """Whether it waits for a replica to become ready, not for room."""
        self.number = 0
        """Its place in the order of arrival."""
        self.answer: Backend | Refusal | None = None
        """What it will be told in this turn of the event loop; None as long as it waits."""


class Line:
    """Those that wait for the same replicas."""

    __slots__ = ("lanes", "route")

    def __init__(self, route: Route) -> None:
        self.route = route
        self.lanes: tuple[OrderedDict[Waiter, None], ...] = tuple(OrderedDict() for _ in Priority)
        """By priority, in the order of arrival."""

    def __iter__(self) -> Iterator[Waiter]:
        for lane in self.lanes:
            yield from lane

    def head(self) -> Waiter | None:
        """Who goes first."""
        for lane in self.lanes:
            for waiter in lane:
                return waiter
        return None


class Queue:
    """All lines. A line exists as long as somebody stands in it."""

    __slots__ = ("_arrivals", "_length", "lines")

    def __init__(self) -> None:
        self.lines: dict[Route, Line] = {}
        self._length = 0
        self._arrivals = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Waiter]:
        for line in self.lines.values():
            yield from line

    def push(self, waiter: Waiter) -> None:
        """Stand at the end."""
        self._arrivals += 1
        waiter.number = self._arrivals
        self._stand(waiter)

    def move(self, waiter: Waiter, route: Route) -> None:
        """Wait for other replicas, as if it had done so from the beginning."""
        self.remove(waiter)
        waiter.route = route
        lane = self._stand(waiter)
        behind = list(takewhile(lambda other: other.number > waiter.number, islice(reversed(lane), 1, None)))
        for other in reversed(behind):
            lane.move_to_end(other)

    def _stand(self, waiter: Waiter) -> OrderedDict[Waiter, None]:
        line = self.lines.get(waiter.route)
        if line is None:
            line = self.lines[waiter.route] = Line(waiter.route)
        lane = line.lanes[waiter.priority]
        lane[waiter] = None
        self._length += 1
        return lane

    def remove(self, waiter: Waiter) -> None:
        """Step out, from wherever it stands."""
        line = self.lines[waiter.route]
        del line.lanes[waiter.priority][waiter]
        self._length -= 1
        if not any(line.lanes):
            del self.lines[waiter.route]

    def first(self, has_room: Callable[[Route], bool]) -> Waiter | None:
        """Who goes next of those whose replicas have room: interactive first, then who came first, whatever the model."""
        best = None
        for line in self.lines.values():
            head = line.head()
            if (
                head is not None
                and (best is None or (head.priority, head.number) < (best.priority, best.number))
                and has_room(line.route)
            ):
                best = head
        return best

    def expired(self, now: float) -> list[Waiter]:
        """Those whose deadline has come; they still stand there."""
        return [waiter for waiter in self if waiter.deadline <= now]


class Pace:
    """How fast the queue moves, for `Retry-After`: an average over about ten seconds."""

    __slots__ = ("_at", "_let_in", "_per_second")

    MEMORY = 10.0

    def __init__(self) -> None:
        self._at: float | None = None
        self._let_in = 0
        self._per_second: float | None = None

    def let_in(self) -> None:
        """One left the queue for an engine."""
        self._let_in += 1

    def tick(self, now: float, *, waiting: bool) -> None:
        """Take in what was let in since the last tick. Where nobody waits there is no pace to learn."""
        if self._at is not None and now > self._at and (waiting or self._let_in):
            elapsed = now - self._at
            rate = self._let_in / elapsed
            weight = min(1.0, elapsed / self.MEMORY)
            known = self._per_second
            self._per_second = rate if known is None else known + weight * (rate - known)
        self._at = now
        self._let_in = 0

    def seconds_for(self, waiting: int) -> float | None:
        """How long so many take to be let in; None where nothing has moved yet."""
        return waiting / self._per_second if self._per_second else None
