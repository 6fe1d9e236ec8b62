"""The dispatcher: takes alerts in, keeps them in groups, and puts notifications down when groups are due.

Source: `dispatch/dispatch.go` and the stages in `notify/` of https://github.com/prometheus/alertmanager. Unlike there a
notification counts as told when it is put down, because the outbox sees to it that it arrives.

Two clocks: `now`, unix seconds, is what people are shown and what is stored; every wait is by `timer`, which is monotonic
and stands still while the machine sleeps, so that no change of the clock brings a storm.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import structlog

from exporter.notify.config.model import NotifyConfig
from exporter.notify.dispatch.book import Book
from exporter.notify.dispatch.dedup import Reason
from exporter.notify.dispatch.hours import muted_by
from exporter.notify.dispatch.inhibition import Inhibitor
from exporter.notify.dispatch.keys import group_key
from exporter.notify.dispatch.known import Group, Known, Place
from exporter.notify.dispatch.merging import arrived, end_of, ended, merged, same
from exporter.notify.dispatch.ordering import before_key, in_order
from exporter.notify.dispatch.routing import Routing
from exporter.notify.dispatch.telling import Said, fingerprints
from exporter.notify.dispatch.views import AlertView, GroupView
from exporter.notify.dispatch.writing import Ledger, Writing
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.model import Alert, Notification
from exporter.notify.outbox.model import Change, LogEntry, Saved
from exporter.notify.silences import Silences

log = structlog.get_logger(__name__)

MOST_ALERTS = 100_000
"""Alerts that are known at a time; more that begin to fire are dropped, counted and logged."""
GROUPS_A_TURN = 500
"""Groups that are looked at before the event loop may do something else."""
COLLECTED_SECONDS = 900.0
"""How often what is old is forgotten: Alertmanager's maintenance interval."""
COUNTED_SECONDS = 15.0
"""How often the states of alerts are counted for the metrics, while there is news."""


class Dispatcher:
    """Everything between an alert and its notifications; event loop only.

    `deliver` gets notifications that are written down, in their order. `forward` gets the alerts, new and changed, whose
    routes lead to a receiver with endpoints of the kind `alertmanager`.
    """

    def __init__(
        self,
        config: NotifyConfig,
        outbox: Ledger,
        *,
        deliver: Callable[[Sequence[Notification]], None],
        forward: Callable[[str, Sequence[Alert]], None] = lambda receiver, alerts: None,
        metrics: NotifyMetrics | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._routing = Routing(config)
        self._inhibitor = Inhibitor(config.inhibitions)
        self._forward = forward
        self._metrics = metrics if metrics is not None else NotifyMetrics()
        self._clock = clock
        self._timer = timer
        self._writing = Writing(outbox, deliver)
        self.silences = Silences(self._write, clock)
        self._book = Book(self._writing.add)
        self._known: dict[int, Known] = {}
        self._groups: dict[Place, Group] = {}
        self._due: list[tuple[float, int, Group]] = []
        self._deadlines: list[tuple[float, int]] = []
        self._sequence = itertools.count()
        self._number = 1
        self._collect_at = timer() + COLLECTED_SECONDS
        self._count_at = -math.inf
        self._news = True
        self._full = False
        self._wake = asyncio.Event()

    def restore(self, saved: Saved) -> None:
        """What the daemon before left behind; before anything is put. Nothing is told in this call."""
        now, timer = self._clock(), self._timer()
        self._number = max(self._number, saved.next_number)
        self.silences.restore(saved.silences)
        self._book.restore(saved.log, now, timer)
        for alert in saved.alerts:
            fires = alert.ends_at is None or alert.ends_at > now
            known = self._known[alert.fingerprint] = Known(alert, dict(alert.labels), fires)
            if fires:
                # What the clock said before may have been far ahead.
                most = self._config.resolve_timeout if alert.until is not None else math.inf
                self._set_deadline(known, min(end_of(alert) - now, most), timer)
            self._place(known, now, timer)
        for group in self._groups.values():
            self._due_as_before(group, now, timer)
        self._forward_all(known for known in self._known.values() if known.fires)
        self._wake.set()

    def put(self, alerts: Sequence[Alert]) -> None:
        """Alerts that are new, have changed or have ended; told in this very turn where their group need not wait."""
        now, timer = self._clock(), self._timer()
        self._expire(now, timer)
        came = [self._take(arrived(alert, now), now, timer) for alert in alerts]
        taken = [known for known in came if known is not None]
        touched: dict[Group, None] = {}
        for known in taken:
            touched.update(dict.fromkeys(self._place(known, now, timer)))
            if not known.fires and not known.held:
                self._forget(known)
        fires = sum(known.fires for known in taken)
        self._metrics.received("firing", fires)
        self._metrics.received("resolved", len(taken) - fires)
        self._news = True
        for group in itertools.islice((group for group in touched if group.due <= timer), GROUPS_A_TURN):
            self._flush(group, now, timer)
        self._forward_all(taken)
        self._wake.set()

    async def run(self) -> None:
        """Look at groups when they are due, and write and hand on what comes of it, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._flushing(), name="notify groups")
            tasks.create_task(self._writing.run(), name="notify outbox")

    async def drain(self) -> None:
        """Write down and hand on all that was decided so far; for the end, and for tests."""
        await self._writing.drain()

    def tick(self) -> float:
        """Do what is due now; gives the seconds until there is something to do again."""
        now, timer = self._clock(), self._timer()
        self._expire(now, timer)
        for _ in range(GROUPS_A_TURN):
            if not self._due or self._due[0][0] > timer:
                break
            due, _, group = heapq.heappop(self._due)
            if group.alive and group.due == due:
                self._flush(group, now, timer)
        if timer >= self._collect_at:
            self._collect_at = timer + COLLECTED_SECONDS
            self.silences.collect()
            self._book.collect({group.key for group in self._groups.values()}, timer)
        if self._news and timer >= self._count_at:
            self._count_at = timer + COUNTED_SECONDS
            self._news = False
            self._count(now)
        return max(0.0, self._next(timer) - timer)

    def reload(self, config: NotifyConfig) -> None:
        """Route all alerts anew; what was told stays told, and groups that stay keep their time."""
        now, timer = self._clock(), self._timer()
        before = {(group.route.receiver, group.key): group.due for group in self._groups.values()}
        self._config = config
        self._routing = Routing(config)
        self._inhibitor = Inhibitor(config.inhibitions)
        for group in self._groups.values():
            group.alive = False
        self._groups.clear()
        self._due.clear()
        for known in self._known.values():
            known.places = ()
            known.held = 0
            self._place(known, now, timer)
        for group in self._groups.values():
            due = before.get((group.route.receiver, group.key))
            if due is not None:
                self._schedule(group, due)
        for known in [known for known in self._known.values() if not known.held and not known.fires]:
            self._forget(known)
        self._forward_all(known for known in self._known.values() if known.fires)
        self._news = True
        self._wake.set()

    def alerts(self) -> list[AlertView]:
        """Every alert that fires, by fingerprint."""
        now = self._clock()
        self._expire(now, self._timer())
        firing = (known for known in self._known.values() if known.fires)
        return [self._view(known, now) for known in sorted(firing, key=_fingerprint)]

    def groups(self) -> list[GroupView]:
        """Every group with an alert that fires, by its labels and receiver."""
        now = self._clock()
        self._expire(now, self._timer())
        views: list[GroupView] = []
        for group in self._groups.values():
            firing = {number: known for number, known in group.alerts.items() if known.fires}
            if firing:
                muted = muted_by(group.route, self._config.intervals, now)
                names = muted.by if muted is not None else ()
                ordered = in_order(known.alert for known in firing.values())
                alerts = tuple(self._view(firing[alert.fingerprint], now, names) for alert in ordered)
                views.append(GroupView(group.route.receiver, group.key, group.place.labels, alerts, names))
        before = before_key(view.labels for view in views)
        return sorted(views, key=lambda view: (before(view.labels), view.receiver))

    async def _flushing(self) -> None:
        while True:
            self._wake.clear()
            wait = self.tick()
            if wait:
                await _woken(self._wake, wait)
            else:
                await asyncio.sleep(0)

    def _write(self, change: Change) -> None:
        self._news = True
        self._writing.add(change)
        self._wake.set()

    def _take(self, alert: Alert, now: float, timer: float) -> Known | None:
        """An alert that came in, as it is now known; None where there is no room for it."""
        known = self._known.get(alert.fingerprint)
        if known is None:
            fires = end_of(alert) > now
            if len(self._known) >= MOST_ALERTS:
                if fires and not self._full:
                    log.warning("too_many_alerts", limit=MOST_ALERTS, consequence="more are not told")
                self._full = True
                return None
            self._full = False
            known = self._known[alert.fingerprint] = Known(alert, dict(alert.labels), fires)
            self._writing.add(Change(alerts=(alert,)))
        else:
            alert = merged(known.alert, known.fires, alert, now)
            if not same(known.alert, alert):
                self._writing.add(Change(alerts=(alert,)))
            known.alert = alert
            known.fires = end_of(alert) > now
        if known.fires:
            self._set_deadline(known, end_of(alert) - now, timer)
        else:
            known.deadline = None
        return known

    def _set_deadline(self, known: Known, seconds: float, timer: float) -> None:
        if seconds == math.inf:
            known.deadline = None
        else:
            known.deadline = timer + max(0.0, seconds)
            heapq.heappush(self._deadlines, (known.deadline, known.alert.fingerprint))

    def _expire(self, now: float, timer: float) -> None:
        """End the alerts that were pushed for a time, when it is up."""
        while self._deadlines and self._deadlines[0][0] <= timer:
            deadline, fingerprint = heapq.heappop(self._deadlines)
            known = self._known.get(fingerprint)
            if known is not None and known.deadline == deadline:
                known.alert = ended(known.alert, now)
                known.fires = False
                known.deadline = None
                self._inhibitor.ends(fingerprint, known.values)
                self._writing.add(Change(alerts=(known.alert,)))
                self._forward_all((known,))
                self._news = True

    def _place(self, known: Known, now: float, timer: float) -> list[Group]:
        """Put an alert into its groups; those are made where they are missing."""
        alert = known.alert
        if known.fires:
            self._inhibitor.fires(alert.fingerprint, known.values)
        else:
            self._inhibitor.ends(alert.fingerprint, known.values)
        known.places = known.places or self._routing.places(alert.labels)
        groups: list[Group] = []
        for place in known.places:
            group = self._groups.get(place)
            if group is None:
                route = self._routing.route(place)
                # One that began longer ago than the group would wait has waited enough.
                old = alert.starts_at + route.group_wait < now
                group = Group(place, route, group_key(route.key, place.labels), math.inf)
                self._groups[place] = group
                self._schedule(group, timer if old else timer + route.group_wait)
            if alert.fingerprint not in group.alerts:
                group.alerts[alert.fingerprint] = known
                known.held += 1
            groups.append(group)
        return groups

    def _schedule(self, group: Group, due: float) -> None:
        group.due = due
        heapq.heappush(self._due, (due, next(self._sequence), group))

    def _due_as_before(self, group: Group, now: float, timer: float) -> None:
        """After a restart a group that was told of waits on from then."""
        endpoints = self._routing.endpoints(group.route.receiver)
        told = (
            self._book.told((group.key, endpoint.receiver, endpoint.integration)) for endpoint in endpoints
        )
        since = max((one.since for one in told if one is not None), default=None)
        if since is not None:
            self._schedule(group, max(timer, since + group.route.group_interval))

    def _flush(self, group: Group, now: float, timer: float) -> None:
        """Tell of a group what there is to tell, and let go of the alerts in it that have ended."""
        self._schedule(group, timer + group.route.group_interval)
        over = [known for known in group.alerts.values() if not known.fires]
        endpoints = self._routing.endpoints(group.route.receiver)
        keys = [(group.key, endpoint.receiver, endpoint.integration) for endpoint in endpoints]
        if endpoints:
            heard = self._unmuted(group, now)
            said = Said(heard, now)
            unheard = fingerprints(over) - said.resolved
            for endpoint, key in zip(endpoints, keys, strict=True):
                if unheard:
                    self._book.strike(key, unheard)
                if not heard:
                    continue
                reason = said.reason(endpoint, self._book.told(key), group.route.repeat_interval, timer)
                if reason is Reason.NOTHING_NEW:
                    continue
                self._book.tell(LogEntry(*key, said.firing, said.resolved, now), timer)
                alerts = said.alerts_for(endpoint)
                if alerts:
                    self._put_down(group, key, alerts, now, repeated=reason is Reason.REPEAT)
        for known in over:
            del group.alerts[known.alert.fingerprint]
            known.held -= 1
            if not known.held:
                self._forget(known)
        if not group.alerts:
            group.alive = False
            del self._groups[group.place]
            self._book.close(keys)

    def _unmuted(self, group: Group, now: float) -> list[Known]:
        """The alerts of a group that are not inhibited, not out of hours, and not silenced."""
        heard = [known for known in group.alerts.values() if self._inhibitor.inhibitor(known.values) is None]
        self._suppressed("inhibition", len(group.alerts) - len(heard))
        if not heard:
            return heard
        muted = muted_by(group.route, self._config.intervals, now)
        if muted is not None:
            self._suppressed(muted.reason, len(heard))
            return []
        unsilenced = [known for known in heard if not self._silencing(known, now)]
        self._suppressed("silence", len(heard) - len(unsilenced))
        return unsilenced

    def _suppressed(self, reason: str, count: int) -> None:
        if count:
            self._metrics.suppressed(reason, count)

    def _silencing(self, known: Known, now: float) -> tuple[str, ...]:
        ids, known.seen = self.silences.silencing(known.values, known.seen, now)
        return ids

    def _put_down(
        self,
        group: Group,
        key: tuple[str, str, str],
        alerts: tuple[Alert, ...],
        now: float,
        *,
        repeated: bool,
    ) -> None:
        _, receiver, integration = key
        notification = Notification(
            self._number, receiver, integration, group.key, group.place.labels, alerts, now, repeated
        )
        self._number += 1
        self._writing.add(Change(notifications=(notification,)))

    def _forget(self, known: Known) -> None:
        """Nobody needs an alert any more that has ended."""
        fingerprint = known.alert.fingerprint
        self._inhibitor.ends(fingerprint, known.values)
        if self._known.pop(fingerprint, None) is not None:
            self._writing.add(Change(gone=(fingerprint,)))

    def _forward_all(self, alerts: Iterable[Known]) -> None:
        """Alerts to the receivers that want them as they are."""
        by_receiver: dict[str, list[Alert]] = {}
        for known in alerts:
            receivers = dict.fromkeys(self._routing.route(place).receiver for place in known.places)
            for receiver in receivers:
                if self._routing.forwards(receiver):
                    by_receiver.setdefault(receiver, []).append(known.alert)
        for receiver, some in by_receiver.items():
            self._forward(receiver, some)

    def _view(self, known: Known, now: float, muted: tuple[str, ...] = ()) -> AlertView:
        inhibitor = self._inhibitor.inhibitor(known.values)
        silenced = self._silencing(known, now)
        return AlertView(
            known.alert,
            tuple(self._routing.route(place).receiver for place in known.places),
            "suppressed" if silenced or inhibitor is not None else "active",
            silenced,
            () if inhibitor is None else (inhibitor,),
            muted,
        )

    def _count(self, now: float) -> None:
        views = (self._view(known, now) for known in self._known.values() if known.fires)
        states: Counter[str] = Counter(view.state for view in views)
        self._metrics.alerts(states)
        self._metrics.groups(len(self._groups))
        self._metrics.silences(self.silences.counts())

    def _next(self, timer: float) -> float:
        """When, by the timer, there is something to do."""
        times = [self._collect_at]
        if self._due:
            times.append(self._due[0][0])
        if self._deadlines:
            times.append(self._deadlines[0][0])
        if self._news:
            times.append(self._count_at)
        return min(times)


def _fingerprint(known: Known) -> int:
    return known.alert.fingerprint


async def _woken(event: asyncio.Event, seconds: float) -> None:
    """When there is news, or the time is up."""
    loop = asyncio.get_running_loop()
    timer = loop.call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
