"""The token counts of an answer that comes whole."""

from __future__ import annotations

import msgspec

from exporter.gateway.model import Exchange
from exporter.gateway.reading.usage import TAIL_LIMIT, UNREADABLE, Usage, note, note_from_tail

ANSWER_LIMIT = 1 << 20
"""Longest answer that is kept whole, in bytes; of a longer one the end is kept."""


class _Answer(msgspec.Struct, gc=False):
    usage: Usage | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


def read_answer(exchange: Exchange, body: bytes) -> None:
    """Write what a whole body says into the exchange; nothing where it is no JSON object or has no `usage`."""
    if len(body) > ANSWER_LIMIT:
        note_from_tail(exchange, body[-TAIL_LIMIT:])
        return
    try:
        usage = _decode_answer(body).usage
    except UNREADABLE:
        return
    if usage is not None:
        note(exchange, usage)


class AnswerReader:
    """Reads `usage` of one JSON answer, its transfer coding undone; bounded in memory."""

    __slots__ = ("_exchange", "_parts", "_size", "_whole")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._parts: list[bytes] = []
        self._size = 0
        self._whole = True

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the body."""
        self._parts.append(data)
        self._size += len(data)
        if self._size > ANSWER_LIMIT:
            self._whole = False
            self._parts = [b"".join(self._parts)[-TAIL_LIMIT:]]
            self._size = len(self._parts[0])

    def end(self) -> None:
        """Write what the whole body says into the exchange; nothing where it is no JSON object or has no `usage`."""
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []
        if not self._whole:
            note_from_tail(self._exchange, body[-TAIL_LIMIT:])
        else:
            read_answer(self._exchange, body)
