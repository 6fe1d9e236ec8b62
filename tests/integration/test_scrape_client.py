"""Fetching a page from servers that misbehave, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest
from yarl import URL

from exporter.errors import ScrapeError
from exporter.scrape.client import fetch_page
from exporter.scrape.connection import Connection
from exporter.scrape.page import FetchedPage

Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]
LIMIT = 1 << 20
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na 1\n"
CLOSE = b"<close>"


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


def raw(text: bytes) -> Respond:
    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()

    return respond


class Client:
    """Fetches one page, by one of the two ways."""

    def __init__(self, way: str) -> None:
        self.kept = way == "connection"

    async def fetch_from(self, url: URL, **options: float) -> FetchedPage:
        connection = Connection(url, {}) if self.kept else None
        try:
            async with aiohttp.ClientSession(auto_decompress=False) as session:
                return await fetch_page(
                    session,
                    url,
                    connection=connection,
                    **{"timeout_seconds": 5.0, "body_limit": LIMIT, **options},  # type: ignore[arg-type]
                )
        finally:
            if connection is not None:
                connection.close()

    async def fetch(self, respond: Respond, **options: float) -> FetchedPage:
        async with serving(respond) as url:
            return await self.fetch_from(url, **options)

    async def reason_of(self, respond: Respond, **options: float) -> str:
        with pytest.raises(ScrapeError) as caught:
            await self.fetch(respond, **options)
        assert "127.0.0.1" in str(caught.value)
        return caught.value.reason


@pytest.fixture(params=["session", "connection"])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(request.param)


async def test_a_page_comes_whole_with_its_format(client: Client):
    page = await client.fetch(answer(b"a 1\n", "Content-Type: application/openmetrics-text; version=1.0.0"))
    assert page == FetchedPage(b"a 1\n", True)
    assert await client.fetch(answer(b"a 1\n")) == FetchedPage(b"a 1\n", False)


async def test_a_compressed_page_is_read_though_none_was_asked_for(client: Client):
    page = await client.fetch(answer(gzip.compress(b"a 1\n"), "Content-Encoding: gzip"))
    assert page.body == b"a 1\n"


async def test_a_gzip_bomb_stops_at_the_limit(client: Client):
    bomb = gzip.compress(bytes(200 << 20), compresslevel=9)
    assert len(bomb) < LIMIT
    assert await client.reason_of(answer(bomb, "Content-Encoding: gzip")) == "body_limit"


async def test_a_hundred_megabytes_stop_at_the_limit(client: Client):
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(1600):
            writer.write(b"a 1\n" * 16384)
            await writer.drain()

    assert await client.reason_of(endless) == "body_limit"


async def test_a_body_that_never_ends_stops_at_the_deadline(client: Client):
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(1000):
            writer.write(b"a 1\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    assert await client.reason_of(drip, timeout_seconds=0.2) == "timeout"


async def test_a_server_that_accepts_and_says_nothing_is_a_timeout(client: Client):
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(5)

    assert await client.reason_of(silent, timeout_seconds=0.1) == "timeout"


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
        (answer(b"a 1\n", "Content-Length: 4", "Transfer-Encoding: chunked", length=False), "protocol"),
        (answer(b"a 1\n", "Content-Length: 4", "Content-Length: 3", length=False), "protocol"),
        (answer(b"a 1\n", "Content-Length: -4", length=False), "protocol"),
        (answer(b"xyz\r\n", "Transfer-Encoding: chunked", length=False), "protocol"),
        (answer(b"4\r\na 1\nb\r\n", "Transfer-Encoding: chunked", length=False), "protocol"),
        (answer(b"4\r\na 1\n\r\n", "Transfer-Encoding: chunked", length=False), "protocol"),
        (answer(b"a 1\n", " folded"), "protocol"),
    ],
)
async def test_each_wrong_answer_has_its_reason(client: Client, respond: Respond, reason: str):
    assert await client.reason_of(respond) == reason


async def test_what_is_not_http_is_a_protocol_error(client: Client):
    async def other(writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()

    assert await client.reason_of(other) == "protocol"


async def test_a_closed_port_is_a_connection_error(client: Client):
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(ScrapeError) as caught:
        await client.fetch_from(URL(f"http://127.0.0.1:{port}/metrics"))
    assert caught.value.reason == "connect"


async def test_a_chunked_page_and_one_after_an_interim_answer(client: Client):
    chunked = b"4;x=y\r\na 1\n\r\n4\r\nb 2\n\r\n0\r\nTrailer: 1\r\n\r\n"
    page = await client.fetch(answer(chunked, "Transfer-Encoding: chunked", length=False))
    assert page.body == b"a 1\nb 2\n"
    page = await client.fetch(raw(b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE))
    assert page.body == b"a 1\n"


async def test_an_answer_that_drips_in_byte_by_byte_is_whole_in_the_end(client: Client):
    async def drip(writer: asyncio.StreamWriter) -> None:
        for byte in WHOLE:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)

    assert (await client.fetch(drip)).body == b"a 1\n"


async def test_a_head_that_never_ends_stops_at_the_deadline(client: Client):
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(1000):
            writer.write(b"X-%d: y\r\n" % number)
            await writer.drain()
            await asyncio.sleep(0.01)

    assert await client.reason_of(drip, timeout_seconds=0.2) == "timeout"


async def test_a_server_that_half_closes_has_said_all(client: Client):
    def half_closing(text: bytes) -> Respond:
        async def respond(writer: asyncio.StreamWriter) -> None:
            writer.write(text)
            writer.write_eof()
            await asyncio.sleep(0.5)

        return respond

    assert (await client.fetch(half_closing(b"HTTP/1.1 200 OK\r\n\r\na 1\n"))).body == b"a 1\n"
    assert (await client.fetch(half_closing(WHOLE))).body == b"a 1\n"
    assert await client.reason_of(half_closing(WHOLE[:-1])) == "protocol"
    assert await client.reason_of(half_closing(b"")) == "protocol"


@dataclass
class Requests:
    """What a server was asked: the request's bytes, by the connection that brought them."""

    heads: list[bytes] = field(default_factory=list)
    connections: int = 0


@asynccontextmanager
async def scripted(*script: bytes) -> AsyncIterator[tuple[URL, Requests]]:
    """Answers the nth request with the nth text; `CLOSE` in it ends the connection there, instead of going on."""
    seen = Requests()
    answers = iter(script)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        try:
            while True:
                seen.heads.append(await reader.readuntil(b"\r\n\r\n"))
                text, close, _ = next(answers).partition(CLOSE)
                writer.write(text)
                if close:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"), seen


async def ask(connection: Connection) -> bytes:
    return (await connection.fetch(timeout_seconds=5, body_limit=LIMIT)).body


async def test_one_connection_serves_all_scrapes():
    async with scripted(WHOLE, WHOLE, WHOLE) as (url, seen):
        connection = Connection(url, {"Authorization": "Bearer s3cret"})
        for _ in range(3):
            assert await ask(connection) == b"a 1\n"
        connection.close()
    assert seen.connections == 1
    lines = seen.heads[2].split(b"\r\n")
    assert lines[0] == b"GET /metrics HTTP/1.1"
    assert f"Host: 127.0.0.1:{url.port}".encode() in lines
    assert b"Authorization: Bearer s3cret" in lines
    assert b"Accept-Encoding: identity" in lines


async def test_a_connection_that_the_server_gave_up_in_between_is_made_anew():
    async with scripted(WHOLE + CLOSE, WHOLE) as (url, seen):
        connection = Connection(url, {})
        assert await ask(connection) == b"a 1\n"
        await asyncio.sleep(0.05)
        assert await ask(connection) == b"a 1\n"
        connection.close()
    assert seen.connections == 2


async def test_a_connection_that_the_server_gives_up_as_we_ask_is_made_anew_once():
    async with scripted(WHOLE, CLOSE, WHOLE, CLOSE, CLOSE, WHOLE) as (url, seen):
        connection = Connection(url, {})
        assert await ask(connection) == b"a 1\n"
        assert await ask(connection) == b"a 1\n"
        with pytest.raises(ScrapeError) as caught:
            await ask(connection)
        assert caught.value.reason == "protocol"
        assert seen.connections == 3
        assert await ask(connection) == b"a 1\n"
        connection.close()


async def test_a_page_that_breaks_off_is_not_asked_for_again():
    async with scripted(WHOLE, WHOLE[:-1] + CLOSE, WHOLE) as (url, seen):
        connection = Connection(url, {})
        assert await ask(connection) == b"a 1\n"
        with pytest.raises(ScrapeError) as caught:
            await ask(connection)
        assert caught.value.reason == "protocol"
        assert len(seen.heads) == 2
        assert await ask(connection) == b"a 1\n"
        connection.close()


@pytest.mark.parametrize(
    "first",
    [
        WHOLE + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nb 2\n",
        WHOLE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
async def test_after_an_answer_that_is_the_last_or_not_alone_comes_another_connection(first: bytes):
    async with scripted(first, WHOLE) as (url, seen):
        connection = Connection(url, {})
        assert await ask(connection) == b"a 1\n"
        assert await ask(connection) == b"a 1\n"
        connection.close()
    assert seen.connections == 2


async def test_an_error_leaves_nothing_for_the_next_scrape():
    failed = WHOLE.replace(b"200 OK", b"503 Busy")
    async with scripted(failed, WHOLE) as (url, seen):
        connection = Connection(url, {})
        with pytest.raises(ScrapeError) as caught:
            await ask(connection)
        assert caught.value.reason == "status"
        assert await ask(connection) == b"a 1\n"
        connection.close()
    assert seen.connections == 2


async def test_a_scrape_that_is_cancelled_or_too_slow_gives_the_connection_back():
    async with scripted(WHOLE, b"", WHOLE, b"", WHOLE) as (url, seen):
        connection = Connection(url, {})
        assert await ask(connection) == b"a 1\n"
        with pytest.raises(ScrapeError, match=r"no whole page within 0\.05 s"):
            await connection.fetch(timeout_seconds=0.05, body_limit=LIMIT)
        assert await ask(connection) == b"a 1\n"
        pending = asyncio.create_task(ask(connection))
        await asyncio.sleep(0.05)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        assert await ask(connection) == b"a 1\n"
        connection.close()
    assert seen.connections == 3


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
async def test_a_name_that_cannot_be_is_a_connection_error(host: str):
    connection = Connection(URL(f"http://{host}/metrics"), {})
    with pytest.raises(ScrapeError) as caught:
        await connection.fetch(timeout_seconds=5, body_limit=LIMIT)
    assert caught.value.reason == "connect"


async def test_a_connection_that_is_reset_has_the_reason_of_the_moment():
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(starts.pop())
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        writer.transport.abort()

    starts = [b"HTTP/1.1 200 OK\r\n\r\na 1\n", WHOLE[:-1], b""]
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        connection = Connection(URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"), {})
        reasons = []
        for _ in range(3):
            with pytest.raises(ScrapeError) as caught:
                await ask(connection)
            reasons.append(caught.value.reason)
    assert reasons == ["connect", "protocol", "protocol"]


def test_a_header_of_two_lines_is_refused():
    with pytest.raises(ValueError, match="line break"):
        Connection(URL("http://127.0.0.1/metrics"), {"Authorization": "a\r\nb: c"})
