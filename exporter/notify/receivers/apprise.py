"""Chat services by the apprise package (extra `notify`): Discord, Telegram, Teams, and whatever has a URL of apprise's.

https://github.com/caronc/apprise
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import structlog

from exporter import __version__
from exporter.errors import ConfigError
from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import AppriseOptions, DiscordOptions, TeamsOptions, TelegramOptions
from exporter.notify.message import Message, Tone
from exporter.notify.model import Context, Notification, Outcome
from exporter.notify.receivers.apprise_answers import Head, heard
from exporter.notify.receivers.apprise_log import Entry, outcome_from_log
from exporter.notify.receivers.blocking import SPARE_SECONDS, Threads
from exporter.notify.receivers.composing import beside, composed
from exporter.notify.receivers.masking import Masker
from exporter.notify.rendering import (
    CARD_MARKDOWN,
    HTML,
    MARKDOWN,
    PLAIN,
    TELEGRAM,
    Dialect,
    Limit,
    octets,
    render,
    utf16_units,
)

log = structlog.get_logger(__name__)

_TYPES: Mapping[Tone, str] = {"bad": "failure", "warning": "warning", "info": "info", "good": "success"}
_MISSING = "the apprise package is missing: pip install 'vllm-exporter[notify]'"


@dataclass(frozen=True, slots=True)
class Style:
    """How a plugin of apprise's is given its text: `markup` is apprise's word for the dialect.

    `titled`: the title goes into the text, in the dialect; otherwise it is handed over beside it, as plain text.
    """

    markup: str
    dialect: Dialect
    limit: Limit
    titled: bool = False


DISCORD = Style(
    "markdown", MARKDOWN, Limit(2000, lambda text: utf16_units(text) + text.count(":")), titled=True
)
"""Apprise puts a sign before colons that would make an emoji.

https://discord.com/developers/docs/resources/webhook#execute-webhook
"""
TELEGRAM_STYLE = Style(
    "html", TELEGRAM, Limit(4096, lambda text: utf16_units(text) + text.count("\n")), titled=True
)
"""Apprise ends lines with two characters. https://core.telegram.org/bots/api#sendmessage"""
TEAMS = Style("markdown", CARD_MARKDOWN, Limit(20_000, octets), titled=True)
"""Of the 28 KB of a message; https://learn.microsoft.com/microsoftteams/limits-specifications-teams"""


@dataclass(frozen=True, slots=True)
class Target:
    """Where to: a URL of apprise's, and what of the plugin it cannot say."""

    url: str = field(repr=False)
    style: Style | None = None
    """None: as the plugin's own description says."""
    attributes: Mapping[str, object] = field(default_factory=dict, repr=False)
    protocol: str = ""
    """Of the plugin that has to take the URL; empty: any."""


class AppriseReceiver:
    """One endpoint that apprise sends to."""

    def __init__(self, kind: str, target: Target, *, send_resolved: bool, seconds: float) -> None:
        self._kind = kind
        self._target = target
        self._send_resolved = send_resolved
        self._seconds = seconds
        self._threads = Threads(f"notify-{kind}")
        rest = target.url.partition("://")[2]
        tokens = [part for part in re.split(r"[/?&=@:,]+", rest) if len(part) >= 6]
        self._masker = Masker([rest, *tokens])
        plugin = _plugin(target, seconds)
        self._style = target.style or _style_of(plugin)

    @property
    def kind(self) -> str:
        """The service."""
        return self._kind

    @property
    def send_resolved(self) -> bool:
        """Whether it wants to know when alerts end."""
        return self._send_resolved

    @property
    def timeout(self) -> float:
        """Longest time in seconds of one attempt."""
        return self._seconds + SPARE_SECONDS

    async def send(self, notification: Notification, context: Context) -> Outcome:
        """One attempt. One that takes too long is given up, and may arrive all the same; one that was answered has arrived."""
        message = await beside(notification, lambda: composed(notification, context))
        heads: list[Head] = []

        def work() -> Outcome:
            sent, said = self._notify(message, heads)
            return outcome_from_log(said, heads, self._kind, self._masker, sent=sent, now=context.now)

        def answered() -> Outcome | None:
            code = heads[-1].code if heads and heads[-1].is_good else None
            return Outcome("delivered", f"{self._kind} answered {code}", code) if code else None

        return await self._threads.attempt(work, self._seconds, self._kind, at_least=answered)

    async def close(self) -> None:
        """Nothing to let go: apprise keeps no connections."""

    def _notify(self, message: Message, heads: list[Head]) -> tuple[bool, list[Entry]]:
        """Whether it was taken, and what was logged. Blocks; a plugin of its own, as plugins keep state and sleep by it."""
        import apprise

        style = self._style
        service = apprise.Apprise(asset=_asset())
        service.add(_plugin(self._target, self._seconds))
        said: list[Entry] = []
        with heard(heads):
            result = service.notify(
                body=render(message, style.dialect, style.limit, title=style.titled),
                title="" if style.titled else message.title,
                notify_type=_TYPES[message.tone],
                body_format=style.markup,
                log_callback=lambda entry, _: said.append(Entry(str(entry.level), str(entry.message))),
                log_level=logging.DEBUG,
            )
        return bool(result), said


def build_apprise(endpoint: Endpoint) -> AppriseReceiver:
    """The receiver of an endpoint.

    Raises:
        ConfigError: apprise is missing, or does not take the address.
    """
    place = f"{endpoint.receiver}/{endpoint.integration}"
    try:
        _load()
    except ImportError:
        raise ConfigError([f"{place}: {_MISSING}"]) from None
    target = _target(endpoint)
    try:
        return AppriseReceiver(
            endpoint.kind, target, send_resolved=endpoint.send_resolved, seconds=endpoint.options.timeout
        )
    except UnusableError as error:
        raise ConfigError([f"{place}: {_expected(endpoint, str(error))}"]) from None


class UnusableError(Exception):
    """Apprise does not take an address."""


def _target(endpoint: Endpoint) -> Target:
    options = endpoint.options
    match options:
        case DiscordOptions():
            look = {"avatar_url": options.avatar_url or None, "user": options.username or None}
            return Target(options.webhook_url.get_secret_value(), DISCORD, look, "discord")
        case TelegramOptions():
            thread = f":{options.message_thread_id}" if options.message_thread_id is not None else ""
            token = quote(options.bot_token.get_secret_value(), safe=":")
            attributes = {
                "notify_url": f"{options.api_url.rstrip('/')}/bot",
                "silent": options.disable_notifications,
            }
            return Target(f"tgram://{token}/{options.chat_id}{thread}/", TELEGRAM_STYLE, attributes, "tgram")
        case TeamsOptions():
            return Target(options.webhook_url.get_secret_value(), TEAMS, protocol="workflows")
        case AppriseOptions():
            return Target(options.url.get_secret_value())
    raise ConfigError(
        [f"{endpoint.receiver}/{endpoint.integration}: apprise does not serve {endpoint.kind!r}"]
    )


def _expected(endpoint: Endpoint, why: str) -> str:
    match endpoint.options:
        case DiscordOptions():
            return "webhook_url: expected https://discord.com/api/webhooks/ID/TOKEN"
        case TelegramOptions():
            return "bot_token: expected NUMBER:LETTERS, as BotFather gives it"
        case TeamsOptions():
            return (
                "webhook_url: expected a workflow's, https://HOST/workflows/ID/triggers/manual/paths/invoke?…&sig=…; "
                "connectors have been retired by Microsoft"
            )
    return f"url: {why}; https://appriseit.com/services/ lists what there is"


def _plugin(target: Target, seconds: float) -> Any:
    """A fresh plugin. It neither sleeps between its requests (pacing is delivery's) nor follows redirects."""
    import apprise

    plugin: Any = apprise.Apprise.instantiate(target.url, asset=_asset(), suppress_exceptions=True)
    if plugin is None or (target.protocol and target.protocol not in plugin.secure_protocol):
        raise UnusableError("apprise does not take it")
    plugin.throttle = lambda *_, **__: None
    plugin.redirects = False
    plugin.socket_connect_timeout = plugin.socket_read_timeout = seconds
    for name, value in target.attributes.items():
        setattr(plugin, name, value)
    return plugin


def _style_of(plugin: Any) -> Style:
    """The markup that a plugin names first, within what it says it takes of it."""
    formats = plugin.notify_format if isinstance(plugin.notify_format, tuple) else (plugin.notify_format,)
    markup = str(getattr(formats[0], "value", formats[0]))
    most = Limit(max(100, min(int(plugin.body_maxlen), 30_000)), octets)
    dialect = {"html": HTML, "markdown": MARKDOWN}.get(markup, PLAIN)
    return Style(markup, dialect, most, titled=int(plugin.title_maxlen) <= 0)


def _asset() -> Any:
    """Apprise's settings: our name, nothing on disk, no pictures from elsewhere, one thread, ours."""
    import apprise

    return apprise.AppriseAsset(
        app_id="vllm-exporter",
        app_desc=f"vllm-exporter {__version__}",
        app_url="",
        async_mode=False,
        http_redirects=False,
        image_url_mask="",
        image_url_logo="",
        interpret_emojis=False,
        service_timeout=0,
        storage_mode="memory",
    )


def _load() -> None:
    """Load apprise with its plugins, and keep what it and requests log to ourselves: it holds tokens.

    Raises:
        ImportError: there is no apprise.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of plugins that nobody asked for
        import apprise

        apprise.Apprise.instantiate("json://localhost")
    for name in ("apprise", "urllib3"):
        logger = logging.getLogger(name)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
    logging.getLogger("apprise").setLevel(logging.DEBUG)
    logging.getLogger("urllib3").setLevel(logging.CRITICAL)
