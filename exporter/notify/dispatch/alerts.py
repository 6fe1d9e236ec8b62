"""All alerts that are known, which of them fire, and which hold others back.

Source: `provider/mem/mem.go` of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import structlog

from exporter.notify.config.model import Inhibition
from exporter.notify.dispatch.inhibition import Inhibitor
from exporter.notify.dispatch.known import Known
from exporter.notify.dispatch.merging import arrived, end_of, ended, merged, same
from exporter.notify.model import Alert
from exporter.notify.outbox.model import Change

log = structlog.get_logger(__name__)

MOST = 100_000
"""Alerts that are known at a time. Of more, pushed ones are dropped; one of a rule takes the place of one that was pushed,
so that whoever can push cannot keep the daemon's own from being told. What rules tell of, their own limits bound."""


class Alerts:
    """The alerts by fingerprint; every change is written down by `write`.

    Those that were pushed for a time end by `timer`, as do all waits: when the machine has slept, their senders have, too.
    """

    def __init__(
        self,
        rules: Sequence[Inhibition],
        write: Callable[[Change], None],
        dropped: Callable[[int], None] = lambda count: None,
        most: int = MOST,
    ) -> None:
        self._inhibitor = Inhibitor(rules)
        self._write = write
        self._dropped = dropped
        self._most = most
        self._known: dict[int, Known] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._pushed: dict[int, None] = {}
        self._full = False

    def __iter__(self) -> Iterator[Known]:
        return iter(self._known.values())

    def __contains__(self, fingerprint: object) -> bool:
        return fingerprint in self._known

    def get(self, fingerprint: int) -> Known | None:
        """One alert."""
        return self._known.get(fingerprint)

    def restore(self, alerts: Iterable[Alert], resolve_timeout: float, now: float, timer: float) -> None:
        """The alerts of the daemon before; whoever pushed one has `resolve_timeout` seconds to do it again."""
        for alert in alerts:
            known = self._known[alert.fingerprint] = Known(alert, False)
            left = math.inf if alert.ends_at is None else 0.0  # ended, whatever the clock says now
            if alert.until is not None:
                left = resolve_timeout if alert.ends_at is None else max(alert.ends_at - now, resolve_timeout)
            self._judge(known, left, timer)

    def take(self, alerts: Iterable[Alert], now: float, timer: float) -> list[Known]:
        """Alerts that come in, as they are known from now on; without those for which there is no room."""
        taken: list[Known] = []
        changed: list[Alert] = []
        dropped = 0
        for alert in alerts:
            known = self._known.get(alert.fingerprint)
            endless = known is not None and end_of(known.alert) == math.inf
            alert = arrived(alert, endless, now)
            if known is None:
                if not self._room(alert, timer):
                    dropped += 1
                    continue
                known = self._known[alert.fingerprint] = Known(alert, False)
                changed.append(alert)
            else:
                alert = merged(known.alert, known.fires, alert, now)
                if not same(known.alert, alert):
                    changed.append(alert)
                known.alert = alert
            self._judge(known, end_of(alert) - now, timer)
            taken.append(known)
        if dropped:
            self._dropped(dropped)
        if changed:
            self._write(Change(alerts=tuple(changed)))
        return taken

    def expire(self, now: float, timer: float) -> list[Known]:
        """End those that were pushed for a time that is up."""
        over: list[Known] = []
        while self._deadlines and self._deadlines[0][0] <= timer:
            deadline, fingerprint = heapq.heappop(self._deadlines)
            known = self._known.get(fingerprint)
            if known is not None and known.deadline == deadline:
                known.alert = ended(known.alert, now)
                self._judge(known, 0, timer)
                over.append(known)
        if over:
            self._write(Change(alerts=tuple(known.alert for known in over)))
        return over

    def forget(self, alerts: Iterable[Known]) -> None:
        """Alerts that have ended, and that nobody has to be told of."""
        gone = tuple(known.alert.fingerprint for known in alerts)
        if gone:
            for fingerprint in gone:
                self._known.pop(fingerprint, None)
            self._write(Change(gone=gone))

    def inhibit(self, rules: Sequence[Inhibition]) -> None:
        """Other rules from now on."""
        self._inhibitor = Inhibitor(rules)
        for known in self:
            if known.fires:
                self._inhibitor.fires(known.alert.fingerprint, known.values)

    def inhibitor(self, values: Mapping[str, str]) -> int | None:
        """The fingerprint of an alert that holds back one with these labels."""
        return self._inhibitor.inhibitor(values)

    def next_deadline(self) -> float:
        """When, by the timer, `expire` has something to do."""
        return self._deadlines[0][0] if self._deadlines else math.inf

    def _judge(self, known: Known, left: float, timer: float) -> None:
        """Note whether an alert fires, and for how many seconds unless more news come."""
        fingerprint = known.alert.fingerprint
        known.fires = left > 0
        known.deadline = None
        if left <= 0 or left == math.inf:
            self._pushed.pop(fingerprint, None)
        if not known.fires:
            self._inhibitor.ends(fingerprint, known.values)
            return
        self._inhibitor.fires(fingerprint, known.values)
        if left < math.inf:
            self._pushed[fingerprint] = None
            known.deadline = timer + left
            heapq.heappush(self._deadlines, (known.deadline, fingerprint))

    def _room(self, alert: Alert, timer: float) -> bool:
        full = len(self._known) >= self._most
        if full and not self._full:
            log.warning(
                "too_many_alerts", limit=self._most, consequence="of those that are pushed no more are told"
            )
        self._full = full
        if not full:
            return True
        if end_of(alert) < math.inf:
            return False
        if self._pushed:
            # Its time is up: it leaves as any other does, and whoever was told of it hears of its end.
            fingerprint, _ = self._pushed.popitem()
            known = self._known[fingerprint]
            known.deadline = timer
            heapq.heappush(self._deadlines, (timer, fingerprint))
            self._dropped(1)
        return True
