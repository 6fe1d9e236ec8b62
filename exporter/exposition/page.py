"""The whole of `/metrics`: every block of a moment, printed once however many clients ask."""

from __future__ import annotations

import gzip as _gzip
from collections.abc import Callable, Sequence
from typing import Protocol

from exporter.exposition.convert import PassThrough
from exporter.exposition.negotiation import Format, negotiate

__all__ = ["Format", "Page", "PassThroughBlock", "Renderable", "negotiate"]

_GZIP_LEVEL = 1
"""Metrics text shrinks about tenfold at the fastest level; the slower ones cost more than the wire saves."""


class Renderable(Protocol):
    """A part of the page: families that stand in no other part. `version` rises when the text changes."""

    @property
    def version(self) -> int: ...

    def render(self, *, openmetrics: bool) -> bytes: ...


class PassThroughBlock:
    """The source's own series as a part of the page; absent until a page is shown."""

    def __init__(self) -> None:
        self.version = 0
        self._shown: PassThrough | None = None

    def show(self, passthrough: PassThrough | None) -> None:
        """Print this page from now on; None: nothing, for a source that is gone is not frozen at its last values."""
        if passthrough is not self._shown:
            self._shown = passthrough
            self.version += 1

    def render(self, *, openmetrics: bool) -> bytes:
        return self._shown.render(openmetrics=openmetrics) if self._shown is not None else b""


class Page:
    """All blocks, one after the other. A rendering is kept until a block changes.

    `before_change` is called before anything that has not been shown yet is printed: the place to write it down first.
    """

    def __init__(
        self, blocks: Sequence[Renderable], *, before_change: Callable[[], None] = lambda: None
    ) -> None:
        self._blocks = tuple(blocks)
        self._before_change = before_change
        self._kept: dict[tuple[bool, bool], tuple[list[int], bytes]] = {}

    def render(self, *, openmetrics: bool, gzip: bool) -> bytes:
        """The page's bytes; OpenMetrics ends in `# EOF`."""
        versions = [block.version for block in self._blocks]
        kept = self._kept.get((openmetrics, gzip))
        if kept is not None and kept[0] == versions:
            return kept[1]
        self._before_change()
        if gzip:
            plain = self.render(openmetrics=openmetrics, gzip=False)
            body = _gzip.compress(plain, _GZIP_LEVEL, mtime=0)
        else:
            parts = [block.render(openmetrics=openmetrics) for block in self._blocks]
            if openmetrics:
                parts.append(b"# EOF\n")
            body = b"".join(parts)
        self._kept[openmetrics, gzip] = (versions, body)
        return body
