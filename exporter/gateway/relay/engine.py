"""One keep-alive connection to an engine: a request at a time goes out, its answer is taken out of HTTP and handed on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

import httptools

from exporter.gateway.reading.plain import plain_events
from exporter.gateway.relay.answer_heads import read_answer_head
from exporter.gateway.relay.bodies import ChunkedBody
from exporter.gateway.relay.lines import HEAD_END
from exporter.gateway.relay.sockets import SocketTransport

if TYPE_CHECKING:
    from exporter.gateway.relay.answer_heads import AnswerHead
    from exporter.gateway.relay.flow import Flow
    from exporter.gateway.relay.passage import Passage
    from exporter.gateway.relay.pool import Pool

_HEAD_LIMIT: Final = 256 << 10
"""Longest head of an answer, in bytes; no engine sends one of a hundredth of that."""
_UNTIL_CLOSE: Final = 1 << 62
"""Bytes missing of a body that ends with its connection."""


class EngineConnection(asyncio.Protocol):
    """A connection to an engine, idle in its pool or carrying the request of one passage."""

    __slots__ = (
        "_chunks",
        "_head_read",
        "_head_so_far",
        "_missing",
        "_plain",
        "answered",
        "closed",
        "coalesced",
        "flow",
        "idle_since",
        "keep_alive",
        "passage",
        "pool",
        "reused",
        "settled",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.passage: Passage | None = None
        self.closed = False
        self.reused = False
        """Whether it carried a request before this one, so that the engine may have been about to close it."""
        self.answered = False
        """Whether a byte of the answer has come."""
        self.flow: Flow | None = None
        """Takes the tokens of a stream, while nothing stands between two of its events."""
        self.settled = False
        """Whether the tokens of this answer are acknowledged late: `Flow` says why."""
        self.coalesced = False
        """Whether what comes may wait a moment for the tokens of other streams."""
        self.keep_alive = True
        self.idle_since = 0.0
        self._head_so_far = b""
        self._head_read = False
        self._chunks: ChunkedBody | None = None
        self._plain = False
        """Whether the answer is a stream that has come in its plainest spelling so far: the next byte begins a chunk."""
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over."""
        self.transport = cast("asyncio.Transport", transport)

    def carry(self, passage: Passage, data: bytes) -> None:
        """Send a request, or its beginning; its answer goes to `passage`."""
        self.passage = passage
        self.answered = self._head_read = self.settled = False
        self.transport.write(data)

    def abort(self) -> None:
        """Close at once, so that the engine gives the request up; nobody hears of it."""
        self.passage = None
        self.keep_alive = False
        if self.flow is not None:
            self.follow(None)
        self.transport.abort()

    def follow(self, flow: Flow | None) -> None:
        """Have `flow` look first at what comes, or nobody."""
        self.flow = flow
        transport = self.transport
        if type(transport) is SocketTransport:
            transport.hand_to(self.read if flow is None else flow.came)

    def coalesce(self, on: bool) -> None:
        """Whether what comes may wait a moment for the tokens of other streams, so that all are passed on together."""
        self.coalesced = on
        transport = self.transport
        if type(transport) is SocketTransport:
            transport.coalesce(on)

    def data_received(self, data: bytes) -> None:
        """More of the answer has come."""
        if self.flow is None:
            self.read(data)
        else:
            self.flow.came(data)

    def read(self, data: bytes) -> None:
        """Take the answer's next bytes out of their framing."""
        passage = self.passage
        if passage is None:
            self.abort()  # Nothing was asked on an idle connection: what else would it answer wrongly?
            return
        events = None
        if not self._head_read:
            self.answered = True
            rest = self._read_head(passage, data)
            if rest is None:
                return
            data, events = rest
            if self._plain and not data:
                return
        elif self._plain:
            events = plain_events(data)
        if events is not None:
            passage.events_came(data, events)
            return
        if self._plain:
            self._plain = False
            self._chunks = ChunkedBody()
        chunks = self._chunks
        if chunks is None:
            missing = self._missing = self._missing - len(data)
            if missing < 0:
                passage.answer_broke("bytes after the end of the answer")
            else:
                passage.answer_came(data, data, missing == 0)
            return
        try:
            body = chunks.feed(data)
        except httptools.HttpParserError as error:
            passage.answer_broke(str(error))
            return
        if chunks.overrun:
            passage.answer_broke("bytes after the end of the answer")
        else:
            passage.answer_came(data, body, chunks.complete)

    def _read_head(self, passage: Passage, data: bytes) -> tuple[bytes, list[bytes] | None] | None:
        """Pass the answer's head on once it is whole; the bytes after it, and the events that they are if they are plain ones, or None
        where there is nothing more to do now.
        """
        pool = self.pool
        head = pool.last_head
        if head is not None and not self._head_so_far:
            end, length = head.again(data)
        else:
            data = self._head_so_far + data
            end = 0
        if end == 0 or head is None:
            try:
                while True:
                    end = data.find(HEAD_END) + 4
                    if end < 4:
                        self._head_so_far = data
                        if len(data) > _HEAD_LIMIT:
                            passage.answer_broke("the head of the answer is too long")
                        return None
                    head = read_answer_head(data[:end])
                    if head.status >= 200:
                        break
                    # An interim answer: we told the client ourselves to go on, and hints about a page are for browsers.
                    data = data[end:]
            except httptools.HttpParserError as error:
                passage.answer_broke(str(error))
                return None
            self._head_so_far = b""
            pool.last_head = head
            length = head.length
        if (
            length is not None
            and len(data) == end + length
            and not head.bodiless
            and not head.event_stream
            and passage.answer_whole(head, data[:end], data[end:])
        ):
            return None
        self._head_read = True
        rest = data[end:]
        self._begin_body(passage, head, length)
        events = plain_events(rest) if rest and self._plain else None
        passage.answer_began(head, data[:end], length, rest, events)
        return rest, events

    def _begin_body(self, passage: Passage, head: AnswerHead, length: int | None) -> None:
        """How the end of the body will be known, RFC 9112 6.3."""
        self._chunks = None
        self._plain = False
        self.keep_alive = head.keep_alive
        if passage.exchange.method == "HEAD" or head.bodiless:
            self._missing = 0
        elif head.chunked:
            if head.event_stream:
                self._plain = True
            else:
                self._chunks = ChunkedBody()
        elif length is not None:
            self._missing = length
        else:
            self._missing = _UNTIL_CLOSE
            self.keep_alive = False

    def eof_received(self) -> bool:
        """The engine closes: the end of an answer without a length, else too early."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the passage, or the pool, that it is gone."""
        self.closed = True
        self.flow = None
        passage = self.passage
        self.passage = None
        if passage is not None:
            passage.engine_left(self, exc)
        else:
            self.pool.forget(self)

    def pause_writing(self) -> None:
        """The engine takes an upload more slowly than the client sends it."""
        if self.passage is not None:
            self.passage.client.pause()

    def resume_writing(self) -> None:
        """The engine has caught up."""
        if self.passage is not None:
            self.passage.client.resume()
