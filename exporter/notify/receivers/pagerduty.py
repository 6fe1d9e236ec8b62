"""PagerDuty's Events API v2: a group of alerts is one incident, triggered by it and resolved with it.

What is only announced, such as a report, is a change event: nothing would ever resolve an incident that it opened.

Sources: https://developer.pagerduty.com/docs/send-alert-event, https://developer.pagerduty.com/docs/send-change-event and
`notify/pagerduty/pagerduty.go` of https://github.com/prometheus/alertmanager, from which the key comes: the same group is
the same incident to both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from yarl import URL

from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import PagerdutyOptions
from exporter.notify.message import Message, Notice, cut, rank
from exporter.notify.model import Context, Notification, Outcome
from exporter.notify.receivers.answers import outcome_of
from exporter.notify.receivers.composing import beside, composed
from exporter.notify.receivers.http import (
    HttpClient,
    SessionFactory,
    open_session,
    place,
)
from exporter.notify.receivers.payload import common, encode, time_text
from exporter.notify.receivers.transport import transport_of

EVENT_BYTES = 512_000
"""Largest event that PagerDuty takes."""
SUMMARY_CHARACTERS = 1024

_SEVERITIES = ("critical", "error", "warning", "info", "info")
"""PagerDuty's words by an alert's rank."""


class Pagerduty:
    """One integration key."""

    kind = "pagerduty"

    def __init__(self, endpoint: Endpoint, session_factory: SessionFactory = open_session) -> None:
        options = endpoint.options
        assert isinstance(options, PagerdutyOptions)
        self.send_resolved = endpoint.send_resolved
        self._options = options
        alerts = URL(options.url)
        self._changes = str(alerts.parent / "change" / alerts.name)
        self._who = place(alerts)
        self._client = HttpClient(
            transport_of(
                options.http_config,
                f"{endpoint.receiver}/{endpoint.integration}",
                timeout=options.timeout,
                urls=(options.url, self._changes),
                secrets=(options.routing_key,),
            ),
            session_factory,
        )
        self.timeout = self._client.longest

    async def send(self, notification: Notification, context: Context) -> Outcome:
        """One attempt."""
        url, make = (self._changes, change) if notification.is_announcement else (self._options.url, event)
        body = await beside(notification, lambda: encode(make(notification, context, self._options)))
        headers = {"Content-Type": "application/json"}
        answer = await self._client.post(url, body, headers, now=context.now)
        return outcome_of(answer, self._who)

    async def close(self) -> None:
        """Let connections go."""
        await self._client.close()


def event(notification: Notification, context: Context, options: PagerdutyOptions) -> dict[str, Any]:
    """The event as JSON values; without its details where it would be too large with them."""
    firing = notification.status == "firing"
    message = composed(notification, context)
    shared = common([alert.labels for alert in notification.alerts])
    inner: dict[str, Any] = {
        **_head(message, notification, context, options, shared),
        "severity": options.severity or severity(notification),
        "component": options.component or shared.get("model_name", ""),
        "group": options.group or shared.get("job", ""),
        "class": options.class_ or shared.get("alertname", ""),
    }
    inner = {name: value for name, value in inner.items() if value}
    whole: dict[str, Any] = {
        "routing_key": options.routing_key.get_secret_value(),
        "event_action": "trigger" if firing else "resolve",
        "dedup_key": hashlib.sha256(notification.group_key.encode("utf-8", "replace")).hexdigest(),
        "client": options.client or "vllm-exporter",
        "client_url": options.client_url or context.external_url,
        "links": _links(message.console, [notice.runbook for notice in message.notices]),
    }
    details = {
        "num_firing": str(
            sum(alert.status(notification.created_at) == "firing" for alert in notification.alerts)
        ),
        "num_resolved": str(
            sum(alert.status(notification.created_at) == "resolved" for alert in notification.alerts)
        ),
        **_details(message, context, shared),
    }
    return _fitting(whole, inner, details)


def change(notification: Notification, context: Context, options: PagerdutyOptions) -> dict[str, Any]:
    """The change event of what is only announced, as JSON values; it has no severity, no key and no end."""
    message = composed(notification, context)
    shared = common([alert.labels for alert in notification.alerts])
    whole = {
        "routing_key": options.routing_key.get_secret_value(),
        "links": _links(message.console, [notice.runbook for notice in message.notices]),
    }
    return _fitting(
        whole,
        _head(message, notification, context, options, shared),
        _details(message, context, shared),
    )


def _head(
    message: Message,
    notification: Notification,
    context: Context,
    options: PagerdutyOptions,
    shared: Mapping[str, str],
) -> dict[str, str]:
    return {
        "summary": cut(message.title, SUMMARY_CHARACTERS) or notification.receiver,
        "source": options.source
        or shared.get("instance")
        or context.facts.get("instance")
        or "vllm-exporter",
        "timestamp": time_text(min((alert.starts_at for alert in notification.alerts), default=context.now)),
    }


def _details(message: Message, context: Context, shared: Mapping[str, str]) -> dict[str, Any]:
    return {
        **context.facts,
        "labels": shared,
        "alerts": [_words(notice) for notice in message.notices],
    }


def _fitting(
    whole: Mapping[str, Any], inner: Mapping[str, Any], details: Mapping[str, Any]
) -> dict[str, Any]:
    full = {**whole, "payload": {**inner, "custom_details": details}}
    return full if len(encode(full)) <= EVENT_BYTES else {**whole, "payload": inner}


def severity(notification: Notification) -> str:
    """The worst of the alerts that fire, or of all where none does; a label that we do not know is an error's."""
    at = notification.created_at
    firing = [alert for alert in notification.alerts if alert.status(at) == "firing"]
    error = _SEVERITIES.index("error")
    return _SEVERITIES[
        min((rank(alert, others=error) for alert in firing or notification.alerts), default=error)
    ]


def _words(notice: Notice) -> dict[str, str]:
    words = {
        "state": notice.state,
        "what": notice.what,
        "how_bad": notice.how_bad,
        "which": notice.which,
        "when": notice.when,
        "why": notice.why,
        "log": notice.log,
        "action": notice.action,
    }
    return {name: text for name, text in words.items() if text}


def _links(console: str, runbooks: list[str]) -> list[dict[str, str]]:
    links = [{"href": console, "text": "console"}] if console else []
    return links + [{"href": url, "text": "runbook"} for url in dict.fromkeys(runbooks) if url]
