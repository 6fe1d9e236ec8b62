"""The HTTP face over real sockets: plain clients, hostile ones, and both ways of answering a scrape."""

from __future__ import annotations

import asyncio
import gzip
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from pydantic import SecretStr

from exporter.engine.states import EngineState
from exporter.engine.status import EngineStatus
from exporter.errors import ConfigError
from exporter.exposition.block import Block
from exporter.exposition.model import Family
from exporter.exposition.page import Page
from exporter.process_metrics import Lag, ProcessMetrics
from exporter.settings import WebSettings
from exporter.web import WebServer, connection, limits
from exporter.web.metrics import PATHS

FILLER = Family("filler", "gauge", "Makes the page as long as a real one.", ("number",))
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"
ALIAS = b"GET /metrics/prometheus HTTP/1.1\r\nHost: test\r\n\r\n"


class Site:
    """A server on a free port, with what its tests turn."""

    def __init__(self, series: int = 20, **settings: Any) -> None:
        self.block, self.own = Block(), Block()
        for number in range(series):
            self.block.gauge(FILLER, f"{number:06d}").set(number)
        self.status = EngineStatus(mode="supervised", base_url="http://127.0.0.1:8000")
        self.before_render: Callable[[], None] = lambda: self.server.publish(self.own)
        self.server = WebServer(
            WebSettings(listen="127.0.0.1:0", **settings),
            Page([self.block, self.own]),
            engine_status=lambda: self.status,
            before_render=lambda: self.before_render(),
        )
        self.port: int = self.server.bind().getsockname()[1]

    async def raw(self, sent: bytes, *, half_close: bool = False, timeout: float = 10.0) -> bytes:
        """Send bytes on a new connection, and everything that comes back until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(sent)
            if half_close:
                writer.write_eof()
            async with asyncio.timeout(timeout):
                return await reader.read()
        finally:
            writer.close()

    async def connect(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))


class Client:
    """One keep-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])
            }
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        self.writer.write(request)
        return await self.answer()

    async def ended(self) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.read()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()


@asynccontextmanager
async def running(series: int = 20, **settings: Any) -> AsyncIterator[Site]:
    site = Site(series, **settings)
    await site.server.start()
    try:
        yield site
    finally:
        await site.server.stop()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with running() as site:
        yield site


@pytest.fixture
async def client(site: Site) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{site.port}", auto_decompress=False, headers={"Accept-Encoding": "identity"}
    ) as session:
        yield session


# What a scraper gets


@pytest.mark.parametrize("path", ["/metrics", "/metrics/prometheus", "/metrics?name=x"])
async def test_the_page_is_served_whichever_way_the_request_takes(
    client: aiohttp.ClientSession, path: str
) -> None:
    async with client.get(path) as response:
        body = await response.text()
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert 'filler{number="000007"} 7\n' in body
        assert response.headers["Server"] == "vllm-exporter"


@pytest.mark.parametrize("path", ["/metrics", "/metrics?the=long-way"])
@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", True),
        ("gzip;q=0", False),
        ("identity", False),
        ("gzip;q=0.5, *;q=0", True),
        ("br, deflate", False),
    ],
)
async def test_gzip_goes_to_those_who_want_it(
    client: aiohttp.ClientSession, path: str, encoding: str, packed: bool
) -> None:
    async with client.get(path, headers={"Accept-Encoding": encoding}) as response:
        body = await response.read()
        assert (response.headers.get("Content-Encoding") == "gzip") is packed
        assert b"# TYPE filler gauge" in (gzip.decompress(body) if packed else body)


@pytest.mark.parametrize("path", ["/metrics", "/metrics?the=long-way"])
async def test_openmetrics_goes_to_those_who_prefer_it(client: aiohttp.ClientSession, path: str) -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    async with client.get(path, headers={"Accept": accept}) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert (await response.text()).endswith("# EOF\n")


async def test_head_has_the_headers_of_get_and_no_body(site: Site) -> None:
    answer = await site.raw(b"HEAD /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) > 500
    assert body == b""


async def test_many_scrapers_on_kept_connections_get_the_whole_page_each_time() -> None:
    async with running(series=3000) as site:

        async def scrape_often() -> None:
            async with await site.connect() as client:
                for _ in range(20):
                    code, _, body = await client.ask(SCRAPE)
                    assert code == 200
                    assert body.count(b"\nfiller{") == 3000

        async with asyncio.TaskGroup() as tasks:
            for _ in range(64):
                tasks.create_task(scrape_often())


async def test_requests_are_counted_by_path_and_code(site: Site, client: aiohttp.ClientSession) -> None:
    for path in ("/metrics", "/nothing/here", "/-/healthy"):
        async with client.get(path) as response:
            await response.read()
    await site.raw(b"GARBAGE\r\n\r\n")
    site.server.publish(site.own)
    text = site.own.render(openmetrics=False).decode()
    for path, code in (("/metrics", 200), ("other", 404), ("/-/healthy", 200), ("other", 400)):
        assert f'http_requests_total{{path="{path}",code="{code}"}} 1\n' in text


async def test_a_page_that_cannot_be_made_is_a_500_and_the_next_one_works(site: Site) -> None:
    def broken() -> None:
        raise RuntimeError("no snapshot today")

    good, site.before_render = site.before_render, broken
    async with await site.connect() as client:
        code, _, body = await client.ask(SCRAPE)
        assert code == 500
        assert b"no snapshot" not in body
    site.before_render = good
    async with await site.connect() as client:
        assert (await client.ask(SCRAPE))[0] == 200


# Health and the rest


async def test_ready_follows_the_engine_and_healthy_does_not(
    site: Site, client: aiohttp.ClientSession
) -> None:
    site.status = replace(site.status, state=EngineState.loading, load_stage="weights", load_ratio=0.25)
    for path in ("/-/ready", "/health"):
        async with client.get(path, headers={"Accept": "application/json"}) as response:
            body = await response.json()
            assert response.status == 503
            assert body["state"] == "loading"
            assert body["load"] == {"stage": "weights", "ratio": 0.25}
        async with client.get(path) as response:
            assert "stage weights, 25%" in await response.text()
    async with client.get("/-/healthy") as response:
        assert response.status == 200
    site.status = replace(site.status, state=EngineState.ready)
    async with client.get("/-/ready") as response:
        assert response.status == 200
        assert await response.text() == "ready: the engine is ready\n"


async def test_the_landing_page_links_to_the_metrics(client: aiohttp.ClientSession) -> None:
    async with client.get("/") as response:
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert 'href="/metrics"' in await response.text()


async def test_an_unknown_path_is_a_404_that_names_the_known_ones(client: aiohttp.ClientSession) -> None:
    async with client.get("/metricz") as response:
        assert response.status == 404
        assert "/metrics" in await response.text()
    async with client.get("/metricz", headers={"Accept": "application/json"}) as response:
        assert (await response.json())["status"] == "error"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_nothing_can_be_written(client: aiohttp.ClientSession, method: str) -> None:
    async with client.request(method, "/metrics", data=b"x" if method != "OPTIONS" else None) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET, HEAD"


# Who may read


@pytest.mark.parametrize(
    "path", ["/metrics", "/metrics/prometheus", "/metrics?the=long-way", "/", "/nothing"]
)
async def test_without_the_token_nothing_is_shown(path: str) -> None:
    async with running(bearer_token=SecretStr("s3cret")) as site, await site.connect() as client:
        for shown in (b"", b"Authorization: Bearer wrong\r\n", b"Authorization: Basic s3cret\r\n"):
            request = f"GET {path} HTTP/1.1\r\nHost: a\r\n".encode() + shown + b"\r\n"
            code, headers, body = await client.ask(request)
            assert code == 401
            assert headers["www-authenticate"].startswith("Bearer")
            assert b"filler" not in body


async def test_with_the_token_both_ways_answer_and_stay_closed_for_others() -> None:
    async with running(bearer_token=SecretStr("s3cret")) as site:
        shown = SCRAPE.replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer s3cret\r\n\r\n")
        for request in (shown, shown, shown.replace(b"/metrics", b"/metrics?x=1")):
            async with await site.connect() as client:
                assert (await client.ask(request))[0] == 200
                assert (await client.ask(SCRAPE))[0] == 401
                assert (await client.ask(request))[0] == 200


async def test_health_needs_no_token_and_then_tells_no_details() -> None:
    async with running(bearer_token=SecretStr("s3cret")) as site:
        site.status = replace(site.status, state=EngineState.ready, models=("secret/model",))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{site.port}") as client:
            for path in ("/-/healthy", "/-/ready", "/health"):
                async with client.get(path, headers={"Accept": "application/json"}) as response:
                    assert response.status == 200
                    assert "secret/model" not in await response.text()
            async with client.get("/rules/RUNBOOK.md") as response:  # messages lead there
                assert response.status == 200
            shown = {"Accept": "application/json", "Authorization": "Bearer s3cret"}
            async with client.get("/-/ready", headers=shown) as response:
                assert (await response.json())["models"] == ["secret/model"]


# How requests may arrive


async def test_pipelined_requests_are_answered_in_order_over_both_ways(site: Site) -> None:
    async with await site.connect() as client:
        client.writer.write(SCRAPE * 3 + ALIAS * 30 + b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n" + SCRAPE)
        answers = [await client.answer() for _ in range(35)]
    assert [code for code, _, _ in answers] == [200] * 35
    assert [b"filler" in body for _, _, body in answers] == [True] * 33 + [False, True]
    assert answers[33][2] == b"the daemon is alive\n"


async def test_a_request_in_pieces_is_answered(site: Site) -> None:
    for cut in (1, 10, len(SCRAPE) - 1):
        async with await site.connect() as client:
            client.writer.write(SCRAPE + SCRAPE[:cut])
            assert (await client.answer())[0] == 200
            client.writer.write(SCRAPE[cut:])
            assert (await client.answer())[0] == 200
            assert (await client.ask(SCRAPE))[0] == 200


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /metrics HTTP/1.0\r\n\r\n",
        b"GET /metrics HTTP/1.0\r\nHost: a\r\n\r\n",
        b"GET /metrics?long HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ],
)
async def test_a_client_that_does_not_stay_is_let_go_after_its_answer(
    site: Site, request_head: bytes
) -> None:
    answer = await site.raw(request_head)
    assert answer.startswith(b"HTTP/1.")
    assert b" 200 OK" in answer
    assert b'filler{number="000019"} 19\n' in answer


async def test_http_1_0_may_stay_when_it_asks_to(site: Site) -> None:
    async with await site.connect() as client:
        for _ in range(2):
            code, headers, _ = await client.ask(
                b"GET /metrics HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
            )
            assert code == 200
            assert headers["connection"] == "keep-alive"


async def test_a_client_that_closes_its_half_first_gets_all_its_answers(site: Site) -> None:
    answer = await site.raw(SCRAPE * 50, half_close=True)
    assert answer.count(b"HTTP/1.1 200 OK") == 50
    assert answer.endswith(b'filler{number="000019"} 19\n') or b"vllm_exporter_http" in answer


async def test_an_absolute_request_target_is_understood(site: Site) -> None:
    answer = await site.raw(b"GET http://a/metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert b" 200 " in answer.split(b"\r\n")[0]


# Hostile requests


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"\x00" * 1000 + b"\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /metrics FTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(5000)) + b"\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nBad Header\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"GET /metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
    ],
)
async def test_a_malformed_request_is_refused_and_the_server_lives_on(
    site: Site, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    for prefix in (b"", SCRAPE):
        try:
            answer = await site.raw(prefix + sent)
        except ConnectionResetError:
            answer = b""  # closed with our bytes unread
        assert b"Traceback" not in answer
        last = re.findall(rb"HTTP/\d\.\d (\d+) ", answer)[-1:]
        assert not answer or last[0] in (b"400", b"413", b"431", b"505")
    assert not caplog.records
    async with await site.connect() as client:
        assert (await client.ask(SCRAPE))[0] == 200


async def test_invalid_utf8_in_a_header_or_path_is_no_server_error(site: Site) -> None:
    for line in (
        b"GET /\xff\xfe HTTP/1.1\r\n",
        b"GET /%ff%fe HTTP/1.1\r\n",
        b"GET /metrics HTTP/1.1\r\nX: \xff\r\n",
    ):
        answer = await site.raw(line + b"Host: a\r\nConnection: close\r\n\r\n")
        assert answer[9:12] in (b"200", b"400", b"404")


async def test_a_request_body_is_not_taken(site: Site) -> None:
    head = b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n"
    began = time.monotonic()
    answer = await site.raw(head + b"x" * 100_000)
    assert answer.startswith(b"HTTP/1.1 413")
    assert time.monotonic() - began < 2 * limits.LINGER_SECONDS + 3


async def test_a_small_body_with_get_does_not_hurt(site: Site) -> None:
    async with await site.connect() as client:
        request = b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
        assert (await client.ask(request))[0] == 200
        assert (await client.ask(SCRAPE))[0] == 200


async def test_slow_and_silent_clients_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    from exporter.web import application, server

    monkeypatch.setattr(connection, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(application, "REQUEST_SECONDS", 0.3)
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.3)
    monkeypatch.setattr(server, "SWEEP_SECONDS", 0.05)
    async with running() as site:
        silent, half, scraped = [await site.connect() for _ in range(3)]
        half.writer.write(SCRAPE[:20])
        assert (await scraped.ask(SCRAPE))[0] == 200

        async def drip() -> None:
            loris = await site.connect()
            loris.writer.write(b"GET /metrics HTTP/1.1\r\n")
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(20):
                    while True:
                        loris.writer.write(b"X-Slow: 1\r\n")
                        await loris.writer.drain()
                        await asyncio.sleep(0.02)

        await drip()
        for client in (silent, half, scraped):
            with suppress(ConnectionResetError):
                assert await client.ended() == b""
            client.writer.close()


async def test_a_reader_that_does_not_read_holds_a_bounded_amount_and_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from exporter.web import server

    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.3)
    monkeypatch.setattr(server, "SWEEP_SECONDS", 0.05)
    async with running(series=3000) as site:
        rendered = 0
        good = site.server._metrics.count

        def count(*args: Any) -> None:
            nonlocal rendered
            rendered += 1
            good(*args)

        monkeypatch.setattr(site.server._metrics, "count", count)
        with socket.create_connection(("127.0.0.1", site.port)) as greedy:
            greedy.setblocking(False)
            loop = asyncio.get_running_loop()
            sender = asyncio.create_task(loop.sock_sendall(greedy, SCRAPE * 20_000))
            deadline = time.monotonic() + 20
            while site.server._metrics.closed["stalled"] == 0 and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            assert site.server._metrics.closed["stalled"] == 1
            assert rendered < 1000
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        async with await site.connect() as client:
            assert (await client.ask(SCRAPE))[0] == 200


async def test_when_all_places_are_taken_the_quietest_connection_makes_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS", 4)
    async with running() as site:
        clients = [await site.connect() for _ in range(4)]
        for client in clients:
            await client.ask(SCRAPE)
        await clients[0].ask(SCRAPE)
        late = await site.connect()
        assert (await late.ask(SCRAPE))[0] == 200
        assert (await clients[0].ask(SCRAPE))[0] == 200
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await clients[1].ask(SCRAPE)
        for client in (*clients, late):
            client.writer.close()


# The listener's life


def test_a_taken_port_is_a_configuration_error_that_names_the_way_out() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(
            ConfigError, match=f"web.listen 127.0.0.1:{port}: the port is taken by process .*--listen"
        ):
            server("127.0.0.1", port).bind()


def server(host: str, port: int, **settings: Any) -> WebServer:
    return WebServer(
        WebSettings(listen=f"{host}:{port}", **settings),
        Page([]),
        engine_status=lambda: EngineStatus(mode="attached", base_url="http://127.0.0.1:8000"),
    )


@pytest.mark.parametrize("host", ["203.0.113.9", "no-such-host.invalid"])
def test_an_address_that_is_not_ours_is_a_configuration_error(host: str) -> None:
    with pytest.raises(ConfigError, match=f"web.listen {host}"):
        server(host, 9108).bind()


def test_all_interfaces_means_both_families() -> None:
    face = server("", 0)
    listening = face.bind()
    try:
        with socket.create_connection(("127.0.0.1", listening.getsockname()[1]), timeout=5):
            pass
        assert face.url.startswith("http://localhost:")
    finally:
        listening.close()


def test_localhost_is_127_0_0_1_and_never_quietly_another_address() -> None:
    listening = server("localhost", 0).bind()
    try:
        host, port = listening.getsockname()[:2]
        assert host == "127.0.0.1"
        with pytest.raises(ConfigError, match="taken by process"):
            server("localhost", port).bind()
        with pytest.raises(ConfigError, match="taken by process"):
            server("", port).bind()
    finally:
        listening.close()


async def test_our_families_pass_promtools_check() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    site = Site(series=0)
    await site.server.stop()
    for path in sorted(PATHS):
        site.server._metrics.count(path, 200, 0.001)
    site.server.publish(site.own)
    ProcessMetrics(site.own, lag=Lag(0.0)).publish(now=0.0)
    page = site.own.render(openmetrics=False)
    done = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_an_empty_token_is_a_configuration_error() -> None:
    with pytest.raises(ValueError, match="the token is empty"):
        WebSettings(bearer_token=SecretStr(""))


async def test_a_client_that_comes_before_the_start_waits_for_its_answer() -> None:
    site = Site()
    early = await site.connect()
    early.writer.write(SCRAPE)
    await site.server.start()
    try:
        assert (await early.answer())[0] == 200
    finally:
        early.writer.close()
        await site.server.stop()


async def test_stop_closes_every_connection_and_the_port_and_may_come_twice() -> None:
    site = Site()
    await site.server.start()
    short, long, fresh = [await site.connect() for _ in range(3)]
    await short.ask(SCRAPE)
    await long.ask(b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(10):
        await site.server.stop()
    await site.server.stop()
    for client in (short, long, fresh):
        assert await client.ended() == b""
        client.writer.close()
    with pytest.raises(ConnectionRefusedError):
        await site.connect()


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl here")
    return cert, key


async def test_over_tls_both_ways_answer(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    async with running(series=3000, tls_cert_file=cert, tls_key_file=key) as site:
        assert site.server.url == f"https://127.0.0.1:{site.port}"
        trusted = ssl.create_default_context(cafile=str(cert))
        connector = aiohttp.TCPConnector(ssl=trusted)
        async with aiohttp.ClientSession(site.server.url, connector=connector) as client:
            for path in ("/metrics", "/metrics", "/-/healthy", "/metrics"):
                async with client.get(path) as response:
                    assert response.status == 200
                    await response.read()


def test_certificates_that_cannot_be_used_are_configuration_errors(
    certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    cert, key = certificate
    junk = tmp_path / "junk.pem"
    junk.write_text("not a certificate")
    locked = tmp_path / "locked.pem"
    command = ["openssl", "pkey", "-in", str(key), "-aes128", "-passout", "pass:x", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    other = tmp_path / "other.pem"
    subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(other)], check=True
    )
    for cert_file, key_file, problem in (
        (tmp_path / "gone.pem", key, "tls_cert_file .*gone.pem: cannot be read"),
        (cert, tmp_path / "gone.pem", "tls_key_file .*gone.pem: cannot be read"),
        (junk, key, "not a PEM certificate chain"),
        (cert, locked, "the key has a passphrase"),
        (cert, other, "is not the key of"),
    ):
        with pytest.raises(ConfigError, match=problem):
            server("127.0.0.1", 0, tls_cert_file=cert_file, tls_key_file=key_file).bind()
