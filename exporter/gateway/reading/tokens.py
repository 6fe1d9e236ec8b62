"""What one event of a streamed answer means: a token, an end, a failure, the counts, or nothing of these.

An event is a token if it carries words: text, reasoning, a tool's name or its arguments. A role, an empty delta, a finish
reason and the counts are none. One look each for chat and completions, responses, and messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from exporter.gateway.model import Exchange
from exporter.gateway.reading.usage import UNREADABLE, Usage, note

PLAIN: Final = 0
"""To be passed on; the other meanings concern only what has to be hidden."""
FINISH: Final = 1
"""A choice is finished and others are not; it shows no `system_fingerprint`."""
LAST_FINISH: Final = 2
"""The last of the choices seen is finished; it shows no `system_fingerprint`."""
COUNTS: Final = 3
"""The chunk that `include_usage` adds: counts, and no choices."""
COUNTED: Final = 4
"""A choice with counts: the engine tells them unasked (`--enable-force-include-usage`), so there is nothing to hide."""

_WORD_LIMIT = 64


class Story:
    """What the events of one answer have told so far."""

    __slots__ = ("choices_ended", "exchange", "failed", "fingerprint", "finished", "gaps", "top_choice")

    def __init__(self, exchange: Exchange, gaps: Callable[[float], None]) -> None:
        self.exchange = exchange
        self.gaps = gaps
        """Called with the seconds between one token and the next."""
        self.finished = False
        self.failed: str | None = None
        self.fingerprint = b""
        """`system_fingerprint` of the chunk with the counts, as it stands in its JSON."""
        self.top_choice = 0
        """Highest index of a choice seen."""
        self.choices_ended = 0

    def token(self, now: float) -> None:
        """Count an event with content."""
        exchange = self.exchange
        last = exchange.last_token
        if last is None:
            exchange.first_token = now
        else:
            self.gaps(now - last)
        exchange.last_token = now
        exchange.tokens_seen += 1


class _Delta(msgspec.Struct, gc=False):
    content: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: Any = None
    token_ids: Any = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    error: Any = None
    system_fingerprint: msgspec.Raw = msgspec.Raw()


class _FlatError(msgspec.Struct, gc=False):
    object: Any = None
    type: Any = None
    code: Any = None


class _Response(msgspec.Struct, gc=False):
    usage: Usage | None = None
    error: Any = None


class _ResponseEvent(msgspec.Struct, gc=False):
    type: Any = None
    delta: Any = None
    response: _Response | None = None
    error: Any = None
    code: Any = None


class _MessageDelta(msgspec.Struct, gc=False):
    text: Any = None
    thinking: Any = None
    partial_json: Any = None


class _Message(msgspec.Struct, gc=False):
    usage: Usage | None = None


class _MessageEvent(msgspec.Struct, gc=False):
    type: Any = None
    delta: _MessageDelta | None = None
    message: _Message | None = None
    usage: Usage | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_response_event = msgspec.json.Decoder(_ResponseEvent).decode
_decode_message_event = msgspec.json.Decoder(_MessageEvent).decode
_decode_flat_error = msgspec.json.Decoder(_FlatError).decode


def look_at_chunk(story: Story, payload: bytes, now: float) -> int:
    """A chunk of `/v1/chat/completions` or `/v1/completions`, or of `/inference/v1/generate`, whose words are token ids."""
    if payload[:1] in b"[ \t\n\r\v\f" and payload.strip() == b"[DONE]":
        story.finished = True
        return PLAIN
    try:
        chunk = _decode_chunk(payload)
    except UNREADABLE:
        return PLAIN
    choices = chunk.choices
    if not choices:
        return _look_at_end(story, chunk, payload)
    meaning = PLAIN
    said = False
    for choice in choices:
        delta = choice.delta
        if (
            (choice.token_ids if choice.text is None else choice.text)
            if delta is None
            else delta.content
            or delta.reasoning
            or delta.reasoning_content
            or (delta.tool_calls and _calls_say_something(delta.tool_calls))
        ):
            said = True
        if choice.index > story.top_choice:
            story.top_choice = choice.index
        if choice.finish_reason is not None:
            story.choices_ended += 1
            if chunk.system_fingerprint in _ABSENT:
                meaning = LAST_FINISH if story.choices_ended > story.top_choice else FINISH
    if said:
        story.token(now)
    if chunk.usage is not None:
        note(story.exchange, chunk.usage)
        return COUNTED
    return meaning


def look_at_response(story: Story, payload: bytes, now: float) -> int:
    """An event of `/v1/responses`: every `.delta` with something in it is a token, whatever it is a piece of."""
    try:
        event = _decode_response_event(payload)
    except UNREADABLE:
        return PLAIN
    kind = event.type if isinstance(event.type, str) else ""
    if kind.endswith(".delta"):
        if event.delta:
            story.token(now)
        return PLAIN
    response = event.response
    if response is not None and response.usage is not None:
        note(story.exchange, response.usage)
    if kind in RESPONSE_ENDS:
        story.finished = True
    if kind == "response.failed":
        story.failed = failure(response.error if response is not None else None)
    elif kind == "error":
        story.failed = failure(event.error if event.error is not None else {"code": event.code})
    elif event.error is not None:
        story.failed = failure(event.error)
    return PLAIN


def look_at_message(story: Story, payload: bytes, now: float) -> int:
    """An event of `/v1/messages`: a `content_block_delta` with something in it is a token; a signature is none."""
    try:
        event = _decode_message_event(payload)
    except UNREADABLE:
        return PLAIN
    kind = event.type
    if kind == "content_block_delta":
        delta = event.delta
        if delta is not None and (delta.text or delta.thinking or delta.partial_json):
            story.token(now)
        return PLAIN
    if event.usage is not None:
        note(story.exchange, event.usage)
    elif event.message is not None and event.message.usage is not None:
        note(story.exchange, event.message.usage)
    if kind == "message_stop":
        story.finished = True
    elif kind == "error" or event.error is not None:
        story.failed = failure(event.error)
    return PLAIN


RESPONSE_ENDS = frozenset(("response.completed", "response.incomplete", "response.failed"))
_ABSENT = (msgspec.Raw(), msgspec.Raw(b"null"))


def look_at_name(story: Story, name: str) -> None:
    """An event too long to be read, by its name alone."""
    if name in RESPONSE_ENDS or name == "message_stop":
        story.finished = True
    if name in ("response.failed", "error"):
        story.failed = failure(None)


def failure(error: object) -> str:
    """One word about an error: its type or code. Its message may quote a prompt, so it stays unsaid."""
    if isinstance(error, dict):
        for key in ("type", "code"):
            word = error.get(key)
            if type(word) is int:
                return str(word)
            if isinstance(word, str) and word.isidentifier() and len(word) <= _WORD_LIMIT:
                return word
    return "error"


def _look_at_end(story: Story, chunk: _Chunk, payload: bytes) -> int:
    if chunk.error is not None:
        story.failed = failure(chunk.error)
        return PLAIN
    if chunk.usage is not None:
        note(story.exchange, chunk.usage)
        if chunk.choices is not None:
            story.fingerprint = (
                b"" if chunk.system_fingerprint in _ABSENT else bytes(chunk.system_fingerprint)
            )
            return COUNTS
    elif chunk.choices is None:
        # Until vLLM 0.10 an error stood at the top: {"object": "error", "message", "type", "code"}.
        try:
            flat = _decode_flat_error(payload)
        except UNREADABLE:
            return PLAIN
        if flat.object == "error":
            story.failed = failure({"type": flat.type, "code": flat.code})
    return PLAIN


def _calls_say_something(calls: object) -> bool:
    if not isinstance(calls, list):
        return False
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict) and (function.get("name") or function.get("arguments")):
            return True
    return False
