"""`/api/v1/notifications`: what is on its way, which endpoints work, and what nobody took. No secret is in it.

Times are RFC 3339 to the millisecond, null where there is none; durations seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from exporter.web.alertmanager import moments

if TYPE_CHECKING:
    from exporter.notify.delivery.status import EndpointStatus, Queued
    from exporter.notify.model import Notification, Outcome
    from exporter.notify.outbox.model import DeadLetter
    from exporter.notify.outbox.stats import OutboxStats

QUEUE_SHOWN = 100
"""So many notifications of each endpoint are shown, the next ones first; `waiting` counts all."""
NAMES_SHOWN = 10
"""So many names of alerts of each notification."""


def overview(
    endpoints: Sequence[EndpointStatus], dead: Sequence[DeadLetter], stats: OutboxStats
) -> dict[str, Any]:
    """The whole answer; dead letters the newest first."""
    return {
        "endpoints": [_endpoint(one) for one in endpoints],
        "dead_letters": [_letter(one) for one in reversed(dead)],
        "outbox": {"problem": stats.problem, "bytes": stats.file_bytes},
    }


def _endpoint(one: EndpointStatus) -> dict[str, Any]:
    queue = sorted(one.queue, key=lambda queued: (not queued.in_flight, queued.next_attempt))
    return {
        "receiver": one.receiver,
        "integration": one.integration,
        "kind": one.kind,
        "circuit": one.circuit,
        "failures_in_a_row": one.failures,
        "next_trial": _time(one.next_trial),
        "last_attempt": _time(one.last_attempt),
        "last_delivered": _time(one.last_delivered),
        "last_outcome": _outcome(one.last_outcome),
        "waiting": len(queue),
        "queue": [_queued(queued) for queued in queue[:QUEUE_SHOWN]],
    }


def _queued(one: Queued) -> dict[str, Any]:
    return _notification(one.notification) | {
        "attempts": one.attempts,
        "in_flight": one.in_flight,
        "next_attempt": None if one.in_flight else _time(one.next_attempt),
        "gives_up_at": _time(one.gives_up_at),
        "outcome": _outcome(one.last),
    }


def _letter(one: DeadLetter) -> dict[str, Any]:
    notification = one.notification
    return {
        **_notification(notification),
        "receiver": notification.receiver,
        "integration": notification.integration,
        "attempts": one.attempts,
        "given_up_at": _time(one.at),
        "outcome": _outcome(one.outcome),
    }


def _notification(one: Notification) -> dict[str, Any]:
    return {
        "number": one.number,
        "status": one.status,
        "repeated": one.repeated,
        "group_key": one.group_key,
        "group_labels": dict(one.group_labels),
        "alerts": len(one.alerts),
        "alert_names": sorted({alert.name for alert in one.alerts})[:NAMES_SHOWN],
        "created_at": _time(one.created_at),
    }


def _outcome(one: Outcome | None) -> dict[str, Any] | None:
    if one is None:
        return None
    return {"result": one.result, "code": one.code, "detail": one.detail, "answer": one.answer[:500]}


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else moments.show(seconds)
