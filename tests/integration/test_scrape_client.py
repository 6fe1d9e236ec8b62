"""Fetching a page from servers that misbehave, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest
from yarl import URL

from exporter.errors import ScrapeError
from exporter.scrape.client import FetchedPage, fetch_page

Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]
LIMIT = 1 << 20


@asynccontextmanager
async def serving(respond: Respond) -> AsyncIterator[URL]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await respond(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics")


def answer(body: bytes, *headers: str, status: str = "200 OK", length: bool = True) -> Respond:
    async def respond(writer: asyncio.StreamWriter) -> None:
        head = [f"HTTP/1.1 {status}", *headers, "Connection: close"]
        if length:
            head.append(f"Content-Length: {len(body)}")
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        await writer.drain()

    return respond


async def fetch(respond: Respond, **options: float) -> FetchedPage:
    async with serving(respond) as url, aiohttp.ClientSession(auto_decompress=False) as session:
        return await fetch_page(
            session,
            url,
            **{"timeout_seconds": 5.0, "body_limit": LIMIT, **options},  # type: ignore[arg-type]
        )


async def reason_of(respond: Respond, **options: float) -> str:
    with pytest.raises(ScrapeError) as caught:
        await fetch(respond, **options)
    assert "127.0.0.1" in str(caught.value)
    return caught.value.reason


async def test_a_page_comes_whole_with_its_format():
    page = await fetch(answer(b"a 1\n", "Content-Type: application/openmetrics-text; version=1.0.0"))
    assert page == FetchedPage(b"a 1\n", True)
    assert await fetch(answer(b"a 1\n")) == FetchedPage(b"a 1\n", False)


async def test_a_compressed_page_is_read_though_none_was_asked_for():
    page = await fetch(answer(gzip.compress(b"a 1\n"), "Content-Encoding: gzip"))
    assert page.body == b"a 1\n"


async def test_a_gzip_bomb_stops_at_the_limit():
    bomb = gzip.compress(bytes(200 << 20), compresslevel=9)
    assert len(bomb) < LIMIT
    assert await reason_of(answer(bomb, "Content-Encoding: gzip")) == "body_limit"


async def test_a_hundred_megabytes_stop_at_the_limit():
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(1600):
            writer.write(b"a 1\n" * 16384)
            await writer.drain()

    assert await reason_of(endless) == "body_limit"


async def test_a_body_that_never_ends_stops_at_the_deadline():
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(1000):
            writer.write(b"a 1\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    assert await reason_of(drip, timeout_seconds=0.2) == "timeout"


async def test_a_server_that_accepts_and_says_nothing_is_a_timeout():
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    assert await reason_of(silent, timeout_seconds=0.1) == "timeout"


@pytest.mark.parametrize(
    ("respond", "reason"),
    [
        (answer(b"<html>", "Content-Type: text/html; charset=utf-8"), "content_type"),
        (answer(b"", "Location: http://169.254.169.254/", status="302 Found"), "redirect"),
        (answer(b"no", status="500 Internal Server Error"), "status"),
        (answer(b"no", status="401 Unauthorized"), "status"),
        (answer(b"\x1f\x8bbroken", "Content-Encoding: gzip"), "encoding"),
        (answer(gzip.compress(b"a 1\n" * 100)[:-9], "Content-Encoding: gzip"), "encoding"),
        (answer(b"x", "Content-Encoding: br"), "encoding"),
        (answer(2 * gzip.compress(b"a 1\n"), "Content-Encoding: gzip"), "encoding"),
        (answer(b"a 1\n", "Content-Length: 100", length=False), "protocol"),
        (answer(b"", "X" * 100_000 + ": y"), "protocol"),
    ],
)
async def test_each_wrong_answer_has_its_reason(respond: Respond, reason: str):
    assert await reason_of(respond) == reason


async def test_what_is_not_http_is_a_protocol_error():
    async def other(writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()

    assert await reason_of(other) == "protocol"


async def test_a_closed_port_is_a_connection_error():
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ScrapeError) as caught:
            await fetch_page(
                session, URL(f"http://127.0.0.1:{port}/metrics"), timeout_seconds=5, body_limit=LIMIT
            )
    assert caught.value.reason == "connect"
