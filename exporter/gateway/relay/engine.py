"""One keep-alive connection to an engine: a request at a time goes out, its answer is taken out of HTTP and handed on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

import httptools

from exporter.gateway.relay.heads import HEAD_END, read_answer_head

if TYPE_CHECKING:
    from exporter.gateway.relay.passage import Passage
    from exporter.gateway.relay.pool import Pool

_HEAD_LIMIT: Final = 256 << 10
"""Longest head of an answer, in bytes; no engine sends one of a hundredth of that."""


class EngineConnection(asyncio.Protocol):
    """A connection to an engine, idle in its pool or carrying the request of one passage."""

    __slots__ = (
        "_begun",
        "_ended",
        "_head_read",
        "_head_so_far",
        "_parser",
        "_pieces",
        "answered",
        "closed",
        "idle_since",
        "keep_alive",
        "on_body",
        "passage",
        "pool",
        "reused",
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
        self.keep_alive = True
        self.idle_since = 0.0
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self._parser: httptools.HttpResponseParser | None = None
        self._head_so_far = b""
        self._head_read = False
        self._begun = 0
        self._ended = 0

    def on_message_begin(self) -> None:
        """An answer begins; a second one, but for an interim one before it, was not asked for."""
        self._begun += 1

    def on_message_complete(self) -> None:
        """An answer, perhaps an interim one, is whole."""
        self._ended += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport over."""
        self.transport = cast("asyncio.Transport", transport)

    def carry(self, passage: Passage, data: bytes) -> None:
        """Send a request, or its beginning; its answer goes to `passage`."""
        self.passage = passage
        self.answered = self._head_read = False
        self._begun = self._ended = 0
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self.transport.write(data)

    def abort(self) -> None:
        """Close at once, so that the engine gives the request up; nobody hears of it."""
        self.passage = None
        self.keep_alive = False
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take the answer's next bytes out of their framing."""
        passage = self.passage
        if passage is None:
            self.abort()  # Nothing was asked on an idle connection: what else would it answer wrongly?
            return
        self.answered = True
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]
        except httptools.HttpParserError as error:
            passage.answer_broke(str(error))
            return
        if not self._head_read:
            rest = self._read_head(passage, data)
            if rest is None:
                return
            data = rest
        pieces = self._pieces
        if len(pieces) == 1:
            body = pieces[0]
            pieces.clear()
        elif pieces:
            body = b"".join(pieces)
            pieces.clear()
        else:
            body = b""
        ended = self._ended > 0
        if ended and self._begun > 1:
            passage.answer_broke("bytes after the end of the answer")
            return
        passage.answer_came(data, body, ended)

    def _read_head(self, passage: Passage, data: bytes) -> bytes | None:
        """Pass the answer's head on once it is whole; the bytes after it, or None where there is nothing more to do now."""
        if self._head_so_far:
            data = self._head_so_far + data
        while True:
            end = data.find(HEAD_END)
            if end < 0:
                if len(data) > _HEAD_LIMIT:
                    passage.answer_broke("the head of the answer is too long")
                self._head_so_far = data
                return None
            head = read_answer_head(data[: end + 4])
            data = data[end + 4 :]
            if head.status >= 200:
                break
            # An interim answer: the client was told to go on by us, and has no use for hints about a page.
            self._begun -= 1
            self._ended -= 1
        self._head_so_far = b""
        self._head_read = True
        self.keep_alive = head.keep_alive and (head.chunked or head.length is not None or head.bodiless)
        if passage.answer_began(head):
            # HEAD: llhttp would wait for the body that the head announces, so this parser is done.
            self._parser = None
            self._pieces.clear()
            self._begun = self._ended = 1
            if data:
                passage.answer_broke("a body in the answer to HEAD")
                return None
        return data

    def eof_received(self) -> bool:
        """The engine closes: the end of an answer without a length, else too early."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the passage, or the pool, that it is gone."""
        self.closed = True
        passage = self.passage
        self.passage = None
        self._parser = None
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
