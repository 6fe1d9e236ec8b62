"""What makes an answer a metrics page, whichever client brought it: its status, its type, its size, its encoding."""

from __future__ import annotations

import zlib
from typing import NamedTuple

from yarl import URL

from exporter.errors import ScrapeError

ACCEPT = "text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"
"""Text 0.0.4 first: it is what vLLM's own dashboards show, and passes through byte for byte."""

_NO_METRICS = ("text/html", "application/json", "application/xhtml+xml")


class FetchedPage(NamedTuple):
    """The body of a metrics page and the format that its Content-Type declares."""

    body: bytes
    openmetrics: bool


def is_openmetrics(url: URL, status: int, *, location: str, content_type: str) -> bool:
    """Whether an answer of this head holds OpenMetrics; a ScrapeError when it holds no metrics page at all."""
    if 300 <= status < 400:
        raise ScrapeError(
            f"{url} redirects to {location[:200]!r}; give the address itself", reason="redirect"
        )
    if status != 200:
        raise ScrapeError(f"{url} answered {status}, expected 200", reason="status")
    media = content_type.split(";")[0].strip().lower()
    if media in _NO_METRICS:
        raise ScrapeError(
            f"{url} serves {media}, not metrics; is it an engine's address?", reason="content_type"
        )
    return media == "application/openmetrics-text"


class Body:
    """A body as it comes in pieces, decompressed with a bound: neither a long body nor a gzip bomb costs more than that.

    `limit` is in bytes after decompression. Each step may raise a ScrapeError: `encoding` or `body_limit`.
    """

    def __init__(self, url: URL, encoding: str, limit: int) -> None:
        self._url = url
        self._encoding = encoding.strip().lower()
        if self._encoding not in ("identity", "gzip", "deflate", ""):
            raise ScrapeError(f"{url} answered in the encoding {self._encoding!r}", reason="encoding")
        self.packed = self._encoding in ("gzip", "deflate")
        self._inflate = zlib.decompressobj(wbits=47) if self.packed else None
        self._limit = limit
        self._size = 0
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """The next piece."""
        if self._inflate is not None:
            try:
                data = self._inflate.decompress(data, self._limit - self._size + 1)
            except zlib.error as error:
                raise ScrapeError(
                    f"{self._url}: broken {self._encoding} body: {error}", reason="encoding"
                ) from error
        self.expect(len(data))
        self._size += len(data)
        self._pieces.append(data)

    def expect(self, size: int) -> None:
        """So many bytes more are to come, or have come: is there room?"""
        if self._size + size > self._limit:
            raise ScrapeError(f"{self._url}: page larger than {self._limit} bytes", reason="body_limit")

    def whole(self) -> bytes:
        """All of it, after the last piece."""
        if self._inflate is not None and self._inflate.unused_data:
            raise ScrapeError(f"{self._url}: something follows the {self._encoding} body", reason="encoding")
        if self._inflate is not None and not self._inflate.eof:
            raise ScrapeError(f"{self._url}: {self._encoding} body ends early", reason="encoding")
        return b"".join(self._pieces)
