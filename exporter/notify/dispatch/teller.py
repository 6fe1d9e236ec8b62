"""Puts down what endpoints are to be told, and notes in the log that they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from exporter.notify.config.model import Endpoint
from exporter.notify.dispatch.dedup import Reason
from exporter.notify.dispatch.keys import labels_in
from exporter.notify.dispatch.known import Group, Known
from exporter.notify.dispatch.muting import Heard
from exporter.notify.dispatch.notification_log import Key, NotificationLog
from exporter.notify.dispatch.orphans import Orphans
from exporter.notify.dispatch.telling import Said, fingerprints
from exporter.notify.fingerprint import show
from exporter.notify.model import ANNOUNCEMENT, Alert, Notification
from exporter.notify.outbox.model import Change, LogEntry
from exporter.storage.model import Labels


class Teller:
    """Makes notifications and their numbers; each is handed to `write` with its entry in the log."""

    def __init__(self, log: NotificationLog, orphans: Orphans, write: Callable[[Change], None]) -> None:
        self._log = log
        self._orphans = orphans
        self._write = write
        self._number = 1

    def go_on_from(self, number: int) -> None:
        """The first number that the daemon before did not use."""
        self._number = max(self._number, number)

    def tell(
        self,
        group: Group,
        heard: Heard,
        over: Iterable[Known],
        endpoints: Sequence[Endpoint],
        now: float,
        timer: float,
    ) -> None:
        """Tell each endpoint what is new to it; `heard` may be told, `over` have ended and leave the group."""
        all_over = fingerprints(over)
        to_all = Said(heard.alerts, now)
        for endpoint in endpoints:
            key = (group.key, endpoint.receiver, endpoint.integration)
            told_firing = self._log.firing(key)
            owed = [known for known in heard.ends if known.alert.fingerprint in told_firing]
            said = Said([*heard.alerts, *owed], now) if owed else to_all
            self._log.strike(key, all_over - said.resolved)
            if not said.alerts:
                continue
            reason = said.reason(endpoint, self._log.told(key), group.route.repeat_interval, timer)
            if reason is Reason.NOTHING_NEW:
                continue
            left_out = frozenset(one for one in told_firing - said.firing if group.fires(one))
            self._log.tell(LogEntry(*key, said.firing | left_out, said.resolved, now), timer, left_out)
            if alerts := said.alerts_for(endpoint):
                repeated = reason is Reason.REPEAT
                self._put_down(endpoint, group.key, group.place.labels, alerts, now, repeated)
                if endpoint.send_resolved:
                    self._orphans.heard(endpoint.receiver, endpoint.integration, said.resolved)

    def tell_end(
        self, key: Key, over: Sequence[Known], others: Iterable[Known], endpoint: Endpoint, now: float
    ) -> None:
        """Tell of the end of alerts whose group is gone; `others` of it fire on."""
        alerts = Said([*over, *others], now).told
        labels = labels_in(key[0], over[0].alert.labels)
        self._put_down(endpoint, key[0], labels, alerts, now)

    def announce(self, alert: Alert, endpoints: Iterable[Endpoint], now: float) -> None:
        """Tell endpoints of something that happens once."""
        # A group of its own, so that no later one takes its place while it waits for its receiver.
        key = f"{ANNOUNCEMENT}{show(alert.fingerprint)}:{alert.starts_at:.3f}"
        for endpoint in endpoints:
            self._put_down(endpoint, key, alert.labels, (alert,), now)

    def _put_down(
        self,
        endpoint: Endpoint,
        key: str,
        labels: Labels,
        alerts: tuple[Alert, ...],
        now: float,
        repeated: bool = False,
    ) -> None:
        notification = Notification(
            self._number, endpoint.receiver, endpoint.integration, key, labels, alerts, now, repeated
        )
        self._number += 1
        self._write(Change(notifications=(notification,)))
