"""Receivers that people read: chat services and email, built from their options."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from exporter.errors import ConfigError
from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import (
    AppriseOptions,
    DingtalkOptions,
    DiscordOptions,
    EmailOptions,
    FeishuOptions,
    SlackOptions,
    TeamsOptions,
    TelegramOptions,
    WecomOptions,
)
from exporter.notify.model import Context, Notification, Outcome, Receiver
from exporter.notify.receivers import chat_bots
from exporter.notify.receivers.answers import Answer
from exporter.notify.receivers.composing import beside, composed
from exporter.notify.receivers.http import HttpClient, SessionFactory, Transport, open_session
from exporter.notify.receivers.masking import Masker
from exporter.notify.receivers.payload import encode

log = structlog.get_logger(__name__)


class ChatReceiver:
    """One group's bot at a chat service that takes a JSON document."""

    def __init__(
        self, bot: chat_bots.Bot, client: HttpClient, *, send_resolved: bool, place: str = "chat"
    ) -> None:
        self._bot = bot
        self._client = client
        self._place = place
        self._puzzled = False
        self._send_resolved = send_resolved

    @property
    def kind(self) -> str:
        """The service."""
        return self._bot.kind

    @property
    def send_resolved(self) -> bool:
        """Whether it wants to know when alerts end."""
        return self._send_resolved

    @property
    def timeout(self) -> float:
        """Longest time in seconds of one attempt."""
        return self._client.longest

    async def send(self, notification: Notification, context: Context) -> Outcome:
        """One attempt."""
        message = await beside(notification, lambda: composed(notification, context))
        url, body = self._bot.write(message, context.now)
        headers = {"Content-Type": "application/json; charset=utf-8"}
        answer = await self._client.post(url, encode(body), headers, now=context.now)
        self._wonder_at(answer)
        return self._bot.judge(answer)

    async def close(self) -> None:
        """Let connections go."""
        await self._client.close()

    def _wonder_at(self, answer: Answer) -> None:
        """Say so once when answers begin to be such as the service does not give: a proxy may give them."""
        if answer.code is None or answer.code >= 300:
            return
        puzzled, self._puzzled = self._puzzled, self._bot.is_puzzling(answer)
        if self._puzzled and not puzzled:
            log.warning(
                "answer_not_understood", receiver=self._place, kind=self.kind, code=answer.code, answer=answer.text,
                advice="the message counts as delivered; look whether it is there, and who answers at this address",
            )  # fmt: skip


def build_chat(endpoint: Endpoint, session_factory: SessionFactory = open_session) -> Receiver:
    """The receiver of an endpoint that people read.

    Raises:
        ConfigError: apprise is missing, or does not take the address.
    """
    place = f"{endpoint.receiver}/{endpoint.integration}"
    if isinstance(endpoint.options, EmailOptions):
        from exporter.notify.receivers.email import EmailReceiver

        return EmailReceiver(endpoint.options, send_resolved=endpoint.send_resolved, place=place)
    if (direct := _direct(endpoint)) is not None:
        masker = Masker(direct.secrets, [direct.url])
        client = HttpClient(Transport(timeout=endpoint.options.timeout, masker=masker), session_factory)
        return ChatReceiver(direct.bot, client, send_resolved=endpoint.send_resolved, place=place)
    from exporter.notify.receivers.apprise import build_apprise

    return build_apprise(endpoint)


@dataclass(frozen=True, slots=True)
class _Direct:
    """A service that is spoken to directly, its address, and what else of it must not be shown."""

    bot: chat_bots.Bot
    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


def _direct(endpoint: Endpoint) -> _Direct | None:
    """Nothing where apprise speaks to the service."""
    options = endpoint.options
    match options:
        case SlackOptions():
            url = options.api_url.get_secret_value()
            look = {
                name: getattr(options, name) for name in ("channel", "username", "icon_emoji", "icon_url")
            }
            return _Direct(chat_bots.slack(url, look), url)
        case FeishuOptions() | DingtalkOptions():
            url = options.webhook_url.get_secret_value()
            secret = options.secret.get_secret_value() if options.secret is not None else None
            make = chat_bots.feishu if isinstance(options, FeishuOptions) else chat_bots.dingtalk
            return _Direct(make(url, secret), url, (secret,) if secret else ())
        case WecomOptions():
            url = options.webhook_url.get_secret_value()
            return _Direct(chat_bots.wecom(url), url)
        case AppriseOptions() | DiscordOptions() | TeamsOptions() | TelegramOptions():
            return None
    raise ConfigError(
        [f"{endpoint.receiver}/{endpoint.integration}: there is no receiver of the kind {endpoint.kind!r}"]
    )
