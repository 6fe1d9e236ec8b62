"""The state of one rule's alerts: what an evaluation makes of what was before, as Prometheus 3 has it.

An alert is known by its labels. It is pending while its condition has held for less than `for`, then firing; when the
condition ends it is gone, or kept firing for `keep_firing_for`. One that fired stays known as inactive for a while, so
that its end can be told more than once. No clock, no I/O. Times and durations: int milliseconds.
Source: `AlertingRule.Eval` in https://github.com/prometheus/prometheus/blob/main/rules/alerting.go
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from exporter.storage.model import Labels

State = Literal["inactive", "pending", "firing"]

RESOLVED_RETENTION_MS = 15 * 60_000
"""How long an alert that fired is remembered; `resolvedRetention` in Prometheus."""

DUPLICATE = "vector contains metrics with the same labelset after applying alert labels"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; `labels` has the alert's name, and no `__name__`. `value` and `annotations` are the last ones."""

    labels: Labels
    annotations: Labels
    value: float
    state: State
    active_at: int
    fired_at: int | None = None
    resolved_at: int | None = None
    """When it ended; set only while it is inactive."""
    keep_firing_since: int | None = None
    """When its condition ended, while it is kept firing."""


class Found(NamedTuple):
    """One element of the expression's result, with labels and annotations expanded."""

    labels: Labels
    annotations: Labels
    value: float


class Terms(NamedTuple):
    """What the rule says of time, and the group of numbers; `limit` 0 is any number."""

    hold: int
    keep_firing: int
    limit: int


class Move(NamedTuple):
    """An alert that changed its state; `alert` is as it is now, inactive where it is gone."""

    alert: Alert
    before: State
    after: State


class Step(NamedTuple):
    """What an evaluation came to; with an `error` the rule failed, and no series are written."""

    alerts: Mapping[Labels, Alert]
    moves: Sequence[Move]
    error: str | None = None


def step(previous: Mapping[Labels, Alert], found: Sequence[Found], terms: Terms, now: int) -> Step:
    """The alerts after an evaluation at `now`; a result that names an alert twice changes nothing.

    More active alerts than the limit: the rule fails, and all its alerts are forgotten.
    """
    by_labels = {one.labels: one for one in found}
    if len(by_labels) != len(found):
        return Step(previous, (), DUPLICATE)
    alerts: dict[Labels, Alert] = {}
    moves: list[Move] = []
    for labels, alert in previous.items():
        after = _advance(alert, by_labels.pop(labels, None), terms, now)
        if after is not None:
            alerts[labels] = after
        elif alert.state != "inactive":
            after = replace(alert, state="inactive", resolved_at=now, keep_firing_since=None)
        if after is not None and after.state != alert.state:
            moves.append(Move(after, alert.state, after.state))
    for labels, one in by_labels.items():
        alert = alerts[labels] = _begin(one, terms, now)
        moves.append(Move(alert, "inactive", alert.state))
    active = sum(alert.state != "inactive" for alert in alerts.values())
    if terms.limit and active > terms.limit:
        return Step({}, forget(previous, now), f"exceeded limit of {terms.limit} with {active} alerts")
    return Step(alerts, moves)


def forget(alerts: Mapping[Labels, Alert], now: int) -> list[Move]:
    """The ends of all alerts: of a rule that is gone, or that exceeded its limit."""
    return [
        Move(
            replace(alert, state="inactive", resolved_at=now, keep_firing_since=None), alert.state, "inactive"
        )
        for alert in alerts.values()
        if alert.state != "inactive"
    ]


def shift(alerts: Mapping[Labels, Alert], by: int) -> Mapping[Labels, Alert]:
    """The alerts with their times moved: for a clock that was set back, so that what has passed counts on."""

    def moved(at: int | None) -> int | None:
        return None if at is None else at + by

    return {
        labels: replace(
            alert,
            active_at=alert.active_at + by,
            fired_at=moved(alert.fired_at),
            resolved_at=moved(alert.resolved_at),
            keep_firing_since=moved(alert.keep_firing_since),
        )
        for labels, alert in alerts.items()
    }


def _begin(one: Found, terms: Terms, now: int) -> Alert:
    alert = Alert(one.labels, one.annotations, one.value, "pending", now)
    return alert if terms.hold > 0 else replace(alert, state="firing", fired_at=now)


def _advance(alert: Alert, one: Found | None, terms: Terms, now: int) -> Alert | None:
    """A known alert after an evaluation; None when it is forgotten."""
    if alert.state == "inactive":
        if one is not None:
            return _begin(one, terms, now)
        assert alert.resolved_at is not None
        return None if now - alert.resolved_at > RESOLVED_RETENTION_MS else alert
    kept_since: int | None = None
    if one is None:
        if alert.state == "pending":
            return None
        kept_since = now if alert.keep_firing_since is None else alert.keep_firing_since
        if now - kept_since >= terms.keep_firing:
            return replace(alert, state="inactive", resolved_at=now, keep_firing_since=None)
        value, annotations = alert.value, alert.annotations
    else:
        value, annotations = one.value, one.annotations
        if annotations == alert.annotations:
            annotations = alert.annotations  # which others were told of, too, and keep
    state: State = "firing" if now - alert.active_at >= terms.hold else "pending"
    if state == "pending":
        # Also one that fired: its rule has a longer `for` now.
        return replace(
            alert, value=value, annotations=annotations, state=state, fired_at=None, keep_firing_since=None
        )
    fired_at = now if alert.state == "pending" else alert.fired_at
    after = (value, annotations, state, fired_at, kept_since)
    if after == (alert.value, alert.annotations, alert.state, alert.fired_at, alert.keep_firing_since):
        return alert
    return replace(
        alert,
        value=value,
        annotations=annotations,
        state=state,
        fired_at=fired_at,
        keep_firing_since=kept_since,
    )
