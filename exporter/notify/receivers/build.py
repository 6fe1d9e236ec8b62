"""From a configured endpoint to what sends: one receiver per endpoint, of its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from exporter.errors import ConfigError
from exporter.notify.config.load import effective
from exporter.notify.config.model import Endpoint, NotifyConfig
from exporter.notify.forward import alertmanagers
from exporter.notify.model import Receiver
from exporter.notify.receivers.alertmanager import Alertmanager, Target, targets_of
from exporter.notify.receivers.http import SessionFactory, open_session
from exporter.notify.receivers.pagerduty import Pagerduty
from exporter.notify.receivers.webhook import Webhook
from exporter.settings import NotifySettings


class Loaded(NamedTuple):
    """A configuration, what sends its notifications, by receiver and integration, and its Alertmanagers by receiver."""

    config: NotifyConfig
    receivers: Mapping[tuple[str, str], Receiver]
    alertmanagers: Mapping[str, Sequence[Target]]


def load_receivers(settings: NotifySettings) -> Loaded:
    """Everything that the settings name; ConfigError with every mistake."""
    problems: list[str] = []
    receivers: dict[tuple[str, str], Receiver] = {}
    targets: dict[str, list[Target]] = {}
    try:
        alertmanagers(settings.alertmanagers)
    except ConfigError as error:
        problems += error.problems
    try:
        config = effective(settings.file, settings.webhooks)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    for endpoint in config.endpoints:
        try:
            if endpoint.kind == "alertmanager":
                targets.setdefault(endpoint.receiver, []).extend(targets_of(endpoint))
            else:
                receivers[endpoint.receiver, endpoint.integration] = build(endpoint)
        except ConfigError as error:
            problems += error.problems
    problems += _report_problems(settings, config)
    if problems:
        raise ConfigError(problems)
    return Loaded(config, receivers, targets)


def _report_problems(settings: NotifySettings, config: NotifyConfig) -> list[str]:
    """What keeps reports from their receiver: to Alertmanagers alerts are pushed, and no report is an alert that lasts."""
    wanted = settings.report_receiver
    if wanted is None:
        return []
    if wanted not in config.receivers:
        return [f"notify.report_receiver: there is no receiver {wanted!r}"]
    told = any(one.receiver == wanted and one.kind != "alertmanager" for one in config.endpoints)
    if settings.report == "off" or told:
        return []
    return [f"notify.report_receiver: receiver {wanted!r} has no endpoint that takes a report"]


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
