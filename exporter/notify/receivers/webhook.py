"""The webhook: Alertmanager's payload version 4, or a body of the user's own making, posted to one address."""

from __future__ import annotations

from yarl import URL

from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import WebhookOptions
from exporter.notify.model import Context, Notification, Outcome
from exporter.notify.receivers.answers import outcome_of
from exporter.notify.receivers.body import Body, BodyError
from exporter.notify.receivers.composing import beside
from exporter.notify.receivers.http import (
    HttpClient,
    SessionFactory,
    open_session,
    place,
)
from exporter.notify.receivers.payload import encoded, payload
from exporter.notify.receivers.signature import HEADER, sign
from exporter.notify.receivers.transport import transport_of


class Webhook:
    """One address; ConfigError for a template, header or certificate that cannot be."""

    kind = "webhook"

    def __init__(self, endpoint: Endpoint, session_factory: SessionFactory = open_session) -> None:
        options = endpoint.options
        assert isinstance(options, WebhookOptions)
        self.send_resolved = endpoint.send_resolved
        self._url = options.url.get_secret_value()
        self._who = place(URL(self._url))
        self._max_alerts = options.max_alerts
        self._body = Body(options.body, endpoint.name) if options.body is not None else None
        self._secret = options.signature.secret.get_secret_value() if options.signature else None
        self._client = HttpClient(
            transport_of(
                options.http_config,
                endpoint.name,
                timeout=options.timeout,
                urls=(options.url,),
                secrets=(options.signature.secret,) if options.signature else (),
                headers=options.headers,
            ),
            session_factory,
        )
        self.timeout = self._client.longest

    async def send(self, notification: Notification, context: Context) -> Outcome:
        """One attempt."""
        try:
            body = await self._make(notification, context)
        except BodyError as error:
            return Outcome("retry" if error.again else "refused", str(error))
        headers = {"Content-Type": "application/json"}
        if self._secret is not None:
            headers[HEADER] = sign(self._secret, body, context.now)
        answer = await self._client.post(self._url, body, headers, now=context.now)
        return outcome_of(answer, self._who)

    async def close(self) -> None:
        """Let connections go."""
        await self._client.close()

    async def _make(self, notification: Notification, context: Context) -> bytes:
        what = notification, context.external_url, self._max_alerts
        if self._body is not None:
            given = await beside(notification, lambda: payload(*what))
            return await self._body.render({**given, "now": context.now, "facts": dict(context.facts)})
        return await beside(notification, lambda: encoded(*what))
