"""The dispatcher: takes alerts in, keeps them in groups, and puts notifications down when groups are due.

Source: `dispatch/dispatch.go` and the stages in `notify/` of https://github.com/prometheus/alertmanager. Unlike there a
notification counts as told when it is put down, because the outbox sees to it that it arrives.

Two clocks: `now`, unix seconds, is what people are shown and what is stored; every wait is by `timer`, which is monotonic
and stands still while the machine sleeps, so that no change of the clock brings a storm.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Sequence

from exporter.notify.config.model import NotifyConfig
from exporter.notify.dispatch.alerts import Alerts
from exporter.notify.dispatch.groups import Groups
from exporter.notify.dispatch.known import Arrival, Group, Known
from exporter.notify.dispatch.muting import Muting
from exporter.notify.dispatch.notification_log import Key, NotificationLog
from exporter.notify.dispatch.orphans import Orphans
from exporter.notify.dispatch.routing import Routing
from exporter.notify.dispatch.teller import Teller
from exporter.notify.dispatch.telling import fingerprints
from exporter.notify.dispatch.views import AlertView, GroupView, alert_views, group_views
from exporter.notify.dispatch.writing import Ledger, Writing
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.model import Alert, Notification
from exporter.notify.outbox.model import Change, Saved
from exporter.notify.silences import Silences

ALERTS_A_TURN = 500
"""Alerts that are taken in before the event loop may do something else."""
GROUPS_A_TURN = 200
"""Groups that are looked at before the event loop may do something else."""
COLLECTED_SECONDS = 900.0
"""How often what is old is forgotten: Alertmanager's maintenance interval."""
COUNTED_SECONDS = 15.0
"""How often the states of alerts are counted for the metrics, while there is news."""
_COUNT_AFTER_SECONDS = 1.0
"""Counting waits so long after news: telling of it comes first."""


class Dispatcher:
    """Everything between an alert and its notifications; event loop only.

    `deliver` gets notifications once they are written down, by number. `forward` gets a receiver's name, and alerts that
    came in and whose routes lead to it, where it has endpoints of the kind `alertmanager`.
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
        self._forward = forward
        self._metrics = metrics if metrics is not None else NotifyMetrics()
        self._clock = clock
        self._timer = timer
        self._writing = Writing(outbox, deliver)
        self.silences = Silences(self._silenced, clock)
        self._log = NotificationLog(self._write)
        self._orphans = Orphans()
        self._teller = Teller(self._log, self._orphans, self._write)
        self._alerts = Alerts(config.inhibitions, self._write, self._metrics.dropped)
        self._routing = Routing(config)
        self._groups = Groups(self._routing)
        self._muting = Muting(self._alerts, self.silences, config.intervals, self._metrics)
        self._arriving: deque[Arrival] = deque()
        self._collect_at = timer() + COLLECTED_SECONDS
        self._count_at = -math.inf
        self._news = True
        self._wake = asyncio.Event()

    def restore(self, saved: Saved) -> None:
        """What the daemon before left behind; before anything is put. Nothing is told in this call."""
        now, timer = self._clock(), self._timer()
        self._teller.go_on_from(saved.next_number)
        self.silences.restore(saved.silences)
        self._log.restore(saved.log, now, timer)
        self._alerts.restore(saved.alerts, self._config.resolve_timeout, now, timer)
        self._place_all(now, timer)
        for group in self._groups:
            since = [
                told.since
                for key in self._routing.log_keys(group)
                if (told := self._log.told(key)) is not None
            ]
            if since:  # It was told of, and waits on from then.
                group.begun = True
                self._groups.schedule(group, max(timer, max(since) + group.route.group_interval))

    def put(self, alerts: Sequence[Alert]) -> None:
        """Alerts that are new, have changed or have ended; told in this very turn where their group need not wait.

        Of very many the rest is taken in, and all are told, in the turns that follow, or before `drain` returns.
        """
        self._arriving.append(Arrival(tuple(alerts)))
        if len(self._arriving) == 1:
            self._take_in(self._clock(), self._timer())

    def announce(self, alert: Alert, receiver: str | None = None) -> None:
        """Tell of something that happens once, such as a report: it joins no group, is not repeated and does not end.

        Without a receiver it goes where its labels lead. Silences hold it back, hours do not. It is not forwarded.
        """
        now = self._clock()
        known = Known(alert, True, self._routing.places(alert.labels))
        if not self._muting.silenced_by(known, now):
            names = dict.fromkeys(self._routing.receivers(known)) if receiver is None else (receiver,)
            for name in names:
                self._teller.announce(alert, self._routing.endpoints(name), now)

    async def run(self) -> None:
        """Look at groups when they are due, and write and hand on what comes of it, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._flushing(), name="notify groups")
            tasks.create_task(self._writing.run(), name="notify outbox")

    async def drain(self) -> None:
        """Write down and hand on all that was put, decided and announced before, also when `run` has been cancelled.

        Once this returns, the outbox has it: on disk, or in memory alone where the disk fails, which the outbox tells.
        """
        last = self._arriving[-1] if self._arriving else None
        while last in self._arriving:
            self._take_in(self._clock(), self._timer())
            await asyncio.sleep(0)
        await self._writing.drain()

    def tick(self) -> float:
        """Do what is due now; gives the seconds until there is something to do again."""
        now, timer = self._clock(), self._timer()
        self._expire(now, timer)
        if self._arriving and not self._take_in(now, timer):
            return 0.0
        for _ in range(GROUPS_A_TURN):
            group = self._groups.due(timer)
            if group is None:
                break
            self._flush(group, now, timer)
        if timer >= self._collect_at:
            self._collect_at = timer + COLLECTED_SECONDS
            self.silences.collect()
            self._collect_log(timer)
        if self._news and timer >= self._count_at:
            self._news = False
            self._count_at = timer + COUNTED_SECONDS
            self._count(now)
        if self._arriving:
            return 0.0
        nexts = (self._collect_at, self._groups.next_due(), self._alerts.next_deadline())
        return max(0.0, min(*nexts, self._count_at if self._news else math.inf) - timer)

    def reload(self, config: NotifyConfig, others: Container[tuple[str, str]] = ()) -> None:
        """Route all alerts anew; what was told stays told, and groups that stay keep their time.

        `others`: the receiver and integration of endpoints that somebody else stands behind now.
        """
        now, timer = self._clock(), self._timer()
        self._log.disown(others)
        for arrival in self._arriving:
            arrival.groups.clear()  # they are made anew, and told when they are due
        # An end that waits in its group would be told nobody by another group, which has not told of the alert.
        for group in [group for group in self._groups if not all(one.fires for one in group.alerts.values())]:
            self._flush(group, now, timer)
        self._collect_log(timer)
        before = {(group.route.receiver, group.key): group for group in self._groups}
        begun = {number for group in self._groups if group.begun for number in group.alerts}
        self._config = config
        self._routing = Routing(config)
        self._groups = Groups(self._routing)
        self._muting = Muting(self._alerts, self.silences, config.intervals, self._metrics)
        self._alerts.inhibit(config.inhibitions)
        for known in self._alerts:
            known.places = None
            known.held = 0
        self._place_all(now, timer)
        for group in self._groups:
            old = before.get((group.route.receiver, group.key))
            if old is not None:
                group.begun = old.begun
                to_others = any(
                    (endpoint.receiver, endpoint.integration) in others
                    for endpoint in self._routing.endpoints(group.route.receiver)
                )
                self._groups.schedule(group, timer if to_others else old.due)
            elif not begun.isdisjoint(group.alerts):
                self._groups.schedule(group, timer)  # Some of it is no news: nobody need gather more.
        self._stir(timer)

    def alerts(self) -> list[AlertView]:
        """Every alert that fires, by fingerprint."""
        now, timer = self._clock(), self._timer()
        self._expire(now, timer)
        return alert_views(self._alerts, self._routing, self._muting, now)

    def groups(self) -> list[GroupView]:
        """Every group with an alert that fires, by its labels and receiver."""
        now, timer = self._clock(), self._timer()
        self._expire(now, timer)
        return group_views(self._groups, self._routing, self._muting, now)

    async def _flushing(self) -> None:
        while True:
            self._wake.clear()
            wait = self.tick()
            if wait:
                await _woken(self._wake, wait)
            else:
                await asyncio.sleep(0)

    def _take_in(self, now: float, timer: float) -> bool:
        """Take in a turn's share of the alerts that came first; whether that was the last of those that came together.

        All are known before any is told of: one of them may hold another back, and they are told together.
        """
        arrival = self._arriving[0]
        some = arrival.alerts[arrival.taken : arrival.taken + ALERTS_A_TURN]
        arrival.taken += len(some)
        self._expire(now, timer)
        taken = self._alerts.take(some, now, timer)
        arrival.groups.update(
            dict.fromkeys(
                group
                for known in taken
                for group in self._groups.place(known, now, timer)
                if group.due <= timer
            )
        )
        complete = arrival.taken >= len(arrival.alerts)
        if complete:
            self._arriving.popleft()
            for group in itertools.islice(arrival.groups, GROUPS_A_TURN):
                self._flush(group, now, timer)
        self._forget([known for known in taken if not known.places and not known.fires], now)
        self._forward_all(taken)
        fires = sum(known.fires for known in taken)
        self._metrics.received("firing", fires)
        self._metrics.received("resolved", len(taken) - fires)
        self._stir(timer)
        return complete

    def _write(self, change: Change) -> None:
        self._writing.add(change)
        self._news = True

    def _silenced(self, change: Change) -> None:
        self._write(change)
        self._stir(self._timer())

    def _stir(self, timer: float) -> None:
        """There is news: the loop shall find out when it is needed next."""
        if not self._news:
            self._count_at = max(self._count_at, timer + _COUNT_AFTER_SECONDS)
        self._news = True
        self._wake.set()

    def _place_all(self, now: float, timer: float) -> None:
        for known in self._alerts:
            self._groups.place(known, now, timer)
        self._forget([known for known in self._alerts if not known.places and not known.fires], now)
        open_keys = {key for group in self._groups for key in self._routing.log_keys(group)}
        self._orphans.find(self._log, open_keys)
        self._forward_all(known for known in self._alerts if known.fires)
        self._wake.set()

    def _expire(self, now: float, timer: float) -> None:
        over = self._alerts.expire(now, timer)
        if over:
            self._forward_all(over)
            self._forget([known for known in over if not known.held], now)

    def _forget(self, over: Sequence[Known], now: float) -> None:
        """Let go of alerts that have ended and are in no group any more."""
        for key, ends in self._orphans.ended(over).items():
            self._leave(key, ends, now)
        self._alerts.forget(over)

    def _leave(self, key: Key, ends: Sequence[tuple[Known, bool]], now: float) -> None:
        """Alerts have ended that an entry has as firing whose group is gone."""
        told_firing = self._log.firing(key)
        self._log.strike(key, fingerprints(known for known, _ in ends))
        left = self._log.firing(key)
        endpoint = self._routing.endpoint(*key[1:])
        if endpoint is None or not endpoint.send_resolved:
            return
        if all(heard for _, heard in ends) and any(one in self._alerts for one in left):
            return
        told = [
            known
            for known, _ in ends
            if known.alert.fingerprint in told_firing and not self._muting.silenced_by(known, now)
        ]
        others = [
            known
            for one in left
            if (known := self._alerts.get(one)) is not None
            and known.fires
            and not self._muting.inhibited_by(known)
            and not self._muting.silenced_by(known, now)
        ]
        if told:
            self._teller.tell_end(key, told, others, endpoint, now)

    def _flush(self, group: Group, now: float, timer: float) -> None:
        """Tell of a group what there is to tell, and let go of the alerts in it that have ended."""
        group.begun = True
        self._groups.schedule(group, timer + group.route.group_interval)
        over = [known for known in group.alerts.values() if not known.fires]
        if endpoints := self._routing.endpoints(group.route.receiver):
            self._teller.tell(group, self._muting.unmuted(group, now), over, endpoints, now, timer)
        for known in over:
            del group.alerts[known.alert.fingerprint]
            known.held -= 1
        self._forget([known for known in over if not known.held], now)
        if not group.alerts:
            self._groups.drop(group)
            self._log.close(self._routing.log_keys(group))

    def _forward_all(self, alerts: Iterable[Known]) -> None:
        """Alerts to the receivers that want them as they are."""
        for receiver, some in self._routing.forwarded(alerts).items():
            self._forward(receiver, some)

    def _collect_log(self, timer: float) -> None:
        self._log.collect({group.key for group in self._groups}, self._alerts, timer)

    def _count(self, now: float) -> None:
        states: Counter[str] = Counter()
        for known in self._alerts:
            if known.fires:
                held = self._muting.inhibited_by(known) or self._muting.silenced_by(known, now)
                states["suppressed" if held else "active"] += 1
        self._metrics.alerts(states)
        self._metrics.groups(len(self._groups))
        self._metrics.silences(self.silences.counts())


async def _woken(event: asyncio.Event, seconds: float) -> None:
    """When there is news, or the time is up."""
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
