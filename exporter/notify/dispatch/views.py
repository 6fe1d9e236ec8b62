"""Alerts and groups as the API shows them.

Source: `api/v2/api.go` of https://github.com/prometheus/alertmanager: states are found when they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
