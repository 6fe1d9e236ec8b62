"""All that the file should hold, in memory: it is written from here anew when it was lost, or could not be written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from exporter.notify.model import Notification, Outcome
from exporter.notify.outbox.model import Change, DeadLetter, Identities, LogEntry, Saved, Silence

DEAD_LETTERS = 1_000
"""Most dead letters that are kept; the oldest go first."""
DEAD_ALERTS = 20_000
"""Most alerts in all dead letters together."""


class Tried(NamedTuple):
    """Of a notification that is still wanted: its attempts up to now, and what became of the last."""

    number: int
    attempts: int
    outcome: Outcome


class Delta(NamedTuple):
    """What one transaction does: a change, or what became of notifications."""

    change: Change = Change()
    struck: tuple[int, ...] = ()
    """Numbers of notifications and dead letters that are done with."""
    tried: tuple[Tried, ...] = ()
    buried: tuple[DeadLetter, ...] = ()
    revived: tuple[int, ...] = ()
    stamps: tuple[tuple[int, str], ...] = ()
    """Of the change's notifications, by number: the identity of its endpoint, where it is known."""
    identities: Identities | None = None
    """Those of the configuration as it is now."""


class Kept:
    """The present state; `apply` takes the same steps here as the file takes."""

    def __init__(
        self,
        saved: Saved | None = None,
        tried: Mapping[int, Tried] | None = None,
        identity: Mapping[int, str] | None = None,
        identities: Identities | None = None,
    ) -> None:
        saved = saved or Saved()
        self.alerts = {alert.fingerprint: alert for alert in saved.alerts}
        self.log: dict[tuple[str, str, str], LogEntry] = {entry[:3]: entry for entry in saved.log}
        self.silences: dict[str, Silence] = {silence.id: silence for silence in saved.silences}
        self.pending: dict[int, Notification] = {one.number: one for one in saved.pending}
        self.tried: dict[int, Tried] = dict(tried or {})
        self.dead: dict[int, DeadLetter] = {letter.notification.number: letter for letter in saved.dead}
        self.identity: dict[int, str] = dict(identity or {})
        """Of the endpoints that notifications and dead letters are for, by number, where it is known."""
        self.identities = identities or Identities(os.urandom(16), {})
        self.next_number = saved.next_number

    def copy(self) -> Kept:
        """For another thread."""
        return Kept(self.saved(), self.tried, self.identity, self.identities)

    def saved(self) -> Saved:
        """As the next daemon would find it."""
        return Saved(
            tuple(self.alerts.values()),
            tuple(self.log.values()),
            tuple(self.silences.values()),
            tuple(self.pending[number] for number in sorted(self.pending)),
            tuple(self.dead.values()),
            self.next_number,
        )

    def apply(self, delta: Delta) -> None:
        """Carry a delta out."""
        change = delta.change
        if delta.identities is not None:
            self.identities = delta.identities
        for notification in change.notifications:
            self.pending[notification.number] = notification
            self.next_number = max(self.next_number, notification.number + 1)
        for number, stamp in delta.stamps:
            self.identity[number] = stamp
        for entry in change.log:
            self.log[entry[:3]] = entry
        for key in change.gone_log:
            self.log.pop(key, None)
        for alert in change.alerts:
            self.alerts[alert.fingerprint] = alert
        for fingerprint in change.gone:
            self.alerts.pop(fingerprint, None)
        for silence in change.silences:
            self.silences[silence.id] = silence
        for name in change.expired_silences:
            self.silences.pop(name, None)
        for number in delta.struck:
            self.pending.pop(number, None)
            self.tried.pop(number, None)
            self.dead.pop(number, None)
            self.identity.pop(number, None)
        for tried in delta.tried:
            if tried.number in self.pending:
                self.tried[tried.number] = tried
        for letter in delta.buried:
            self.pending.pop(letter.notification.number, None)
            self.tried.pop(letter.notification.number, None)
            self.dead[letter.notification.number] = letter
        for number in delta.revived:
            if revived := self.dead.pop(number, None):
                self.pending[number] = revived.notification

    def too_many_dead(self) -> Iterator[int]:
        """Numbers of the oldest dead letters, as many as are over the limits; the newest always stays."""
        letters = len(self.dead)
        alerts = sum(len(letter.notification.alerts) for letter in self.dead.values())
        for number, letter in self.dead.items():
            if letters <= 1 or (letters <= DEAD_LETTERS and alerts <= DEAD_ALERTS):
                return
            letters -= 1
            alerts -= len(letter.notification.alerts)
            yield number
