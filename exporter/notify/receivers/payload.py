"""Alertmanager's webhook payload, version 4, for consumers that were written for Alertmanager.

Source of the fields and their order: `Message` in `notify/webhook/webhook.go` and `Data` in `template/template.go` of
https://github.com/prometheus/alertmanager (v0.25; later versions add fields).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from exporter.notify.fingerprint import show
from exporter.notify.model import Alert, Notification
from exporter.storage.model import Labels

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time: the end of an alert that fires."""
NO_DATA = "no_data"
"""The annotation of an alert that fires on because nobody can say whether it still would."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GO_META = re.compile(r"[\\.+*?()|\[\]{}^$]")


def payload(notification: Notification, external_url: str, max_alerts: int = 0) -> dict[str, Any]:
    """The payload as JSON values, keys in Alertmanager's order; with `max_alerts` 0 no alert is left out.

    Labels and annotations in common are those of the alerts that stay, as in Alertmanager. The status is of all of
    them, where Alertmanager's is of those that stay: a group in which something fires is never called resolved.
    """
    told = _told(notification, max_alerts)
    return _fields(notification, external_url, told, [_alert(one, notification.created_at) for one in told])


def encoded(notification: Notification, external_url: str, max_alerts: int = 0) -> bytes:
    """The payload in JSON. Alert by alert: as values, those of a storm would take ten times what their text takes."""
    told = _told(notification, max_alerts)
    fields = _fields(notification, external_url, told, ())
    parts: list[bytes] = []
    for name, value in fields.items():
        parts += (b"," if parts else b"{", encode(name), b":")
        if name != "alerts":
            parts.append(encode(value))
            continue
        before = b"["
        for alert in told:
            parts += (before, encode(_alert(alert, notification.created_at)))
            before = b","
        parts.append(b"]" if told else b"[]")
    return b"".join((*parts, b"}"))


def _told(notification: Notification, max_alerts: int) -> list[Alert]:
    """The alerts that are not left out."""
    alerts = notification.alerts[:max_alerts] if max_alerts else notification.alerts
    return [with_no_data(alert) for alert in alerts]


def _fields(
    notification: Notification, external_url: str, told: Sequence[Alert], alerts: Sequence[Any]
) -> dict[str, Any]:
    return {
        "receiver": _GO_META.sub(r"\\\g<0>", notification.receiver),
        "status": notification.status,
        "alerts": alerts,
        "groupLabels": dict(notification.group_labels),
        "commonLabels": common([alert.labels for alert in told]),
        "commonAnnotations": common([alert.annotations for alert in told]),
        "externalURL": external_url,
        "version": "4",
        "groupKey": notification.group_key,
        "truncatedAlerts": len(notification.alerts) - len(told),
    }


def encode(value: object) -> bytes:
    """JSON in UTF-8; what is no text (a lone surrogate) becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def time_text(at: float) -> str:
    """RFC 3339 in UTC as Go prints it: as many digits of the second as there are, at most microseconds."""
    moment = _EPOCH + timedelta(microseconds=round(at * 1e6))
    digits = f".{moment.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%dT%H:%M:%S}{digits}Z" if moment.year >= 1000 else NEVER


def with_no_data(alert: Alert) -> Alert:
    """The alert with an annotation that says since when there is no data, where there is none."""
    if alert.no_data_since is None or alert.ends_at is not None:
        return alert
    text = f"no data since {time_text(round(alert.no_data_since))}: it fired then, and whether it still would is unknown"
    return replace(alert, annotations=_set(alert.annotations, NO_DATA, text))


def common(sets: Sequence[Labels]) -> dict[str, str]:
    """The pairs that all label sets share, by name."""
    if not sets:
        return {}
    first, *others = sets
    shared = set(first)
    for one in others:
        if not shared:
            break
        shared.intersection_update(one)
    return {name: value for name, value in first if (name, value) in shared}


def _alert(alert: Alert, at: float) -> dict[str, Any]:
    status = alert.status(at)
    ended = status == "resolved" and alert.ends_at is not None
    return {
        "status": status,
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "startsAt": time_text(alert.starts_at),
        "endsAt": time_text(alert.ends_at or 0.0) if ended else NEVER,
        "generatorURL": alert.generator_url,
        "fingerprint": show(alert.fingerprint),
    }


def _set(labels: Labels, name: str, value: str) -> Labels:
    return tuple(sorted([*(pair for pair in labels if pair[0] != name), (name, value)]))
