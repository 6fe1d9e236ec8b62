"""The page as scrapers get it: taken at most every tenth of a second, kept as ready-made answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate

from exporter.exposition.page import Format, Page

SNAPSHOT_SECONDS = 0.1
"""Scrapes within this time of each other see one and the same moment, and cost one rendering."""


class _Answer:
    """One format's last answer."""

    __slots__ = ("body", "second", "wire")

    def __init__(self) -> None:
        self.body: bytes | None = None
        self.second = 0
        self.wire = b""


class Snapshot:
    """Renders on demand, after asking everybody to write down the present moment.

    `before_render` brings the blocks up to date. What it raises passes through: no page is better than a page that is
    silently old.
    """

    def __init__(
        self,
        page: Page,
        before_render: Callable[[], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._page = page
        self._before_render = before_render
        self._monotonic = monotonic
        self._wall = wall
        self._due = float("-inf")
        self._answers: dict[tuple[Format, bool], _Answer] = {}

    def body(self, shape: Format) -> bytes:
        """The page of this moment in one format; the same object while nothing changed."""
        now = self._monotonic()
        if now >= self._due:
            self._before_render()
            self._due = now + SNAPSHOT_SECONDS
        return self._page.render(openmetrics=shape.openmetrics, gzip=shape.gzip)

    def wire(self, shape: Format, *, close: bool) -> bytes:
        """The complete HTTP/1.1 answer with this moment's page."""
        answer = self._answers.get((shape, close))
        if answer is None:
            answer = self._answers[shape, close] = _Answer()
        body = self.body(shape)
        second = int(self._wall())
        if body is not answer.body or second != answer.second:
            fields = {**page_headers(shape), "Content-Length": str(len(body))}
            fields["Date"] = formatdate(second, usegmt=True)
            fields["Connection"] = "close" if close else "keep-alive"
            head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
            answer.wire = f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body
            answer.body, answer.second = body, second
        return answer.wire


def page_headers(shape: Format) -> dict[str, str]:
    """The header fields that tell of a page's format."""
    headers = {
        "Content-Type": shape.content_type,
        "Vary": "Accept, Accept-Encoding",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Server": "vllm-exporter",
    }
    if shape.gzip:
        headers["Content-Encoding"] = "gzip"
    return headers
