"""What became of an attempt of apprise's, from what servers answered it and what it logged: it says only yes or no.

The plugins log `error=CODE` or so at the level warning, and at debug the beginning of the answer. Nothing of the log
itself gets out: it holds tokens.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Sequence
from math import isfinite
from typing import NamedTuple

from exporter.notify.model import Outcome
from exporter.notify.receivers.answers import MOST_RETRY_AFTER_SECONDS, Answer, outcome_of, retry_after
from exporter.notify.receivers.apprise_answers import Head
from exporter.notify.receivers.masking import Masker

_CODE = re.compile(r"(?:error|error_code|status|code|HTTP)[=: ]\s*([1-5]\d\d)\b", re.IGNORECASE)
_DETAILS = re.compile(r"Response Details:\s*(.*)", re.DOTALL)
_LOUD = frozenset({"WARNING", "ERROR", "CRITICAL"})
_PROBLEMS = (
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not trusted"),
    ("SSLError", "TLS failed"),
    ("timed out", "it gave no answer in time"),
    ("NameResolutionError", "its name does not resolve"),
    ("Name or service not known", "its name does not resolve"),
    ("Connection refused", "the connection was refused"),
    ("Connection reset", "the connection was reset"),
    ("RemoteDisconnected", "the connection was closed without an answer"),
)
_SOCKET = ("socket exception", "connection error")


class Entry(NamedTuple):
    """One message of the log; `level` is its name."""

    level: str
    text: str

    @property
    def is_loud(self) -> bool:
        """Whether it tells of a failure, where debugging shows what was sent and what came back."""
        return self.level in _LOUD


def outcome_from_log(
    entries: Iterable[Entry],
    heads: Sequence[Head],
    who: str,
    masker: Masker,
    *,
    sent: bool,
    now: float,
) -> Outcome:
    """The outcome of an attempt that apprise calls sent or not; `heads` are the answers that came, `now` unix seconds.

    Without any code it may be tried again: nobody said that it must not. The last code counts, as a plugin that tried
    again by itself got more than one. Codes in what is logged for debugging alone are others': the message's, or the
    body's own.
    """
    said = list(entries)
    if sent:
        return Outcome("delivered", f"{who} took it")
    last = heads[-1] if heads else Head(None)
    body = next((_body(found[1]) for entry in reversed(said) if (found := _DETAILS.search(entry.text))), b"")
    if (code := _code(last, said)) is not None:
        pause = _pause(body)
        pause = retry_after(last.retry_after, now) if pause is None else pause
        answer = Answer(code, retry_after=pause, text=masker.answer(body), body=body)
        outcome = outcome_of(answer, who)
        if outcome.result == "delivered":  # the plugin knows better: the body says no
            return outcome._replace(
                result="refused", detail=f"{who} answered {outcome.code}, and did not take it"
            )
        return outcome
    text = "\n".join(entry.text for entry in said)
    if last.is_good and any(sign in text.lower() for sign in _SOCKET):
        return Outcome("delivered", f"{who} answered {last.code}, but not to the end", last.code)
    for sign, words in _PROBLEMS:
        if sign in text:
            return Outcome("retry", f"no connection to {who}: {words}")
    if any(sign in text.lower() for sign in _SOCKET):
        return Outcome("retry", f"no connection to {who}")
    return Outcome("retry", f"apprise could not send to {who}")


def _code(last: Head, said: Sequence[Entry]) -> int | None:
    """The last answer's; of one that was good, or that was not heard, only the log says what it meant."""
    if last.code is not None and not last.is_good:
        return last.code
    codes = [found for entry in said if entry.is_loud for found in _CODE.findall(entry.text)]
    return int(codes[-1]) if codes else None


def _body(shown: str) -> bytes:
    """The answer as it came; the plugins log it as Python writes bytes."""
    try:
        value = ast.literal_eval(shown.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        value = shown
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def _pause(body: bytes) -> float | None:
    """Seconds to wait as Discord (`retry_after`) and Telegram (`parameters.retry_after`) say in the body."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    inner = said.get("parameters")
    value = said.get("retry_after", inner.get("retry_after") if isinstance(inner, dict) else None)
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value) or value < 0:
        return None
    return min(float(value), MOST_RETRY_AFTER_SECONDS)
