"""What an alert is after it has come in again: one alert, or a new one in its place.

Source: `Alerts.Put` in `provider/mem/mem.go` and `Alert.Merge` in `alert/alert.go` of
https://github.com/prometheus/alertmanager. There the younger alert rules; here it is the one that comes later, whatever
the clock has done in between.
"""

from __future__ import annotations

import math
from dataclasses import replace

from exporter.notify.model import Alert

SLACK_SECONDS = 1.0
"""An end so little ahead has come: times of evaluations are rounded to milliseconds, and clocks are corrected."""


def end_of(alert: Alert) -> float:
    """When it ends unless something else is said; infinity where it fires until further notice."""
    if alert.ends_at is not None:
        return alert.ends_at
    return alert.until if alert.until is not None else math.inf


def arrived(alert: Alert, endless: bool, now: float) -> Alert:
    """An alert as it came in: one that has ended has no end ahead, and one whose end is ahead has it as `until`, too.

    `endless`: it is known to fire until further notice, as only our rules have it; then an end is that notice, though it
    is ahead because the clock has been set back. Others know an end before it comes.
    """
    if alert.ends_at is None or alert.ends_at <= now:
        return alert
    if endless or alert.ends_at <= now + SLACK_SECONDS:
        return replace(alert, starts_at=min(alert.starts_at, now), ends_at=now, until=None)
    return replace(alert, until=alert.ends_at)


def ended(alert: Alert, now: float) -> Alert:
    """An alert whose time is up."""
    return replace(alert, ends_at=min(end_of(alert), now), until=None)


def merged(old: Alert, old_fires: bool, new: Alert, now: float) -> Alert:
    """Of an alert that is known and one of the same labels that comes in: the one that stands from now on."""
    old_end, new_end = end_of(old), end_of(new)
    overlap = old.starts_at < new_end < old_end or old.starts_at < new.starts_at < old_end
    if not overlap:
        return new
    starts_at = min(old.starts_at, new.starts_at)
    ends_at, until = new.ends_at, new.until
    if new_end <= now:
        if not old_fires and old_end > new_end:
            ends_at, until = min(old_end, now), None  # the clock may have been set back since
    elif old_fires and old_end > new_end and not _timed_out(old):
        ends_at, until = old.ends_at, old.until
    if (starts_at, ends_at, until) == (new.starts_at, new.ends_at, new.until):
        return new
    return replace(new, starts_at=starts_at, ends_at=ends_at, until=until)


def _timed_out(alert: Alert) -> bool:
    """Whether its end is only when nobody has said anything for too long."""
    return alert.ends_at is None and alert.until is not None


def same(one: Alert, other: Alert) -> bool:
    """Whether nothing but the time of the news differs."""
    return (
        one.annotations == other.annotations
        and one.starts_at == other.starts_at
        and one.ends_at == other.ends_at
        and one.no_data_since == other.no_data_since
        and one.generator_url == other.generator_url
        and one.until == other.until
    )
