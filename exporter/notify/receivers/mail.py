"""The email of a notification. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, getaddresses
from hashlib import sha256

from exporter.notify.message import Message
from exporter.notify.model import Notification
from exporter.notify.rendering import HTML, PLAIN, Limit, render

CHARACTERS = 100_000
"""Far more than ten alerts need."""
_OWN = frozenset({"content-type", "content-transfer-encoding", "mime-version", "message-id", "date"})


def addresses(text: str) -> list[Address]:
    """The addresses of a list such as `A <a@b.c>, d@e.f`.

    Raises:
        ValueError: there is none, or one is no address.
    """
    found = [
        Address(display_name=name, addr_spec=spec) for name, spec in getaddresses([text]) if name or spec
    ]
    if not found or not all(address.username and address.domain for address in found):
        raise ValueError("expected addresses such as ops@example.org, separated by commas")
    return found


def is_header(name: str, value: str) -> bool:
    """Whether a mail can have such a header."""
    try:
        EmailMessage()[name] = value
    except (ValueError, IndexError):
        return False
    return name.isascii() and name.replace("-", "").isalnum() and value.isprintable()


def write(
    message: Message,
    notification: Notification,
    *,
    sender: Address,
    to: Sequence[Address],
    headers: Mapping[str, str],
    now: float,
) -> EmailMessage:
    """Plain text and HTML. All mails about one group refer to the same ID, so that readers show them as one thread.

    `headers` replace ours; `now` in unix seconds.
    """
    mail = EmailMessage()
    thread = sha256(
        f"{notification.receiver}\0{notification.group_key}".encode("utf-8", "replace")
    ).hexdigest()[:32]
    own = {
        "Subject": message.title,
        "From": sender,
        "To": tuple(to),
        "Auto-Submitted": "auto-generated",
        "References": f"<{thread}@{sender.domain}>",
    }
    replaced = {name.lower() for name in headers}
    for name, value in own.items():
        if name.lower() not in replaced:
            mail[name] = value
    for name, text in headers.items():
        if name.lower() not in _OWN:
            mail[name] = text
    mail["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    mail["Message-ID"] = f"<{thread}.{notification.number}@{sender.domain}>"
    limit = Limit(CHARACTERS)
    mail.set_content(render(message, PLAIN, limit, title=False) + "\n")
    mail.add_alternative(
        f"<html><body>\n{render(message, HTML, limit, title=False)}\n</body></html>\n", subtype="html"
    )
    return mail
