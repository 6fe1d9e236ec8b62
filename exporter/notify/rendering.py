"""How services write a message: bold, links and blocks in their dialect, and within their limit."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass

from exporter.notify.message import DESCRIPTION_CHARACTERS, NOTICES, Message, Notice, cut, shortened

_STEPS = (
    # notices, characters of a description, with the log, with what to do
    (NOTICES, DESCRIPTION_CHARACTERS, True, True),
    (NOTICES, 300, False, True),
    (5, 300, False, True),
    (3, 200, False, False),
    (1, 200, False, False),
    (1, 0, False, False),
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """Markup of one family of services.

    `escape` makes any text literal, and keeps it from calling people; the others take text that is escaped already, but
    for `link`'s URL and `block`'s text.
    """

    escape: Callable[[str], str]
    bold: Callable[[str], str]
    link: Callable[[str, str], str]
    block: Callable[[str], str]
    newline: str = "\n"
    gap: str = "\n\n"
    """Between two alerts."""


@dataclass(frozen=True, slots=True)
class Limit:
    """So much of a text a service takes, measured its way."""

    most: int
    size: Callable[[str], int] = len

    def holds(self, text: str) -> bool:
        """Whether a text is within it."""
        return self.size(text) <= self.most


def octets(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text.encode())


def utf16_units(text: str) -> int:
    """Length as JavaScript and Telegram count it."""
    return len(text.encode("utf-16-le")) // 2


def render(message: Message, dialect: Dialect, limit: Limit, *, title: bool) -> str:
    """The whole message with or without its title, as many of its words as the limit leaves room for."""
    for notices, description, log, action in _STEPS:
        shorter = shortened(message, notices, description=description, log=log, action=action)
        text = _write(shorter, dialect, title=title)
        if limit.holds(text):
            return text
    words = message.title
    while not limit.holds(dialect.escape(words)):
        words = cut(words, len(words) // 2)
    return dialect.escape(words)


def _write(message: Message, dialect: Dialect, *, title: bool) -> str:
    head = [dialect.bold(dialect.escape(message.title))] if title else []
    if message.note:
        head.append(dialect.escape(message.note))
    blocks = [dialect.newline.join(head)] if head else []
    blocks += [_notice(notice, dialect, lone=message.is_lone) for notice in message.notices]
    tail = [dialect.escape(f"And {message.left_out} more.")] if message.left_out else []
    if message.where:
        tail.append(dialect.escape(message.where))
    if message.console:
        tail.append(dialect.link("Console", message.console))
    if tail:
        blocks.append(dialect.newline.join(tail))
    return dialect.gap.join(block for block in blocks if block)


def _notice(notice: Notice, dialect: Dialect, *, lone: bool) -> str:
    lines = []
    if not lone:
        state = "" if notice.state == "firing" else f"{notice.state.capitalize()}: "
        lines.append(dialect.bold(dialect.escape(state + notice.what)))
    lines += [dialect.escape(line) for line in notice.how_bad.splitlines()]
    lines += [dialect.escape(part) for part in (notice.when, notice.which) if part]
    if notice.why:
        lines.append(dialect.escape(f"Diagnosis: {notice.why}"))
    if notice.log:
        lines.append(dialect.block(notice.log))
    if notice.action:
        lines.append(dialect.escape(f"What to do: {notice.action}"))
    if notice.runbook:
        lines.append(dialect.link("Runbook", notice.runbook))
    return dialect.newline.join(lines)


_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~!])")
_LINE_MARK = re.compile(r"^(\d+)([.)])(?=\s|$)|^([-+=])", re.MULTILINE)
_CALLS = re.compile(r"@(?=[\w!&(])")
_JOINER = "\u2060"
_LOOKALIKES = dict(zip(map(ord, "<>*[]`"), "‹›∗［］ˋ", strict=True))


def _unmention(text: str) -> str:
    """`@everyone` in a label calls nobody: a joiner without width comes after the sign."""
    return _CALLS.sub("@" + _JOINER, text)


def _commonmark(text: str) -> str:
    marked = _MARKS.sub(r"\\\1", _unmention(text))
    return _LINE_MARK.sub(lambda found: f"{found[1]}\\{found[2]}" if found[1] else "\\" + found[3], marked)


def _fence(text: str) -> str:
    return f"```\n{text.replace('```', '` ` `')}\n```"


def _robot(text: str) -> str:
    """For Markdown without escapes: what would be markup or a mention is replaced by what looks like it."""
    return _unmention(text).translate(_LOOKALIKES)


def _mrkdwn(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


PLAIN = Dialect(str, str, lambda label, url: f"{label}: {url}", lambda text: text)

MARKDOWN = Dialect(
    _commonmark,
    lambda text: f"**{text}**",
    lambda label, url: f"[{label}]({url})",
    _fence,
    newline="  \n",
)
"""CommonMark, https://spec.commonmark.org/"""

CARD_MARKDOWN = Dialect(
    _commonmark,
    MARKDOWN.bold,
    MARKDOWN.link,
    lambda text: _commonmark(text).replace("\n", "\n\n"),
    newline="\n\n",
)
"""The subset of Adaptive Cards: no code, and a line ends only where a paragraph does.

https://learn.microsoft.com/adaptive-cards/authoring-cards/text-features
"""

ROBOT_MARKDOWN = Dialect(
    _robot,
    MARKDOWN.bold,
    MARKDOWN.link,
    lambda text: "\n".join(f"> {_robot(line)}" for line in text.split("\n")),
    newline="  \n",
)
"""What Feishu, DingTalk and WeCom have in common: bold, links and quotes, but no way to escape."""

SLACK = Dialect(
    _mrkdwn,
    lambda text: f"*{text}*",
    lambda label, url: f"<{_mrkdwn(url)}|{label}>",
    lambda text: f"```\n{_mrkdwn(text.replace('```', '` ` `'))}\n```",
)
"""https://docs.slack.dev/messaging/formatting-message-text"""

HTML = Dialect(
    html.escape,
    lambda text: f"<b>{text}</b>",
    lambda label, url: f'<a href="{html.escape(url)}">{label}</a>',
    lambda text: f"<pre>{html.escape(text)}</pre>",
    newline="<br>\n",
    gap="<br>\n<br>\n",
)

TELEGRAM = Dialect(lambda text: html.escape(_unmention(text)), HTML.bold, HTML.link, HTML.block)
"""HTML as Telegram takes it, where a line break is one: https://core.telegram.org/bots/api#html-style"""
