"""Whether an endpoint is to be told of a group, given what it was last told.

Source: `needsUpdate` in `notify/dedup_stage.go` of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from exporter.notify.outbox.model import LogEntry

_EARLY_SECONDS = 1e-3
"""So much before its time a repetition is made all the same: sums of waits are floating point numbers."""


class Reason(Enum):
    """Why a notification is made, or that none is."""

    NOTHING_NEW = auto()
    FIRST = auto()
    NEW_ALERTS = auto()
    NEW_RESOLVED = auto()
    ALL_RESOLVED = auto()
    REPEAT = auto()


class Told(NamedTuple):
    """An entry of the notification log, and when it was made by the timer: a clock that is set repeats nothing.

    `left_out`: of the entry's firing alerts those that were told earlier, and not in the last notification.
    """

    entry: LogEntry
    since: float
    left_out: frozenset[int] = frozenset()


def reason_to_tell(
    told: Told | None,
    firing: frozenset[int],
    resolved: frozenset[int],
    *,
    send_resolved: bool,
    repeat_interval: float,
    timer: float,
) -> Reason:
    """The reason for a notification about a group in which these fingerprints fire and those have ended.

    Alerts that the last notification left out are news to it, as in Alertmanager; unlike there, so is their end.
    """
    if told is None:
        return Reason.FIRST if firing else Reason.NOTHING_NEW
    entry = told.entry
    said = entry.firing - told.left_out
    if not firing <= said:
        return Reason.NEW_ALERTS if said else Reason.FIRST
    if not firing:
        # Also for who does not want to hear of it: the log must know that nothing fires there any more.
        owed = said or not resolved.isdisjoint(told.left_out)
        return Reason.ALL_RESOLVED if owed else Reason.NOTHING_NEW
    if send_resolved and not resolved <= entry.resolved:
        return Reason.NEW_RESOLVED
    if told.since + repeat_interval - _EARLY_SECONDS <= timer:
        return Reason.REPEAT
    return Reason.NOTHING_NEW
