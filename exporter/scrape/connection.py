"""One page again and again over one kept connection, by plain HTTP.

A general client does per request what is the same for each scrape: it builds the head, looks for a connection, sets
several timers. This one has its request's bytes ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from yarl import URL

from exporter import __version__
from exporter.errors import ScrapeError
from exporter.scrape.page import ACCEPT, FetchedPage
from exporter.scrape.response import Response

READ_BYTES = 128 * 1024
"""At most read at once; an engine's page of one rank has 60 KB."""
HAPPY_EYEBALLS_SECONDS = 0.25
"""Before the next address of a name is tried as well (RFC 8305, section 5)."""


class Connection:
    """To one `http://` page; one request at a time. `headers`: beside those that every scrape has."""

    def __init__(self, url: URL, headers: Mapping[str, str]) -> None:
        if url.scheme != "http" or url.raw_host is None or url.port is None:
            raise ValueError(f"{url}: expected http://HOST…")
        self._url = url
        self._address = url.raw_host, url.port
        self._request = request_bytes(url, headers)
        self._wire: _Wire | None = None

    async def fetch(self, *, timeout_seconds: float, body_limit: int) -> FetchedPage:
        """GET the page; the same errors as `client.fetch_page`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._fetch(body_limit)
        except TimeoutError as error:
            raise ScrapeError(
                f"{self._url} gave no whole page within {timeout_seconds:g} s", reason="timeout"
            ) from error
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that no resolver takes, as `a..b`
            reason = "protocol" if self._wire is not None and self._wire.heard else "connect"
            raise ScrapeError(f"{self._url}: {error or type(error).__name__}", reason=reason) from error

    def close(self) -> None:
        """Give the connection back; the next fetch opens another one."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None

    async def _fetch(self, body_limit: int) -> FetchedPage:
        kept = self._wire
        if kept is not None and kept.open:
            try:
                return await self._ask(kept, body_limit)
            except (ScrapeError, OSError):
                if kept.heard:
                    raise
                # The server gave the connection up just when we asked.
        self._wire = None
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(
            _Wire, *self._address, happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS
        )
        self._wire = wire
        return await self._ask(wire, body_limit)

    async def _ask(self, wire: _Wire, body_limit: int) -> FetchedPage:
        response = Response(self._url, body_limit)
        try:
            await wire.ask(self._request, response)
            return response.page()
        finally:
            if not (response.complete and response.reusable):
                wire.close()


def request_bytes(url: URL, headers: Mapping[str, str]) -> bytes:
    """The request for a page, as it is sent; a ValueError for a header that would be more than one line."""
    fields = {
        "Host": url.host_port_subcomponent,
        "User-Agent": f"vllm-exporter/{__version__}",
        "Accept": ACCEPT,
        "Accept-Encoding": "identity",
        **headers,
    }
    lines = [f"GET {url.raw_path_qs} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    if any(control in line for line in lines for control in "\r\n\0"):
        raise ValueError("a request header holds a line break or a NUL")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class _Wire(asyncio.BufferedProtocol):
    """A TCP connection: one request at a time, and its response's bytes."""

    def __init__(self) -> None:
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._response: Response | None = None
        self._answered: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self.open = False
        self.heard = False

    async def ask(self, request: bytes, response: Response) -> None:
        """Send, and return when the response is complete; a ScrapeError or an OSError when it will not be."""
        assert self._transport is not None
        self.heard = False
        self._response = response
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            await self._answered
        finally:
            self._response = self._answered = None

    def close(self) -> None:
        """Drop the connection at once: what is still under way in it is of no use."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.open = True

    def get_buffer(self, _sizehint: int) -> bytearray:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        response = self._response
        if response is None or response.complete:
            self.close()  # unasked: what comes next could not be trusted to be an answer to the next request
            return
        self.heard = True
        try:
            response.feed(bytes(self._view[:nbytes]))
        except ScrapeError as error:
            self._settle(error)
            self.close()
        else:
            if response.complete:
                self._settle(None)

    def eof_received(self) -> None:
        self.open = False
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if exc is None:
            self._end()
        else:
            self._settle(exc)

    def _end(self) -> None:
        """The server sends nothing more."""
        response = self._response
        if response is None or response.complete:
            return
        try:
            response.end()
        except ScrapeError as error:
            self._settle(error)
        else:
            self._settle(None)

    def _settle(self, error: Exception | None) -> None:
        answered = self._answered
        if answered is None or answered.done():
            return
        if error is None:
            answered.set_result(None)
        else:
            answered.set_exception(error)
