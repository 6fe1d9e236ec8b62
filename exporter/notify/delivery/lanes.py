"""What one endpoint is to be sent next, and what becomes of it; a state without a clock: times are of a timer, seconds.

A lane is a group: its notifications go strictly in order, one at a time. Lanes go side by side.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, NamedTuple

from exporter.notify.delivery.pace import Circuit, Pace, wait_after
from exporter.notify.model import Notification, Outcome

TOO_MANY_REQUESTS = 429
MOSTLY_STALE = 64
"""A heap with so many entries more than twice what is alive is made anew."""


@dataclass(slots=True, eq=False)
class Item:
    """One notification on its way; `deadline`: when it is given up."""

    notification: Notification
    deadline: float
    attempts: int = 0
    last: Outcome | None = None
    watched: bool = False
    """It may be withdrawn when all of its alerts have ended: they fired when it came, and nobody asked for it again."""


@dataclass(slots=True, eq=False)
class _Lane:
    items: deque[Item] = field(default_factory=deque)
    current: Item | None = None
    """Under way, or ended and not released."""
    not_before: float = 0.0
    ticket: int = 0
    """Of the one entry of the heap that counts."""

    @property
    def rank(self) -> int:
        """What somebody gets up for goes first, however much waits."""
        return 0 if self.items and is_critical(self.items[0].notification) else 1

    def insert(self, item: Item) -> None:
        """In the order of numbers: what is sent again may be older than what waits."""
        place = len(self.items)
        while place and self.items[place - 1].notification.number > item.notification.number:
            place -= 1
        self.items.insert(place, item)

    def superseded(self, *, even_untried: bool) -> list[Item]:
        """What waits here although newer ones say, together, of every alert in it what is so now."""
        if not any(item.attempts or even_untried for item in self.items if item is not self.items[-1]):
            return []
        told: set[int] = set()
        gone: list[Item] = []
        for item in reversed(self.items):
            alerts = {alert.fingerprint for alert in item.notification.alerts}
            waits = item is not self.current and item is not self.items[-1]
            if waits and (item.attempts or even_untried) and alerts <= told:
                gone.append(item)
            told |= alerts
        return gone[::-1]


def is_critical(notification: Notification) -> bool:
    """Whether any of its alerts has `severity="critical"`."""
    return any(("severity", "critical") in alert.labels for alert in notification.alerts)


class Verdict(NamedTuple):
    """What an attempt led to: `retry` keeps the notification, all others end it."""

    became: Literal["delivered", "retry", "superseded", "dead"]
    outcome: Outcome
    wait: float = 0.0


class Lanes:
    """One endpoint's notifications that it has not taken yet."""

    def __init__(self, pace: Pace) -> None:
        self.circuit = Circuit()
        self._pace = pace
        self._lanes: dict[str, _Lane] = {}
        self._due: list[tuple[float, int, int, str]] = []
        """When, the lane's rank, its ticket, and its key."""
        self._deadlines: list[tuple[float, int]] = []
        self._tickets = count(1)
        self._in_flight = 0
        self._not_before = 0.0
        """Of all lanes: the endpoint asked for it."""
        self._items: dict[int, Item] = {}
        """All of them, by number."""
        self._watched = 0
        """So many of them are watched."""
        self._alerts = 0
        """Of all notifications together."""

    def __len__(self) -> int:
        return len(self._items)

    @property
    def in_flight(self) -> int:
        """Attempts that are under way."""
        return self._in_flight

    def items(self) -> Iterator[tuple[Item, bool, float]]:
        """Everything with whether it is under way, and from when on it may be tried; each group in order."""
        for lane in self._lanes.values():
            for item in lane.items:
                yield item, item is lane.current, max(lane.not_before, self._not_before)

    def untried(self) -> int:
        """Notifications whose first attempt has not come to its end."""
        return sum(item.attempts == 0 for lane in self._lanes.values() for item in lane.items)

    def put(self, item: Item, now: float) -> list[Item]:
        """Take a notification in; which others it supersedes."""
        key = item.notification.group_key
        lane = self._lanes.setdefault(key, _Lane())
        lane.insert(item)
        self._items[item.notification.number] = item
        self._watched += item.watched
        self._alerts += len(item.notification.alerts)
        self._note_deadline(item)
        gone = lane.superseded(
            even_untried=self._stands_back(lane) or self._alerts > self._pace.crowded_alerts
        )
        for old in gone:
            self._remove(lane, old)
        if gone and lane.current is None:
            lane.not_before = now
        if len(lane.items) == 1 or gone:
            self._schedule(key, lane)
        return gone

    def _stands_back(self, lane: _Lane) -> bool:
        """Whether a group's notifications do not get through for long: what came to nothing meanwhile is no news then."""
        return len(lane.items) > self._pace.crowded_lane and (
            self.circuit.state != "closed" or any(item.attempts for item in lane.items)
        )

    def start(self, now: float, *, news_only: bool = False) -> list[Item]:
        """What is to be attempted now; each is to be given back to `ended`, then `released`.

        `news_only`: it is the end, and what was tried before is not tried again.
        """
        started: list[Item] = []
        if self.circuit.state == "closed":
            while self._in_flight < self._pace.parallel and (key := self._next(now)) is not None:
                heapq.heappop(self._due)
                lane = self._lanes[key]
                if not (news_only and lane.items[0].attempts):
                    started.append(self._begin(lane))
        elif self.circuit.state == "open" and not self._in_flight:
            lanes = [
                lane
                for lane in self._lanes.values()
                if lane.items and lane.current is None and not (news_only and lane.items[0].attempts)
            ]
            if lanes and now >= self._trial_at():
                # News first: an old message that the endpoint chokes on must not be every trial.
                lane = min(lanes, key=lambda one: (one.items[0].attempts > 0, one.rank, one.not_before))
                self.circuit = self.circuit.trying()
                started.append(self._begin(lane))
        return started

    def ended(self, item: Item, outcome: Outcome, now: float, draw: float) -> Verdict:
        """What an attempt led to; `draw` is random, from 0 to 1. The lane waits until it is released."""
        key = item.notification.group_key
        lane = self._lanes[key]
        item.attempts += 1
        item.last = outcome
        if outcome.result != "retry":
            # A refusal is an answer too: the endpoint is there.
            if self.circuit.state != "closed":
                for other in self._lanes.values():
                    other.not_before = min(other.not_before, now)
                for name, other in self._lanes.items():
                    self._schedule(name, other)
            self.circuit = Circuit()
            return self._end(lane, item, "delivered" if outcome.result == "delivered" else "dead", outcome)
        if outcome.code != TOO_MANY_REQUESTS or self.circuit.state == "half_open":
            self.circuit = self.circuit.failed(now, self._pace)
        wait = wait_after(item.attempts, outcome.retry_after, draw, self._pace)
        if outcome.retry_after is not None:
            asked = min(outcome.retry_after, self._pace.longest_retry_after)
            self._not_before = max(self._not_before, now + asked)
        if covers((other.notification for other in lane.items), item.notification):
            return self._end(lane, item, "superseded", outcome)
        if now >= item.deadline:
            return self._end(lane, item, "dead", given_up(outcome))
        lane.not_before = now + wait
        return Verdict("retry", outcome, wait)

    def release(self, item: Item) -> None:
        """What came of an attempt is written down: its lane may go on."""
        key = item.notification.group_key
        lane = self._lanes[key]
        lane.current = None
        self._in_flight -= 1
        if lane.items:
            self._schedule(key, lane)
        else:
            del self._lanes[key]

    def expired(self, now: float) -> list[Item]:
        """What is given up now: it failed, or its endpoint does, and its time is over."""
        expired: list[Item] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            item = self._nearest_its_end()
            if item is None or (item.attempts == 0 and self.circuit.state == "closed"):
                continue  # after its first attempt it is seen that its time is over
            self._take_out(item, now)
            expired.append(item)
        return expired

    def overfull(self, now: float) -> list[Item]:
        """What has to go because too much waits: what would be given up first; never what came last."""
        gone: list[Item] = []
        kept: list[Item] = []
        while self._alerts > self._pace.most_alerts and self._deadlines:
            number = self._deadlines[0][1]
            item = self._nearest_its_end()
            if item is not None and number != next(reversed(self._items)):
                self._take_out(item, now)
                gone.append(item)
            elif number in self._items:
                kept.append(self._items[number])
        for item in kept:
            self._note_deadline(item)
        return gone

    def withdraw(self, over: Callable[[Notification], bool], now: float) -> list[Item]:
        """Take out what has failed, is watched and is over."""
        if not self._watched:
            return []
        gone = [
            item
            for lane in self._lanes.values()
            for item in lane.items
            if item.watched and item.attempts and item is not lane.current and over(item.notification)
        ]
        for item in gone:
            self._take_out(item, now)
        return gone

    def wake(self) -> float | None:
        """When there is something to do again without anything happening before."""
        times = [self._deadlines[0][0]] if self._deadlines else []
        if self.circuit.state == "closed":
            if self._in_flight < self._pace.parallel and (first := self._first()) is not None:
                times.append(max(first, self._not_before))
        elif self.circuit.state == "open" and not self._in_flight and self._lanes:
            times.append(self._trial_at())
        return min(times) if times else None

    def reset(self, now: float) -> None:
        """The endpoint's settings are others: what is known of its failures means nothing any more."""
        self.circuit = Circuit()
        self._not_before = now
        for key, lane in self._lanes.items():
            lane.not_before = now
            self._schedule(key, lane)

    def clear(self) -> list[Item]:
        """Take out everything that is not under way."""
        gone = [item for lane in self._lanes.values() for item in lane.items if item is not lane.current]
        for item in gone:
            self._take_out(item, 0.0)
        return gone

    def _begin(self, lane: _Lane) -> Item:
        item = lane.current = lane.items[0]
        self._in_flight += 1
        return item

    def _end(
        self, lane: _Lane, item: Item, became: Literal["delivered", "superseded", "dead"], outcome: Outcome
    ) -> Verdict:
        self._remove(lane, item)
        lane.not_before = 0.0
        return Verdict(became, outcome)

    def _note_deadline(self, item: Item) -> None:
        heapq.heappush(self._deadlines, (item.deadline, item.notification.number))
        if len(self._deadlines) > MOSTLY_STALE + 2 * len(self._items):
            self._deadlines = [(one.deadline, number) for number, one in self._items.items()]
            heapq.heapify(self._deadlines)

    def _nearest_its_end(self) -> Item | None:
        """Off the heap of deadlines; None where that is no more, or under way."""
        deadline, number = heapq.heappop(self._deadlines)
        item = self._items.get(number)
        if item is None or item.deadline != deadline:
            return None
        return None if self._lanes[item.notification.group_key].current is item else item

    def _take_out(self, item: Item, now: float) -> None:
        """End something that is not under way; what stands behind it may go now."""
        key = item.notification.group_key
        lane = self._lanes[key]
        self._remove(lane, item)
        if lane.current is None:
            if lane.items:
                lane.not_before = now
                self._schedule(key, lane)
            else:
                del self._lanes[key]

    def _remove(self, lane: _Lane, item: Item) -> None:
        lane.items.remove(item)
        del self._items[item.notification.number]
        self._watched -= item.watched
        self._alerts -= len(item.notification.alerts)

    def _schedule(self, key: str, lane: _Lane) -> None:
        if lane.items and lane.current is None:
            lane.ticket = next(self._tickets)
            heapq.heappush(self._due, (lane.not_before, lane.rank, lane.ticket, key))
            if len(self._due) > MOSTLY_STALE + 2 * len(self._lanes):
                self._due = [entry for entry in self._due if self._counts(entry)]
                heapq.heapify(self._due)

    def _counts(self, due: tuple[float, int, int, str]) -> bool:
        lane = self._lanes.get(due[3])
        return lane is not None and lane.ticket == due[2] and bool(lane.items) and lane.current is None

    def _first(self) -> float | None:
        """When the first lane is due, but for what the endpoint asked for."""
        while self._due:
            if self._counts(self._due[0]):
                return self._due[0][0]
            heapq.heappop(self._due)
        return None

    def _next(self, now: float) -> str | None:
        first = self._first()
        return self._due[0][3] if first is not None and max(first, self._not_before) <= now else None

    def _trial_at(self) -> float:
        fresh = any(lane.items[0].attempts == 0 for lane in self._lanes.values() if lane.items)
        return max(self._not_before, self.circuit.due(fresh=fresh))


def covers(others: Iterable[Notification], one: Notification) -> bool:
    """Whether the newer ones among others of its group say, together, of every alert in it what is so now."""
    untold = {alert.fingerprint for alert in one.alerts}
    for other in others:
        if other.number > one.number:
            untold.difference_update(alert.fingerprint for alert in other.alerts)
    return not untold


def given_up(last: Outcome | None) -> Outcome:
    """Of a notification whose time is over: its last failure, or that its endpoint was never there to be tried."""
    if last is None:
        return Outcome("retry", "given up: its endpoint has not worked all the time")
    return last._replace(detail=f"given up: {last.detail}")


def pushed_out(last: Outcome | None) -> Outcome:
    """Of a notification that had to make room for newer ones."""
    if last is None:
        return Outcome("retry", "given up: too much waits for its endpoint")
    return last._replace(detail=f"given up, too much waits for its endpoint: {last.detail}")
