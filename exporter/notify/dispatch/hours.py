"""Whether the hour holds a route's notifications back.

Source: `TimeActiveStage` and `TimeMuteStage` in `notify/mute.go` of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from exporter.notify.config.model import Route
from exporter.notify.intervals import TimeInterval


class Muted(NamedTuple):
    """Why a route is mute, as Alertmanager's metrics name it, and the names of the intervals that make it so."""

    reason: str
    by: tuple[str, ...]


def muted_by(route: Route, intervals: Mapping[str, TimeInterval], now: float) -> Muted | None:
    """What mutes a route at a time; None where nothing does."""
    if route.active_times and not any(intervals[name].contains(now) for name in route.active_times):
        return Muted("active_time_interval", route.active_times)
    within = tuple(name for name in route.mute_times if intervals[name].contains(now))
    return Muted("mute_time_interval", within) if within else None
