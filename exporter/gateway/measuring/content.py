"""For debugging, and only where `gateway.log_content_ratio` asks for it: what some requests said, and what they were told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any, Final

import structlog

from exporter.gateway.model import Dialect, Exchange
from exporter.gateway.relay.answer import Answer
from exporter.gateway.relay.answer_heads import AnswerHead

log = structlog.get_logger(__name__)

SHOWN: Final = 4096
"""Bytes of a prompt, and of a reply, that a line of the log has at most."""
KEPT: Final = 256 << 10
"""Bytes of a reply that are kept until its end: a token takes some 200 bytes of a stream."""
MOST_AT_ONCE: Final = 64
"""Requests that are listened to at the same time; with those, no more memory than 17 MiB."""


class Sample:
    """One request that is listened to."""

    __slots__ = ("_parts", "encoded", "kept", "prompt", "prompt_bytes", "reply_bytes", "stream")

    def __init__(self, body: bytes | None) -> None:
        self.prompt = None if body is None else bytes(body[:SHOWN])
        """None for a body that went through unread."""
        self.prompt_bytes = None if body is None else len(body)
        self._parts: list[bytes] = []
        self.kept = 0
        self.reply_bytes = 0
        self.encoded = False
        self.stream = False

    def heard(self, data: bytes) -> None:
        """More of the answer's body."""
        self.reply_bytes += len(data)
        if self.kept < KEPT and not self.encoded:
            self._parts.append(bytes(data[: KEPT - self.kept]))
            self.kept += len(self._parts[-1])

    def reply(self) -> bytes | None:
        """The text of a stream, or the beginning of an answer that came whole; None for a compressed one, and for none."""
        if not self._parts:
            return None
        body = b"".join(self._parts)
        return (_said(body) or body)[:SHOWN] if self.stream else body[:SHOWN]


class HeardAnswer(Answer):
    """An answer that is listened to on its way."""

    __slots__ = ("sample",)
    sample: Sample

    def came(self, raw: bytes, body: bytes, ended: bool, now: float) -> bytes:
        """As of any answer."""
        if body:
            self.sample.heard(body)
        return super().came(raw, body, ended, now)


class ContentLog:
    """Listens to a share of the users' requests, and writes an event `request_content` when one is over; event loop only.

    `random` decides, not the request: no client can choose to be heard, or not to be.
    """

    def __init__(self, ratio: float, random: Random) -> None:
        self._ratio = ratio
        self._random = random
        self._samples: dict[Exchange, Sample] = {}

    def asked(self, exchange: Exchange, body: bytes | None) -> None:
        """A request is whole, or streams in (`body` None)."""
        endpoint = exchange.endpoint
        if (
            endpoint.counted
            and endpoint.dialect is not Dialect.OPAQUE
            and self._random.random() < self._ratio
            and len(self._samples) < MOST_AT_ONCE
        ):
            self._samples[exchange] = Sample(body)

    def answer(self, exchange: Exchange, head: AnswerHead, *rest: Any, **more: Any) -> Answer:
        """An answer has begun; made of what `Answer` is made of."""
        sample = self._samples.get(exchange)
        if sample is None:
            return Answer(exchange, head, *rest, **more)
        sample.encoded, sample.stream = head.encoded, head.event_stream
        heard = HeardAnswer(exchange, head, *rest, **more)
        heard.sample = sample
        return heard

    def ended(self, exchange: Exchange) -> None:
        """A request is over."""
        sample = self._samples.pop(exchange, None)
        if sample is None:
            return
        log.info(
            "request_content",
            request_id=exchange.request_id,
            model=exchange.model,
            outcome=None if exchange.outcome is None else exchange.outcome.value,
            prompt=_text(sample.prompt),
            reply=_text(sample.reply()),
            prompt_bytes=sample.prompt_bytes,
            reply_bytes=sample.reply_bytes,
        )


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "replace")


def _said(stream: bytes) -> bytes:
    """The text in the events of a stream, all its choices as they came; empty where nothing of the kind is in it."""
    told: list[str] = []
    length = 0
    for line in stream.splitlines():
        if length >= SHOWN:
            break
        if line.startswith(b"data:"):
            for piece in _pieces(line[5:]):
                told.append(piece)
                length += len(piece)
    return "".join(told).encode("utf-8", "replace")


def _pieces(data: bytes) -> Iterator[str]:
    try:
        event = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(event, dict):
        return
    yield from _strings(event.get("delta"))  # responses; messages
    choices = event.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            yield from _strings(choice.get("text"))
            yield from _strings(choice.get("delta"))


_TEXTS: Final = ("content", "reasoning_content", "reasoning", "text", "thinking", "partial_json")


def _strings(delta: object) -> Iterator[str]:
    """What a delta says, tool calls included."""
    if isinstance(delta, str):
        yield delta
    elif isinstance(delta, dict):
        for name in _TEXTS:
            if isinstance(found := delta.get(name), str):
                yield found
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                yield from (
                    text for name in ("name", "arguments") if isinstance(text := function.get(name), str)
                )
