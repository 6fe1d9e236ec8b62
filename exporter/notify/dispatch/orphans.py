"""Groups that another configuration has broken up: who was told of their alerts hears of their ends, too.

In Alertmanager what was told of such a group is never told as over, and so it would be here: the new group of an alert
does not tell of an end when it has not told of the alert. Ends that no group has told the endpoint are told under the old
key; and so is the last one of all, because some receivers know groups by their keys, such as incidents at PagerDuty.
Silences hold such an end back, and hours do not: they were the old route's.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from exporter.notify.dispatch.known import Known
from exporter.notify.dispatch.notification_log import Key, NotificationLog


class Orphans:
    """The entries of the notification log whose groups are gone, by the alerts in them that were told as firing."""

    def __init__(self) -> None:
        self._keys: dict[int, dict[Key, bool]] = {}

    def find(self, log: NotificationLog, open_keys: Container[Key]) -> None:
        """Look at the log anew: groups were made by another configuration."""
        self._keys = {}
        for key, told in log.items():
            if key not in open_keys:
                for fingerprint in told.entry.firing:
                    self._keys.setdefault(fingerprint, {})[key] = False

    def heard(self, receiver: str, integration: str, ends: Iterable[int]) -> None:
        """A group has told an endpoint that these alerts have ended."""
        if self._keys:
            for fingerprint in ends:
                for key in self._keys.get(fingerprint, ()):
                    if key[1:] == (receiver, integration):
                        self._keys[fingerprint][key] = True

    def ended(self, alerts: Iterable[Known]) -> dict[Key, list[tuple[Known, bool]]]:
        """The entries that these alerts leave, with whether the endpoint has heard of each end; given only once."""
        found: dict[Key, list[tuple[Known, bool]]] = {}
        if self._keys:
            for known in alerts:
                for key, heard in self._keys.pop(known.alert.fingerprint, {}).items():
                    found.setdefault(key, []).append((known, heard))
        return found
