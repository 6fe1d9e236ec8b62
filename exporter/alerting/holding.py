"""Alerts whose data went away while they fired: nobody knows whether they are over, so they are held until somebody does.

The states of a rule's alerts are Prometheus' own and know nothing of this; what others are told is. Pure. Times: int ms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from exporter.alerting.state import Alert, Move, State, shift
from exporter.storage.model import Labels

GRACE_MS = 120_000
"""How long after a start nobody is told that a remembered alert has no data: scrapes and slow recording rules begin."""

PAUSE_MS = 600_000
"""Longest time between two evaluations that counts as waiting: a machine that slept, or a clock that jumped, has not waited."""

ABSENT_MS = 600_000
"""How long a series may be absent while its source is well before it is taken to be gone for good: the engine came back
with another model name, say. Twice Prometheus' lookback of 5 minutes: by then, a source that is well has given every
series that it still has, however slow it is, and what is recorded from it, over windows of minutes, is there as well."""

ABSENT_STEP_MS = ABSENT_MS // 5
"""Longest time between two evaluations that counts for that, so that several have found it so: one evaluation right after
a machine slept gives nothing up."""

GIVEN_UP = "it had no data for so long that it was given up"
NEVER_BACK = "its series did not come back, although what they come from is well again"
RULE_GONE = "its rule is gone"
"""Why an alert ended other than by its condition; people are told."""

Standing = State | Literal["held"]
"""What others are told of an alert: its state, or that it fired and nobody knows what it does now."""


class Held(NamedTuple):
    """An alert as it last fired; `since` when its data is away, and for how long that was waited at the time `judged`.

    `absent`: for how long its series have been away although their source is well; None where it is not.
    `last`: an evaluation that found it, shortly before it was found no more; None where that is not known.
    `told` false: it was remembered from before a restart, and nobody has been told yet that it has no data.
    """

    alert: Alert
    since: int
    judged: int
    waited: int = 0
    absent: int | None = None
    last: int | None = None
    told: bool = True


class Change(NamedTuple):
    """What others are told; `no_data_since` where it has no data now, or was given up for want of it.

    `reason`: why it ended, where that is not that its condition did.
    """

    alert: Alert
    before: Standing
    after: Standing
    no_data_since: int | None = None
    reason: str = ""


class Holding(NamedTuple):
    """What an evaluation came to: the alerts that are held, the states with what goes on in them, and what is told."""

    held: Mapping[Labels, Held]
    alerts: Mapping[Labels, Alert]
    changes: Sequence[Change]


def hold(
    held: Mapping[Labels, Held],
    alerts: Mapping[Labels, Alert],
    moves: Sequence[Move],
    now: int,
    *,
    timeout: int,
    last: int | None = None,
    known: Callable[[Labels], bool],
    well: Callable[[Labels], bool],
) -> Holding:
    """Judge every alert that stopped firing at this evaluation or is held since an earlier one.

    `known`: whether the data is there, so that an alert that is not found is over. Fires again: it goes on, and has fired
    since the first time; while it is pending it is held. `timeout`: how long an alert is held at most while evaluations go
    on; 0 is for ever. `well`: asked where the data is not there, whether what it comes from is at work, so that it may
    never come again; see ABSENT_MS. `last`: an evaluation that found those that end now.
    """
    held, alerts = dict(held), dict(alerts)
    changes: list[Change] = []
    fresh: dict[Labels, Held] = {}
    for move in moves:
        labels = move.alert.labels
        if labels in held:
            continue
        if move.before == "firing" and move.after == "inactive" and not known(labels):
            fresh[labels] = Held(move.alert, now, now, last=last)
            changes.append(Change(move.alert, "firing", "held", now))
        else:
            changes.append(Change(move.alert, move.before, move.after))
    for labels, before in list(held.items()):
        waited = before.waited + min(max(now - before.judged, 0), PAUSE_MS)
        one = held[labels] = before._replace(judged=now, waited=waited, absent=None)
        alert = alerts.get(labels)
        state = "inactive" if alert is None else alert.state
        if alert is not None and state == "firing":
            alert = alerts[labels] = replace(alert, fired_at=one.alert.fired_at)
            changes.append(Change(alert, "held", "firing"))
            del held[labels]
        elif state == "pending":
            continue
        elif known(labels):
            changes.append(Change(over(one.alert, now), "held", "inactive"))
            del held[labels]
        else:
            one = held[labels] = one._replace(absent=_absent(before, now) if well(labels) else None)
            never_back = one.absent is not None and one.absent >= ABSENT_MS
            if never_back or (timeout and waited >= timeout):
                reason = NEVER_BACK if never_back else GIVEN_UP
                changes.append(Change(over(one.alert, now), "held", "inactive", one.since, reason))
                del held[labels]
            elif not one.told and now - one.since >= GRACE_MS:
                changes.append(Change(one.alert, "firing", "held", one.since))
                held[labels] = one._replace(told=True)
    return Holding({**held, **fresh}, alerts, changes)


def _absent(before: Held, now: int) -> int:
    """For how long the series are away while their source is well; it counts from the second evaluation that finds so."""
    if before.absent is None:
        return 0
    return before.absent + min(max(now - before.judged, 0), ABSENT_STEP_MS)


def release(held: Mapping[Labels, Held], now: int) -> list[Change]:
    """The ends of all held alerts: their rule is gone."""
    return [Change(over(one.alert, now), "held", "inactive", reason=RULE_GONE) for one in held.values()]


def moved(held: Mapping[Labels, Held], by: int) -> Mapping[Labels, Held]:
    """The held alerts with their times moved, for a clock that was set back."""
    alerts = shift({labels: one.alert for labels, one in held.items()}, by)
    return {
        labels: one._replace(
            alert=alerts[labels],
            since=one.since + by,
            judged=one.judged + by,
            last=None if one.last is None else one.last + by,
        )
        for labels, one in held.items()
    }


def over(alert: Alert, now: int) -> Alert:
    """The alert, at its end."""
    return replace(alert, state="inactive", resolved_at=now, keep_firing_since=None)
