"""`vllm-exporter test notify [RECEIVER]`: sends a marked alert to the configured endpoints and says what they answered.

Exit codes: 0 every endpoint has it, 1 one has not, 2 the configuration is wrong or names nobody.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import ConfigError
from exporter.promtool.table import printable

if TYPE_CHECKING:
    from exporter.notify.config.model import Endpoint, NotifyConfig
    from exporter.notify.model import Context, Notification, Outcome, Receiver
    from exporter.notify.trial import Key
    from exporter.settings import Settings

ANSWER_SHOWN = 200
"""Characters of a failing endpoint's answer."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("receiver", metavar="RECEIVER", nargs="?", help="only this one (default: all)")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML or YAML file of settings, as for `run`"
    )
    parser.add_argument(
        "--webhook",
        metavar="URL",
        action="append",
        default=[],
        help="a webhook beside the configured ones, as for `run`; may be repeated; visible to others in ps",
    )
    parser.add_argument(
        "--firing-only", action="store_true", help="do not say afterwards that the alert has ended"
    )


def main(args: argparse.Namespace) -> int:
    """Send, and print one line for each endpoint; ConfigError for what is configured wrong."""
    from exporter.settings import load_settings

    flags: dict[str, Any] = {"notify.webhooks": tuple(args.webhook)} if args.webhook else {}
    settings = load_settings(flags, config=args.config)
    endpoints = chosen(configured(settings), args.receiver)
    with _quiet():
        results = asyncio.run(_send(endpoints, settings, resolve=not args.firing_only))
    failed = False
    for key, outcomes in results.items():
        failed |= not outcomes or any(outcome.result != "delivered" for _, outcome in outcomes)
        sys.stdout.write(line(key, outcomes).encode("utf-8", "replace").decode() + "\n")
    return int(failed)


def configured(settings: Settings) -> NotifyConfig:
    """The configuration that `run` would carry out; Alertmanagers of the settings are a receiver of their own.

    Raises:
        ConfigError: what `run` would refuse.
    """
    from dataclasses import replace

    from exporter.notify.config.load import effective
    from exporter.notify.config.model import Endpoint
    from exporter.notify.config.receivers import AlertmanagerOptions
    from exporter.notify.forward import alertmanagers

    alertmanagers(settings.notify.alertmanagers)
    config = effective(settings.notify.file, settings.notify.webhooks)
    if not settings.notify.alertmanagers:
        return config
    name = "notify.alertmanagers"
    options = AlertmanagerOptions(urls=settings.notify.alertmanagers)
    pushed = Endpoint(name, "alertmanager[0]", "alertmanager", True, options)
    return replace(config, endpoints=(*config.endpoints, pushed), receivers=(*config.receivers, name))


def chosen(config: NotifyConfig, receiver: str | None) -> Sequence[Endpoint]:
    """The endpoints to be told; ConfigError where there are none."""
    if receiver is not None and receiver not in config.receivers:
        close = difflib.get_close_matches(receiver, config.receivers, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(config.receivers)}"
        raise ConfigError([f"no receiver {receiver!r}; {hint}"])
    endpoints = [one for one in config.endpoints if receiver in (None, one.receiver)]
    if not endpoints and receiver is not None:
        raise ConfigError([f"receiver {receiver!r} tells nobody: it has no endpoint"])
    if not endpoints:
        raise ConfigError(["nobody is told of alerts: give --webhook URL, or notify.file with receivers"])
    return endpoints


def external_url(settings: Settings) -> str:
    """Where links lead to, as `run` would have it; no listener is opened for a test."""
    from exporter.settings import parse_listen

    if settings.rules.external_url is not None:
        return settings.rules.external_url.rstrip("/")
    host, port = parse_listen(settings.web.listen)
    if host in ("", "::", "0.0.0.0"):  # noqa: S104  # of all addresses this one is right at least here
        host = "localhost"
    scheme = "https" if settings.web.tls_cert_file is not None else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def line(key: Key, outcomes: Sequence[tuple[Notification, Outcome]]) -> str:
    """What one endpoint was sent, and what became of it."""
    said = [f"{notification.status} {_result(outcome)}" for notification, outcome in outcomes]
    return printable(f"{key[0]} {key[1]}: {'; '.join(said) or 'FAILED: nothing was sent in time'}")


def _result(outcome: Outcome) -> str:
    if outcome.result == "delivered":
        return f"delivered: {outcome.detail}"
    answer = " ".join(outcome.answer.split())[:ANSWER_SHOWN]
    again = ", `run` would try it again" if outcome.result == "retry" else ""
    return f"FAILED: {outcome.detail}{again}{f': {answer}' if answer else ''}"


async def _send(
    endpoints: Sequence[Endpoint], settings: Settings, *, resolve: bool
) -> Mapping[Key, list[tuple[Notification, Outcome]]]:
    from exporter.notify.model import Context
    from exporter.notify.receivers.build import build
    from exporter.notify.trial import marked_alert, try_out

    receivers: dict[Key, Receiver] = {}
    try:
        for endpoint in endpoints:
            receivers[endpoint.receiver, endpoint.integration] = build(endpoint)
    except ConfigError:
        for receiver in receivers.values():
            await receiver.close()
        raise
    instance = settings.rules.instance or socket.gethostname()
    url = external_url(settings)

    def context() -> Context:
        return Context(url, time.time(), {"instance": instance})

    alert = marked_alert(instance, time.time())
    return await try_out(endpoints, receivers, alert, context=context, resolve=resolve)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What is logged is what is printed at the end: no log meanwhile."""
    import structlog

    def drop(logger: Any, method: str, event: Any) -> Any:
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[drop])
    try:
        yield
    finally:
        structlog.configure(**before)
