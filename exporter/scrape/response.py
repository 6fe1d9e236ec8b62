"""One HTTP/1 response to a GET, read piece by piece (RFC 9112); pure: bytes in, a page or a `ScrapeError` out.

Stricter than a browser: what could be understood in two ways (two lengths, a length beside chunks, lines that end
in a bare LF) is an error of reason `protocol`.
"""

from __future__ import annotations

import re

from yarl import URL

from exporter.errors import ScrapeError
from exporter.scrape.page import Body, FetchedPage, is_openmetrics

HEAD_LIMIT = 32 * 1024
"""Bytes of a response's head, interim answers (1xx) before it included; an engine's has about 200."""
_LINE_LIMIT = 1024
"""Bytes of a line between chunks: a size with its extensions, or a trailer."""

_STATUS = re.compile(r"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_DECIMAL = re.compile(r"[0-9]{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_PROTOCOL = b"HTTP/1."


class Response:
    """Feed it what arrives until it is `complete`; errors are raised as soon as they can be known.

    `reusable`: once complete, whether another request may follow on the same connection.
    """

    def __init__(self, url: URL, body_limit: int) -> None:
        self._url = url
        self._body_limit = body_limit
        self._head = b""
        self._interim = 0
        self._body: Body | None = None
        self._left: int | None = None
        self._chunks: _Chunks | None = None
        self._openmetrics = False
        self.complete = False
        self.reusable = False

    def feed(self, data: bytes) -> None:
        """The next bytes, as many as came."""
        if self._body is None:
            rest = self._feed_head(data)
            if rest is None:
                return
            data = rest
        assert self._body is not None
        if self._chunks is not None:
            self._body.feed(self._chunks.feed(data))
            self.complete, surplus = self._chunks.ended, self._chunks.surplus
        elif self._left is not None:
            surplus = len(data) > self._left
            piece = data[: self._left] if surplus else data
            self._body.feed(piece)
            self._left -= len(piece)
            self.complete = not self._left
        else:
            self._body.feed(data)
            surplus = False
        if surplus:
            self.reusable = False  # nobody asked for what follows

    def end(self) -> None:
        """The server sends nothing more: the end of a body without a length, and too early for any other."""
        if self._body is None:
            raise self._wrong("the connection was closed before the head of an answer")
        if not self.complete and (self._chunks is not None or self._left is not None):
            raise self._wrong("the connection was closed before the end of the page")
        self.complete = True
        self.reusable = False

    def page(self) -> FetchedPage:
        """The page, once complete."""
        assert self._body is not None and self.complete
        return FetchedPage(self._body.whole(), self._openmetrics)

    def _feed_head(self, data: bytes) -> bytes | None:
        """Read the head, if it is there as a whole; what follows it is the body's. None: there is more to come."""
        self._head += data
        while True:
            if self._head[: len(_PROTOCOL)] != _PROTOCOL[: len(self._head)]:
                raise self._wrong(f"no HTTP answer, it begins with {self._head[:20]!r}")
            end = self._head.find(b"\r\n\r\n")
            if self._interim + (len(self._head) if end < 0 else end) > HEAD_LIMIT:
                raise self._wrong(f"the head of the answer is larger than {HEAD_LIMIT} bytes")
            if end < 0:
                return None
            head, rest = self._head[:end].decode("latin-1"), self._head[end + 4 :]
            if not self._is_interim(head):
                self._head = b""
                return rest
            self._interim += end + 4
            self._head = rest

    def _is_interim(self, head: str) -> bool:
        """Take in a head; true when it is only an interim one, and the answer is still to come."""
        first, *lines = head.split("\r\n")
        start = _STATUS.fullmatch(first)
        if start is None:
            raise self._wrong(f"{first[:80]!r} is no status line")
        status = int(start[2])
        fields: dict[str, str] = {}
        for line in lines:
            field = _FIELD.fullmatch(line)
            if field is None:
                raise self._wrong(f"{line[:80]!r} is no header field")
            name, value = field[1].lower(), field[2].rstrip(" \t")
            fields[name] = f"{fields[name]}, {value}" if name in fields else value
        if 100 <= status < 200 and status != 101:
            return True
        self._openmetrics = is_openmetrics(
            self._url,
            status,
            location=fields.get("location", ""),
            content_type=fields.get("content-type", ""),
        )
        self._body = Body(self._url, fields.get("content-encoding", "identity"), self._body_limit)
        self._frame(self._body, fields)
        wishes = {wish.strip().lower() for wish in fields.get("connection", "").split(",")}
        framed = self._chunks is not None or self._left is not None
        self.reusable = framed and "close" not in wishes and (start[1] == "1" or "keep-alive" in wishes)
        return False

    def _frame(self, body: Body, fields: dict[str, str]) -> None:
        """How the end of the body is known: by its chunks, by its length, by the end of the connection."""
        coding, length = fields.get("transfer-encoding"), fields.get("content-length")
        if coding is not None:
            if length is not None:
                raise self._wrong("the answer has both a Content-Length and a Transfer-Encoding")
            if coding.lower() != "chunked":
                raise self._wrong(f"the answer has the Transfer-Encoding {coding[:80]!r}")
            self._chunks = _Chunks(self._url)
        elif length is not None:
            if not _DECIMAL.fullmatch(length):
                raise self._wrong(f"{length[:80]!r} is no Content-Length")
            self._left = int(length)
            if not body.packed:
                body.expect(self._left)
            self.complete = not self._left

    def _wrong(self, what: str) -> ScrapeError:
        return ScrapeError(f"{self._url}: {what}", reason="protocol")


class _Chunks:
    """Takes a chunked body (RFC 9112, section 7.1) out of its frames; extensions and trailers are passed over."""

    def __init__(self, url: URL) -> None:
        self._url = url
        self._line = b""
        self._left = 0
        self._after_data = False
        self._trailers: int | None = None
        self.ended = False
        self.surplus = False

    def feed(self, data: bytes) -> bytes:
        """What of this is the body's."""
        found: list[bytes] = []
        data, self._line = self._line + data, b""
        at = 0
        while at < len(data) and not self.ended:
            if self._left:
                piece = data[at : at + self._left]
                found.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._after_data = not self._left
                continue
            end = data.find(b"\r\n", at, at + _LINE_LIMIT)
            if end < 0:
                if len(data) - at >= _LINE_LIMIT:
                    raise self._wrong(data[at : at + 40])
                self._line = data[at:]
                break
            self._take_line(data[at:end])
            at = end + 2
        self.surplus = self.ended and at < len(data)
        return b"".join(found)

    def _take_line(self, line: bytes) -> None:
        if self._after_data:
            if line:
                raise self._wrong(line)
            self._after_data = False
        elif self._trailers is not None:
            self._trailers += len(line) + 2
            self.ended = not line
            if self._trailers > HEAD_LIMIT:
                raise ScrapeError(f"{self._url}: trailers larger than {HEAD_LIMIT} bytes", reason="protocol")
        else:
            size = _CHUNK.fullmatch(line)
            if size is None:
                raise self._wrong(line)
            self._left = int(size[1], 16)
            if not self._left:
                self._trailers = 0

    def _wrong(self, line: bytes) -> ScrapeError:
        return ScrapeError(
            f"{self._url}: {line[:40]!r} stands where a chunk begins or ends", reason="protocol"
        )
