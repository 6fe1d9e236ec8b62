"""Requests of chat services that are posted to directly, and what their answers mean. No I/O.

Not by apprise, because it cannot: it looks at the code alone, and Feishu, DingTalk and WeCom answer 200 also when they did
not take a message, and say so in the body; it does not know Feishu's signature; it reaches Slack, but not the servers that
take Slack's payload (Mattermost, Rocket.Chat), has no icons, and does not see Slack's Retry-After.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import urlencode

from exporter.notify.message import Message, Tone
from exporter.notify.model import Outcome
from exporter.notify.receivers.answers import Answer, outcome_of
from exporter.notify.rendering import ROBOT_MARKDOWN, SLACK, Limit, octets, render

SLACK_CHARACTERS = 4000
"""Beyond, Slack wants a message cut: https://docs.slack.dev/reference/methods/chat.postMessage#truncating"""
FEISHU_BYTES = 18_000
"""Of the 20 KB of a request; https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot"""
DINGTALK_BYTES = 18_000
"""Of the 20,000 bytes of a request; https://open.dingtalk.com/document/robots/custom-robot-access"""
WECOM_BYTES = 4096
"""https://developer.work.weixin.qq.com/document/path/91770"""
PAUSE_SECONDS = 60.0
"""How long a robot that was called too often is left alone; all three count by the minute."""

_COLOURS: Mapping[Tone, str] = {"bad": "#a32037", "warning": "#dfa000", "info": "#3aa3e3", "good": "#3aa337"}
_FEISHU_COLOURS: Mapping[Tone, str] = {"bad": "red", "warning": "orange", "info": "blue", "good": "green"}
_TOO_OFTEN = ("too many request", "too fast", "freq", "rate limit", "ratelimit", "太快", "频繁")
"""Not "limit" alone: a message that is too long is beyond one as well, and stays too long."""

Write = Callable[[Message, float], tuple[str, object]]


@dataclass(frozen=True, slots=True)
class Bot:
    """How one service is spoken to.

    `write` makes address and JSON body of a message at a time (unix seconds). `names`: under which of them a body holds a
    code of its own; none: it holds none. `later`: the codes that do not mean "never".
    """

    kind: str
    write: Write = field(repr=False)
    names: tuple[str, ...] = ()
    later: frozenset[int] = frozenset()

    def judge(self, answer: Answer) -> Outcome:
        """What an answer means.

        A 2xx that does not say what became of the message (such as one that was cut off) is taken at its word: another
        attempt would be another message, and the next one.
        """
        outcome = outcome_of(answer, self.kind)
        code, words = self._own_code(answer)
        if self.is_puzzling(answer):
            return outcome._replace(detail=f"{outcome.detail}, but not as {self.kind} does")
        if not code:
            return outcome
        if code in self.later or any(sign in words for sign in _TOO_OFTEN):
            return outcome._replace(
                result="retry",
                detail=f"{self.kind} answered code {code}: later",
                retry_after=outcome.retry_after or PAUSE_SECONDS,
            )
        if outcome.result == "retry":
            return outcome
        return outcome._replace(result="refused", detail=f"{self.kind} refused it with code {code}")

    def is_puzzling(self, answer: Answer) -> bool:
        """Whether it is a 2xx that lacks what the service says in its own."""
        good = answer.code is not None and 200 <= answer.code < 300
        return good and bool(self.names) and self._own_code(answer)[0] is None

    def _own_code(self, answer: Answer) -> tuple[int | None, str]:
        try:
            said = json.loads(answer.body) if self.names else None
        except (ValueError, RecursionError):
            return None, ""
        if not isinstance(said, dict):
            return None, ""
        codes = [said[name] for name in self.names if type(said.get(name)) is int]
        words = str(said.get("errmsg") or said.get("msg") or said.get("StatusMessage") or "")
        return (codes[0] if codes else None), words.lower()


def slack(url: str, look: Mapping[str, str]) -> Bot:
    """An incoming webhook; `look`: channel, username, icon_emoji, icon_url, as far as they are set.

    https://docs.slack.dev/legacy/legacy-messaging/legacy-secondary-message-attachments
    """

    def write(message: Message, now: float) -> tuple[str, object]:
        text = render(message, SLACK, Limit(SLACK_CHARACTERS), title=False)
        attachment = {
            "color": _COLOURS[message.tone],
            "fallback": SLACK.escape(message.title),
            "mrkdwn_in": ["text"],
            "text": text,
            "title": SLACK.escape(message.title),
        }
        if message.console:
            attachment["title_link"] = message.console
        return url, {name: value for name, value in look.items() if value} | {"attachments": [attachment]}

    return Bot("slack", write)


def feishu(url: str, secret: str | None) -> Bot:
    """A Feishu or Lark group's bot: a card, signed where it checks signatures."""

    def write(message: Message, now: float) -> tuple[str, object]:
        text = render(message, ROBOT_MARKDOWN, Limit(FEISHU_BYTES, octets), title=False)
        card = {
            "config": {"wide_screen_mode": True},
            "header": {
                "template": _FEISHU_COLOURS[message.tone],
                "title": {"content": message.title, "tag": "plain_text"},
            },
            "elements": [{"content": text, "tag": "markdown"}],
        }
        body: dict[str, object] = {"msg_type": "interactive", "card": card}
        if secret is not None:
            seconds = str(int(now))
            key = f"{seconds}\n{secret}".encode()
            body |= {"sign": b64encode(hmac.digest(key, b"", sha256)).decode(), "timestamp": seconds}
        return url, body

    return Bot("feishu", write, ("code", "StatusCode"), frozenset({11232}))


def dingtalk(url: str, secret: str | None) -> Bot:
    """A DingTalk group's robot: Markdown, its address signed where it checks signatures."""

    def write(message: Message, now: float) -> tuple[str, object]:
        text = render(message, ROBOT_MARKDOWN, Limit(DINGTALK_BYTES, octets), title=True)
        body = {"msgtype": "markdown", "markdown": {"title": message.title, "text": text}}
        if secret is None:
            return url, body
        milliseconds = str(int(now * 1000))
        sign = b64encode(hmac.digest(secret.encode(), f"{milliseconds}\n{secret}".encode(), sha256)).decode()
        query = urlencode({"timestamp": milliseconds, "sign": sign})
        return f"{url}{'&' if '?' in url else '?'}{query}", body

    return Bot("dingtalk", write, ("errcode",), frozenset({-1, 90030, 130101}))


def wecom(url: str) -> Bot:
    """A WeCom group's robot: Markdown."""

    def write(message: Message, now: float) -> tuple[str, object]:
        text = render(message, ROBOT_MARKDOWN, Limit(WECOM_BYTES, octets), title=True)
        return url, {"msgtype": "markdown", "markdown": {"content": text}}

    return Bot("wecom", write, ("errcode",), frozenset({-1, 45009, 45033}))
