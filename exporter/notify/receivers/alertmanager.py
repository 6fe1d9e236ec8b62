"""Alerts as a real Alertmanager takes them: `POST /api/v2/alerts`.

Alerts reach an Alertmanager by `Forwarder`, which repeats them until they end; the receiver here sends the alerts of one
notification, once, for `test notify`. Source: `api/v2/openapi.yaml` of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from yarl import URL

from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import AlertmanagerOptions
from exporter.notify.model import Alert, Context, Notification, Outcome
from exporter.notify.receivers.answers import outcome_of
from exporter.notify.receivers.http import (
    HttpClient,
    SessionFactory,
    open_session,
    place,
)
from exporter.notify.receivers.payload import encode, time_text, with_no_data
from exporter.notify.receivers.transport import transport_of

VALID_SECONDS = 240.0
"""How long an Alertmanager believes in an alert that it does not hear of again: four times the resend delay, as
Prometheus has it (`sendAlerts` in https://github.com/prometheus/prometheus/blob/main/rules/alerting.go)."""


class Target:
    """One Alertmanager. `name` is host and port: all of its address that may be shown."""

    def __init__(
        self,
        url: str,
        options: AlertmanagerOptions,
        where: str,
        session_factory: SessionFactory = open_session,
    ) -> None:
        base = URL(url)
        self.name = place(base)
        self._url = str(base.with_path(f"{base.path.rstrip('/')}/api/v2/alerts", keep_query=True))
        self._client = HttpClient(
            transport_of(options.http_config, where, timeout=options.timeout, urls=(url,)), session_factory
        )
        self.timeout = self._client.longest

    async def post(self, alerts: Sequence[Alert], now: float) -> Outcome:
        """One attempt to push some alerts."""
        body = encode([postable(alert, now) for alert in alerts])
        headers = {"Content-Type": "application/json"}
        return outcome_of(await self._client.post(self._url, body, headers, now=now), self.name)

    async def close(self) -> None:
        """Let connections go."""
        await self._client.close()


class Alertmanager:
    """All Alertmanagers of one configuration; delivered means that one of them has it, as they tell each other."""

    kind = "alertmanager"

    def __init__(self, endpoint: Endpoint, session_factory: SessionFactory = open_session) -> None:
        self.send_resolved = endpoint.send_resolved
        self._targets = targets_of(endpoint, session_factory)
        self.timeout = max(target.timeout for target in self._targets)

    async def send(self, notification: Notification, context: Context) -> Outcome:
        """One attempt at each of them, side by side."""
        outcomes = await asyncio.gather(
            *(target.post(notification.alerts, context.now) for target in self._targets)
        )
        best = min(outcomes, key=lambda outcome: ("delivered", "retry", "refused").index(outcome.result))
        return best._replace(detail="; ".join(outcome.detail for outcome in outcomes))

    async def close(self) -> None:
        """Let connections go."""
        for target in self._targets:
            await target.close()


def targets_of(endpoint: Endpoint, session_factory: SessionFactory = open_session) -> tuple[Target, ...]:
    """The Alertmanagers of an endpoint; ConfigError for HTTP options that cannot be."""
    options = endpoint.options
    assert isinstance(options, AlertmanagerOptions)
    return tuple(
        Target(url.get_secret_value(), options, endpoint.name, session_factory) for url in options.urls
    )


def postable(alert: Alert, now: float) -> dict[str, Any]:
    """One alert as JSON values; one that fires says until when it is to be believed."""
    told = with_no_data(alert)
    ends = alert.ends_at if alert.ends_at is not None else alert.until
    values: dict[str, Any] = {
        "labels": dict(told.labels),
        "annotations": dict(told.annotations),
        "startsAt": time_text(alert.starts_at),
        "endsAt": time_text(now + VALID_SECONDS if ends is None else ends),
    }
    if alert.generator_url:
        values["generatorURL"] = alert.generator_url
    return values
