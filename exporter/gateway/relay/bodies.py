"""A request's body while it comes, its framing undone."""

from __future__ import annotations

from typing import Final

import httptools

_CHUNKED_HEAD = b"POST / HTTP/1.1\r\nHost: .\r\nTransfer-Encoding: chunked\r\n\r\n"
_MOST_BESIDE: Final = 64 << 10
"""Bytes of chunk sizes, extensions and trailers that may come while no content does …"""
_BESIDE_A_BYTE: Final = 16
"""… and with each byte of content: eleven stand around a byte that is a chunk, where its size is padded to eight digits."""
_NO_TRAILERS: Final = frozenset(
    (
        *(b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect"),
        *(b"content-length", b"content-type", b"content-encoding", b"content-range", b"host"),
        *(b"authorization", b"x-api-key", b"cookie", b"set-cookie", b"cache-control"),
        *(b"x-request-id", b"x-forwarded-for", b"x-forwarded-proto", b"x-priority", b"traceparent"),
    )
)
"""What counts only where it stands before a body, RFC 9110 6.5.1, and what is ours to tell: dropped, for who comes next may
take trailers for headers."""


class SizedBody:
    """A body of a known length."""

    __slots__ = ("ahead", "complete", "missing")

    chunked = False
    trailers = b""

    def __init__(self, length: int) -> None:
        self.missing = length
        self.complete = length == 0
        self.ahead = b""
        """What came after its end: the next request."""

    def feed(self, data: bytes) -> bytes:
        """The part of `data` that belongs to the body."""
        size = len(data)
        if size < self.missing:
            self.missing -= size
            return data
        self.complete = True
        self.ahead = data[self.missing :]
        body = data[: self.missing]
        self.missing = 0
        return body


class ChunkedBody:
    """A body in chunks. llhttp decodes it, in a parser of its own, so that the one for heads needs no callbacks.

    Where it ends within what has been read is not known, so nothing can follow it on its connection: `overrun` tells that
    something did. RFC 9112 9.3.2 lets a server close then, and the client ask again.
    """

    __slots__ = ("_beside", "_parser", "_pieces", "_trailers", "ahead", "complete", "on_body", "overrun")

    chunked = True

    def __init__(self) -> None:
        self.complete = False
        self.overrun = False
        self.ahead = b""
        self._beside = 0
        self._pieces: list[bytes] = []
        self._trailers: list[tuple[bytes, bytes]] = []
        self.on_body = self._pieces.append
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._parser.feed_data(_CHUNKED_HEAD)
        self._trailers.clear()

    def on_message_begin(self) -> None:
        """A second message: llhttp has read on beyond the end."""
        self.overrun = self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the head is forgotten, one after the last chunk is a trailer."""
        if not self.complete:
            self._trailers.append((name, value))

    def on_message_complete(self) -> None:
        """The last chunk and its trailers have come."""
        self.complete = True

    @property
    def trailers(self) -> bytes:
        """The trailer section's lines, each with its CRLF."""
        return b"".join(
            b"%b: %b\r\n" % field
            for field in self._trailers
            if field[0].lower() not in _NO_TRAILERS and not field[0].lower().startswith(b"proxy-")
        )

    def feed(self, data: bytes) -> bytes:
        """The content in `data`; raises `httptools.HttpParserError` for bad chunking, or little else than chunking."""
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            if not self.complete:
                raise
            self.overrun = True
        pieces = self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self.complete:
            self._parser = None
            return body
        beside = self._beside + len(data) - (1 + _BESIDE_A_BYTE) * len(body)
        self._beside = max(0, beside)
        if beside > _MOST_BESIDE:
            raise httptools.HttpParserError("too much around its chunks")
        return body


Body = SizedBody | ChunkedBody
