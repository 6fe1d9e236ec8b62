"""The notification log: what every endpoint was last told of every group.

Source: `nflog/nflog.go` of https://github.com/prometheus/alertmanager. Unlike there an entry is made when a notification
is put down, and an alert that ends unseen, while something mutes it, is struck from the entries: should it fire again,
that is news. And an alert that was told as firing stays in its entry until its end is told or it is struck, though a
later notification leaves it out because something mutes it: else nobody would know that its end is to be told.
"""

from __future__ import annotations

from collections.abc import Callable, Container, ItemsView, Iterable

from exporter.notify.dispatch.dedup import Told
from exporter.notify.outbox.model import Change, LogEntry

Key = tuple[str, str, str]

KEPT_SECONDS = 120 * 3600.0
"""Age at which the entry of a group that is not there any more is forgotten: Alertmanager's `--data.retention`."""


class NotificationLog:
    """The entries in memory; each change is written down by `write`."""

    def __init__(self, write: Callable[[Change], None]) -> None:
        self._write = write
        self._told: dict[Key, Told] = {}

    def restore(self, entries: Iterable[LogEntry], now: float, timer: float) -> None:
        """The log of the daemon before; what it says of a time to come was now."""
        for entry in entries:
            self._told[entry[:3]] = Told(entry, timer - max(0.0, now - entry.at))

    def told(self, key: Key) -> Told | None:
        """What an endpoint was last told of a group."""
        return self._told.get(key)

    def items(self) -> ItemsView[Key, Told]:
        """All that endpoints were last told."""
        return self._told.items()

    def firing(self, key: Key) -> frozenset[int]:
        """The alerts that an endpoint was told of, and not of their end."""
        told = self._told.get(key)
        return frozenset() if told is None else told.entry.firing

    def tell(self, entry: LogEntry, timer: float, left_out: frozenset[int] = frozenset()) -> None:
        """A notification is put down, or the log is to know what nobody is told; see `Told` for what is left out."""
        self._told[entry[:3]] = Told(entry, timer, left_out)
        self._write(Change(log=(entry,)))

    def strike(self, key: Key, fingerprints: frozenset[int]) -> None:
        """These alerts have ended, and the endpoint is not told so."""
        told = self._told.get(key)
        if told is not None and not fingerprints.isdisjoint(told.entry.firing):
            entry = told.entry._replace(firing=told.entry.firing - fingerprints)
            self._told[key] = Told(entry, told.since, told.left_out - fingerprints)
            self._write(Change(log=(entry,)))

    def close(self, keys: Iterable[Key]) -> None:
        """A group is gone: an entry in which nothing fires says no more than none."""
        gone = tuple(key for key in keys if (told := self._told.get(key)) and not told.entry.firing)
        self._forget(gone)

    def collect(self, open_groups: Container[str], alerts: Container[int], timer: float) -> None:
        """Of groups that are gone, as after a reload: strike the alerts that are gone, too, and forget what is old."""
        orphans = [(key, told) for key, told in self._told.items() if key[0] not in open_groups]
        forgotten: list[Key] = []
        for key, told in orphans:
            gone = frozenset(one for one in told.entry.firing if one not in alerts)
            if gone == told.entry.firing or told.since + KEPT_SECONDS <= timer:
                forgotten.append(key)
            else:
                self.strike(key, gone)
        self._forget(tuple(forgotten))

    def disown(self, endpoints: Container[tuple[str, str]]) -> None:
        """By these names of receiver and integration somebody else is reached now, who was told nothing."""
        self._forget(tuple(key for key in self._told if key[1:] in endpoints))

    def _forget(self, keys: tuple[Key, ...]) -> None:
        if keys:
            for key in keys:
                del self._told[key]
            self._write(Change(gone_log=keys))
