"""Alerts and groups as the API shows them.

Source: `api/v2/api.go` of https://github.com/prometheus/alertmanager: states are found when they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from exporter.notify.dispatch.known import Group, Known
from exporter.notify.dispatch.muting import Muting
from exporter.notify.dispatch.ordering import before_key, in_order
from exporter.notify.dispatch.routing import Routing
from exporter.notify.model import Alert
from exporter.storage.model import Labels

AlertState = Literal["active", "suppressed", "unprocessed"]


@dataclass(frozen=True, slots=True)
class AlertView:
    """One alert that fires; `receivers` in the order of the routes that it takes.

    `silenced_by`: ids of silences; `inhibited_by`: the fingerprint of one alert; `muted_by`: names of time intervals, only
    where the alert is shown in a group.
    """

    alert: Alert
    receivers: tuple[str, ...]
    state: AlertState
    silenced_by: tuple[str, ...] = ()
    inhibited_by: tuple[int, ...] = ()
    muted_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupView:
    """One group with the alerts in it that fire, in their order."""

    receiver: str
    key: str
    labels: Labels
    alerts: tuple[AlertView, ...]
    muted_by: tuple[str, ...] = ()


def alert_views(alerts: Iterable[Known], routing: Routing, muting: Muting, now: float) -> list[AlertView]:
    """Those that fire, by fingerprint."""
    firing = sorted((known for known in alerts if known.fires), key=lambda known: known.alert.fingerprint)
    return [_view(known, routing, muting, now) for known in firing]


def group_views(groups: Iterable[Group], routing: Routing, muting: Muting, now: float) -> list[GroupView]:
    """Those in which something fires, by labels and receiver."""
    views = [view for group in groups if (view := _group_view(group, routing, muting, now)).alerts]
    before = before_key(view.labels for view in views)
    return sorted(views, key=lambda view: (before(view.labels), view.receiver))


def _view(
    known: Known, routing: Routing, muting: Muting, now: float, muted: tuple[str, ...] = ()
) -> AlertView:
    inhibited, silenced = muting.inhibited_by(known), muting.silenced_by(known, now)
    state: AlertState = "suppressed" if inhibited or silenced else "active"
    return AlertView(known.alert, routing.receivers(known), state, silenced, inhibited, muted)


def _group_view(group: Group, routing: Routing, muting: Muting, now: float) -> GroupView:
    muted = muting.hours(group, now)
    ordered = in_order(known.alert for known in group.alerts.values() if known.fires)
    alerts = [_view(group.alerts[alert.fingerprint], routing, muting, now, muted) for alert in ordered]
    return GroupView(group.route.receiver, group.key, group.place.labels, tuple(alerts), muted)
