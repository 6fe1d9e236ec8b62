"""What an endpoint's answer means: delivered, to be tried again, or refused for good.

Source: `Retrier` in `notify/util.go` of https://github.com/prometheus/alertmanager, where each kind names its 4xx codes.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import NamedTuple

from exporter.notify.model import Outcome

RETRIED = frozenset({408, 425, 429})
"""Beside 5xx: codes that say "later"."""
MOST_RETRY_AFTER_SECONDS = 86400.0
"""A server that says longer is asked again after a day."""


class Answer(NamedTuple):
    """What came back. `code` None: nothing did, and `problem` says why in words that show no address but host and port.

    `text` is the beginning of the body on one line, secrets masked; `body` its first bytes as they came.
    `final`: trying again cannot help.
    """

    code: int | None
    problem: str = ""
    final: bool = False
    retry_after: float | None = None
    text: str = ""
    body: bytes = b""


def outcome_of(answer: Answer, who: str) -> Outcome:
    """What an answer means by its code: 2xx is delivered; 408, 425, 429, 5xx and none at all may be tried again."""
    code = answer.code
    if code is None:
        return Outcome("refused" if answer.final else "retry", answer.problem)
    if 200 <= code < 300:
        return Outcome("delivered", f"{who} answered {code}", code, answer=answer.text)
    if code in RETRIED or code >= 500:
        return Outcome("retry", f"{who} answered {code}", code, answer.retry_after, answer.text)
    hint = ", a redirect, which is not followed" if 300 <= code < 400 else ""
    return Outcome("refused", f"{who} answered {code}{hint}", code, answer=answer.text)


def retry_after(value: str, now: float) -> float | None:
    """Seconds to wait as the header says, as a number or a date; None where it says nothing that makes sense.

    Source: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:12]), MOST_RETRY_AFTER_SECONDS)
    try:
        seconds = parsedate_to_datetime(value).timestamp() - now
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return min(max(seconds, 0.0), MOST_RETRY_AFTER_SECONDS)
