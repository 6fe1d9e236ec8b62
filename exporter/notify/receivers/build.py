"""From a configured endpoint to what sends: one receiver per endpoint, of its kind."""

from __future__ import annotations

from exporter.notify.config.model import Endpoint
from exporter.notify.model import Receiver
from exporter.notify.receivers.alertmanager import Alertmanager
from exporter.notify.receivers.http import SessionFactory, open_session
from exporter.notify.receivers.pagerduty import Pagerduty
from exporter.notify.receivers.webhook import Webhook


def build(endpoint: Endpoint, session_factory: SessionFactory = open_session) -> Receiver:
    """The receiver of an endpoint; connections are made when it first sends.

    Raises:
        ConfigError: a template, header or certificate that cannot be, or a package that the kind needs and is not there.
    """
    if endpoint.kind == "webhook":
        return Webhook(endpoint, session_factory)
    if endpoint.kind == "pagerduty":
        return Pagerduty(endpoint, session_factory)
    if endpoint.kind == "alertmanager":
        return Alertmanager(endpoint, session_factory)
    from exporter.notify.receivers.chat import build_chat

    return build_chat(endpoint, session_factory)
