"""The gateway among enemies: the real daemon under attack, and what of any bytes reaches an engine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httptools
import pytest
from gateway_siege import (
    GREED,
    Client,
    Siege,
    Wicked,
    ask_for,
    eventually,
    free_port,
    post,
    raise_files,
    request,
    status_of,
)
from gateway_wire import JSON_OK, Gateway, Message, Wire, answering, chunked, gateway
from gateway_wire import post as posted

from exporter.gateway.keys.check import Keys
from exporter.gateway.keys.key import Key, digest

IDLE = 10_000
STALL = 0.5
"""Seconds for which nobody may be kept waiting by what somebody else sent; an attack that works takes a second or more."""


# The daemon under siege


@pytest.fixture(scope="module")
def besieged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Siege, Siege, Wicked]]:
    """Two daemons: one that supervises the simulator, one before an engine that does what it is told."""
    raise_files(IDLE + 500)
    wicked = Wicked()
    port, second = free_port(), free_port()
    simulator = ("--", sys.executable, "-m", "exporter", "simulate", "--port", str(port))
    sieges = []
    try:
        sieges.append(Siege(tmp_path_factory.mktemp("first"), port, *simulator))
        sieges.append(
            Siege(
                tmp_path_factory.mktemp("second"), second, "--engine-url", f"http://127.0.0.1:{wicked.port}",
                "--set", "gateway.mode=on", "--set", f"gateway.listen=127.0.0.1:{second}",
                "--set", "gateway.write_timeout=1.5", "--set", "gateway.read_timeout=2",
            )
        )  # fmt: skip
        for siege in sieges:
            siege.wait()
        yield sieges[0], sieges[1], wicked
    finally:
        for siege in sieges:
            siege.stop()
        wicked.close()


@pytest.fixture
def siege(besieged: tuple[Siege, Siege, Wicked]) -> Iterator[Siege]:
    """The daemon over the simulator; whatever was done to it, it stands afterwards."""
    yield besieged[0]
    besieged[0].check()


@pytest.fixture
def wicked(besieged: tuple[Siege, Siege, Wicked]) -> Iterator[tuple[Siege, Wicked]]:
    """The daemon before the wicked engine, and that engine."""
    _, siege, engine = besieged
    yield siege, engine
    engine.well()
    siege.check()


def test_ten_thousand_idle_connections_cost_little_and_keep_nobody_out(siege: Siege) -> None:
    if not raise_files(IDLE + 500) or _limit_of(siege) < IDLE + 500:
        pytest.skip("not enough open files are allowed here (ulimit -n)")
    before = siege.memory()
    idle = []
    try:
        for _ in range(IDLE):
            idle.append(siege.client())
        started = time.monotonic()
        assert status_of(siege.ask(post(ask_for()))) == 200
        assert time.monotonic() - started < 2
        eventually("all are there", lambda: siege.value("vllm_exporter_gateway_connections") >= IDLE)
        grown = siege.memory() - before
        assert grown < IDLE * 4096 + (8 << 20), f"{grown / IDLE:.0f} bytes a connection"
    finally:
        for client in idle:
            client.close()


def _limit_of(siege: Siege) -> int:
    return resource.prlimit(siege.process.pid, resource.RLIMIT_NOFILE)[0]


def test_heads_and_bodies_byte_by_byte_hold_nobody_up(siege: Siege) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nContent-Length: 100000\r\n"
    slow = []
    try:
        for number in range(300):
            client = siege.client()
            client.send(head if number % 2 else head + b"\r\n")
            slow.append(client)
        with siege.stall() as stalled:
            for _ in range(10):
                for client in slow:
                    client.send(b"X")
                assert status_of(siege.ask(post(ask_for()))) == 200
        assert stalled() < STALL
    finally:
        for client in slow:
            client.close()


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/v1/chat/completions"])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_an_upload_of_a_gigabyte_is_refused_or_passed_in_bounded_memory(
    siege: Siege, path: str, in_chunks: bool
) -> None:
    block = b"a" * (1 << 20)
    framing = "Transfer-Encoding: chunked" if in_chunks else f"Content-Length: {len(block) << 10}"
    if in_chunks:
        block = b"%x\r\n%b\r\n" % (len(block), block)
    head = f"POST {path} HTTP/1.1\r\nHost: g\r\nContent-Type: application/octet-stream\r\n{framing}\r\n\r\n"
    with siege.most_memory() as most, siege.client() as client:
        client.send(head.encode())
        for _ in range(1024):
            if not client.send(block):
                break
        with contextlib.suppress(TimeoutError):
            answer = client.head()
        assert not answer or 400 <= status_of(answer) < 500
    assert most() < 2 * GREED


def test_an_upload_of_300_mb_goes_through_as_it_comes(wicked: tuple[Siege, Wicked]) -> None:
    siege, engine = wicked
    block = b"a" * (1 << 20)
    taken = engine.taken
    with siege.most_memory() as most, siege.client() as client:
        client.send(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n" % (300 << 20)
        )
        for _ in range(300):
            assert client.send(block)
        assert status_of(client.head()) == 200
    assert engine.taken - taken == 300 << 20
    assert most() < GREED // 2


def test_a_head_without_end_is_refused(siege: Siege) -> None:
    with siege.most_memory() as most, siege.client() as client:
        client.send(b"GET /health HTTP/1.1\r\nHost: g\r\n")
        line = b"X-More: " + b"y" * 1000 + b"\r\n"
        while client.send(line * 100):
            pass
    assert most() < GREED // 4
    assert status_of(siege.ask(request("GET", "/health", "X: " + "y" * 70_000))) == 431
    assert status_of(siege.ask(request("GET", "/" + "y" * 60_000))) == 404
    assert status_of(siege.ask(request("GET", "/" + "y" * 70_000))) == 431


def test_what_is_no_http_gets_a_refusal_or_nothing(siege: Siege) -> None:
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\0" * 100,
        b"GET /health\r\n\r\n",
        b"get /health HTTP/1.1\r\nHost: g\r\n\r\n",
        b"TRACE /health HTTP/1.1\r\nHost: g\r\n\r\n",
        b"CONNECT g:22 HTTP/1.1\r\nHost: g\r\n\r\n",
    ):
        with siege.client() as client:
            client.send(sent)
            client.socket.shutdown(socket.SHUT_WR)
            answer = client.rest()
            assert not answer or status_of(answer) >= 400, (sent, answer)
            assert answer.count(b"HTTP/1.1 4") + answer.count(b"HTTP/1.1 5") <= 1
    dice = random.Random(5)
    for _ in range(100):
        with siege.client() as client:
            client.send(dice.randbytes(dice.randrange(1, 300)))
            client.socket.shutdown(socket.SHUT_WR)
            assert b" 200 " not in client.rest()[:16]


def test_a_thousand_requests_in_one_go_are_answered_in_their_order(siege: Siege) -> None:
    paths = [("/version", 200), ("/nowhere", 404), ("/v1/models", 200), ("/sleep", 404)]
    asked = b"".join(
        request("GET", paths[number % 4][0], f"X-Request-Id: {number}") for number in range(1000)
    )
    with siege.client() as client:
        client.send(asked)
        data = b""
        while b"x-request-id: 999\r\n" not in data.lower():
            piece = client.some()
            assert piece, data[-300:]
            data += piece
    ids = [int(part.split(b"\r\n")[0]) for part in data.lower().split(b"x-request-id: ")[1:]]
    assert ids == list(range(1000))


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 16_000_000,
        b'{"a":' * 3_000_000,
        b'{"model":"sim-8b","max_tokens":' + b"9" * 15_000_000 + b"}",
        b"{" + b'"stream":true,' * 1_000_000 + b'"stream_options":{}}',
        json.dumps({"model": "\u00e9\u2028" * 500_000}, ensure_ascii=False).encode("utf-16"),
        b'{"stream":true,"model":"sim-8b","prompt":"' + b"a" * 16_000_000 + b'"}',
    ],
    ids=["nested lists", "nested objects", "a huge number", "one key many times", "a wide model", "long"],
)
def test_no_json_stops_the_event_loop(wicked: tuple[Siege, Wicked], body: bytes) -> None:
    siege, _ = wicked
    with siege.most_memory() as most, siege.stall() as stalled:
        assert status_of(siege.ask(post(body))) < 500
    assert stalled() < STALL
    assert most() < 2 * GREED


@pytest.mark.parametrize(
    "start",
    [b'{"stream":1,"x":', b'{"x":NaN,"y":', b'{"stream":true,"model":"sim-8b","stream_options":{"a":'],
    ids=["a number for a switch", "no number", "options"],
)
def test_no_json_that_is_odd_stops_the_event_loop(wicked: tuple[Siege, Wicked], start: bytes) -> None:
    siege, _ = wicked
    body = start + b"[" + b"[]," * 5_000_000 + b"[]]" + b"}" * start.count(b"{")
    with siege.most_memory() as most, siege.stall() as stalled:
        assert status_of(siege.ask(post(body))) < 500
    assert stalled() < STALL
    assert most() < 2 * GREED


def test_no_connection_header_stops_the_event_loop(siege: Siege) -> None:
    with siege.stall() as stalled:
        siege.ask(request("GET", "/health", "Connection: " + "a," * 30_000))
    assert stalled() < STALL


@pytest.mark.parametrize(
    "start", [b"2\r\n{}\r\n0\r\nX: ", b"2\r\n{}\r\n0\r\n", b"2;a=", b"2\r\n{}\r\n1;"],
    ids=["one trailer", "trailers", "one extension", "extensions"],
)  # fmt: skip
def test_what_comes_beside_a_body_is_bounded(siege: Siege, start: bytes) -> None:
    more = {
        b"2\r\n{}\r\n0\r\nX: ": b"a" * (1 << 20),
        b"2\r\n{}\r\n0\r\n": (b"X: " + b"a" * 1019 + b"\r\n") * 1024,
        b"2;a=": b"a" * (1 << 20),
        b"2\r\n{}\r\n1;": (b"a" * 1000 + b"\r\n \r\n1;") * 1000,
    }[start]
    head = b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
    with siege.most_memory() as most, siege.client() as client:
        client.send(head + start)
        taken = sum(client.send(more) for _ in range(24))
        client.socket.settimeout(0.5)
        answer = client.head()
    assert taken < 24 or status_of(answer) in (400, 413, 431)
    assert most() < GREED // 4


def test_nobodys_words_become_series_or_stay_in_memory(siege: Siege) -> None:
    siege.ask(post(b'{"model":"before"}'))
    siege.ask(request("GET", "/before"))
    before = len(siege.page().splitlines())
    dice = random.Random(6)
    for number in range(300):
        word = f"zz{dice.randbytes(8).hex()}"
        sent = [
            post(
                json.dumps({"model": word}).encode(), f"Authorization: Bearer {word}", f"X-Request-Id: {word}"
            ),
            request("GET", f"/{word}"),
            request("GET", f"/v1/models/{word}"),
            request("GET", f"/v1/responses/{word}", f"X-Priority: {word}"),
            request("GET", "/health", f"X-Forwarded-For: {word}", f"{word}: {word}"),
        ][number % 5]
        siege.ask(sent)
    page = siege.page()
    assert len(page.splitlines()) < before + 40
    assert "zz" not in page.replace("zz_", "")


@pytest.mark.parametrize(
    "model",
    ["a" * 1_000_000, 'x"} 1\nvllm_evil{a="b', "\n{\"event\":\"forged\"}", "\u2028\u0085\x1b[2J", "\ud800", "{}", "\0", ""],
    ids=["long", "label", "line", "separators", "surrogate", "braces", "nul", "empty"],
)  # fmt: skip
def test_a_models_name_injects_nothing(siege: Siege, model: str) -> None:
    assert status_of(siege.ask(post(json.dumps({"model": model, "prompt": "x"}).encode()))) in (200, 400, 404)
    assert "evil" not in siege.page()
    assert not [line for line in siege.events() if line["event"] == "forged"]


@pytest.mark.parametrize("name", ['"}\xff{"event":"forged"', "a" * 6000, "\xe9" * 300])
def test_a_request_id_injects_nothing(siege: Siege, name: str) -> None:
    answer = siege.ask(post(ask_for(), f"X-Request-Id: {name}"))
    assert status_of(answer) == 200
    assert answer.count(b"HTTP/1.1") == 1
    lines = [line for line in siege.events() if line["event"] == "request"]
    assert len(str(lines[-1]["request_id"])) <= 300
    assert not [line for line in siege.events() if line["event"] == "forged"]


def test_clients_that_reset_in_any_phase_leave_nothing(siege: Siege) -> None:
    streamed = post(ask_for(2000, stream=True))
    chunks = b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    for sent in (
        b"",
        b"G",
        b"GET / HTTP/1.1\r\n",
        streamed[:-5],
        streamed,
        chunks,
        streamed * 20,
        request("GET", "/x") * 50,
    ):
        for wait in (False, True):
            for _ in range(4):
                client = siege.client()
                client.send(sent)
                if wait and sent.startswith(streamed):
                    client.some()
                client.reset()
    for _ in range(200):
        siege.client().reset()
    for _ in range(200):
        siege.client().close()


def test_a_client_that_says_no_more_has_left(siege: Siege) -> None:
    with siege.client() as client:
        client.send(post(ask_for(4000, stream=True)))
        assert b" 200 " in client.head()
        client.socket.shutdown(socket.SHUT_WR)
        client.rest()
    with siege.client() as client:
        client.send(request("GET", "/health"))
        assert status_of(client.head()) == 200
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == b""


def test_clients_cannot_take_the_files_of_the_daemon(tmp_path: Path) -> None:
    """Once 1,200 idle connections ended a daemon with the usual 1,024 files: it could not list its engine's processes."""
    port = free_port()
    siege = Siege(
        tmp_path, port, "--", sys.executable, "-m", "exporter", "simulate", "--port", str(port), files=400
    )
    crowd: list[Client] = []
    try:
        siege.wait()
        for _ in range(400):
            crowd.append(siege.client())
        assert status_of(siege.ask(post(ask_for()))) == 200
        scrapes = siege.value("vllm_exporter_scrapes_total")
        eventually("it scrapes its engine", lambda: siege.value("vllm_exporter_scrapes_total") > scrapes + 1)
        assert siege.value("vllm_exporter_scrape_success") == 1
        # Now let there be none to open at all: it lives, and recovers.
        soft, hard = resource.prlimit(siege.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(siege.process.pid, resource.RLIMIT_NOFILE, (siege.files(), hard))
        for _ in range(30):
            crowd.append(siege.client())
        time.sleep(1.5)
        assert siege.process.poll() is None, siege.log.read_text()[-2000:]
        for client in crowd:
            client.close()
        resource.prlimit(siege.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        siege.check()
    finally:
        for client in crowd:
            client.close()
        siege.stop()


def test_handshakes_that_never_come_cost_little(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not here to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    port = free_port()
    siege = Siege(
        tmp_path, port, "--engine-url", f"http://127.0.0.1:{free_port()}", "--set", "gateway.mode=on",
        "--set", f"gateway.listen=127.0.0.1:{port}", "--set", f"gateway.tls_cert_file={certificate}",
        "--set", f"gateway.tls_key_file={key}", "--set", "gateway.max_connections=50",
    )  # fmt: skip
    crowd: list[Client] = []
    try:
        eventually(
            "it listens", lambda: any(event["event"] == "gateway_listening" for event in siege.events())
        )
        time.sleep(0.5)
        before = siege.memory()
        for _ in range(300):
            crowd.append(siege.client())
        time.sleep(0.5)
        assert siege.memory() - before < GREED // 2
    finally:
        for client in crowd:
            client.close()
        siege.stop()


def test_keys_of_any_size_and_bytes_are_a_clients_error_at_most(siege: Siege) -> None:
    for key in ("a" * 7000, "\x80\xff", "Bearer " * 1000, ""):
        assert status_of(siege.ask(post(ask_for(), f"Authorization: Bearer {key}"))) in (200, 401)


def test_ten_clients_that_never_read_hold_little_and_are_cut(wicked: tuple[Siege, Wicked]) -> None:
    siege, engine = wicked
    cut = []

    def endless(connection: socket.socket, head: bytes) -> None:
        kind = b"text/event-stream" if b"chat" in head else b"application/json"
        event = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"a" * 60_000 + b'"}}]}\n\n'
        connection.sendall(
            b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind
        )
        try:
            while True:
                connection.sendall(b"%x\r\n%b\r\n" % (len(event), event))
        except OSError:
            cut.append(head)
            raise

    engine.answer = endless
    clients: list[Client] = []
    with siege.most_memory() as most, siege.stall() as stalled:
        for number in range(10):
            client = siege.client(window=4096)
            client.send(post(ask_for(9, stream=True), path=f"/v1/{'chat/' * (number % 2)}completions"))
            clients.append(client)
        eventually("all of them are cut", lambda: len(cut) == 10)
    for client in clients:
        client.close()
    assert most() < GREED // 2
    assert stalled() < STALL


@pytest.mark.parametrize("attack", ["head", "interim", "event", "line", "answer", "close"])
def test_an_answer_without_end_is_bounded(wicked: tuple[Siege, Wicked], attack: str) -> None:
    siege, engine = wicked
    start, more, amount = {
        "head": (b"HTTP/1.1 200 OK\r\n", b"X: " + b"a" * 60_000 + b"\r\n", 400),
        "interim": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 1000, 100),
        "event": (_stream(b"text/event-stream"), _piece(b"data: " + b"a" * 60_000), 1500),
        "line": (_stream(b"text/event-stream"), _piece(b"data: a\n" * 8000), 1500),
        "answer": (_stream(b"application/json"), _piece(b'"usage":{' * 7000), 1500),
        "close": (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n", b"[" * 60_000, 1500),
    }[attack]

    def answer(connection: socket.socket, head: bytes) -> None:
        connection.sendall(start)
        for _ in range(amount):
            connection.sendall(more)
        connection.close()

    engine.answer = answer
    with siege.most_memory() as most, siege.client() as client:
        client.send(post(ask_for(9, stream=True), "Connection: close"))
        answered = client.head()
        if attack in ("head", "interim"):
            assert status_of(answered) == 502
        else:
            assert status_of(answered) == 200
            client.rest(1 << 30)
    assert most() < GREED


def _stream(kind: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind


def _piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# What reaches an engine


@dataclass
class Witness:
    """An engine that writes down what reaches it, byte for byte, and reads it with a parser that is not the gateway's code."""

    raw: list[bytearray] = field(default_factory=list)
    requests: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)
    """Method, target and body."""
    errors: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.raw.append(bytearray())
        parser = httptools.HttpRequestParser(_Reading(self, writer))
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.raw[-1] += data
                try:
                    parser.feed_data(data)
                except httptools.HttpParserError as error:
                    self.errors.append(f"{error} {bytes(self.raw[-1])[:300]!r}")
                    break
        writer.close()


class _Reading:
    def __init__(self, witness: Witness, writer: asyncio.StreamWriter) -> None:
        self.witness = witness
        self.writer = writer
        self.target = self.body = b""
        self.parser: httptools.HttpRequestParser | None = None

    def on_message_begin(self) -> None:
        self.target = self.body = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.witness.requests.append((b"", self.target, self.body))
        self.writer.write(JSON_OK)


@contextlib.asynccontextmanager
async def witnessed() -> AsyncIterator[tuple[Gateway, Witness]]:
    witness = Witness()
    server = await asyncio.start_server(witness.serve, "127.0.0.1", 0)
    async with gateway(answering(JSON_OK), body_timeout=5, head_timeout=5) as g:
        g.fleet.backends[0].port = server.sockets[0].getsockname()[1]
        try:
            yield g, witness
        finally:
            server.close()


INNER = b"GET /version?smuggled HTTP/1.1\r\nHost: g\r\n\r\n"
LENGTHS = (
    "Content-Length: +%d", "Content-Length: -%d", "Content-Length: %d,%d", "Content-Length: 0x%x", "Content-Length: %d 0",
    "Content-Length: %d\x0b", "Content-Length: \x0c%d", "Content-Length : %d", "Content-Length\t: %d", " Content-Length: %d",
    "Content-Length: %d\r\nContent-Length: %d", "Content-Length: %d\r\nContent-Length: 0", "Content-Length: 0\r\nContent-Length: %d",
    "Content-Length: %d\r\ncontent-length: 3", "X: y\r\n Content-Length: %d", "X: y\nContent-Length: %d", "X: y\rContent-Length: %d",
    "X: y\0\r\nContent-Length: %d", "Content-Length: %d_0", "Content-Length: %d.0", "Content-Length: %de0", "Content-Length:",
    "Content-Length: ", "Content-Length: 18446744073709551616", "Content-Length: 9223372036854775808", "Content-Length: \xb2",
    "Content-Length\xa0: %d", "\x00Content-Length: %d", "Content-Length: \"%d\"", "Content-Length: %d;", "Content-Length: 1\r\n 0",
)  # fmt: skip
CODINGS = (
    "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: identity", "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: identity, chunked", "Transfer-Encoding: x\tchunked", "Transfer-Encoding: xchunked", "Transfer-Encoding: chunkedx",
    "Transfer-Encoding:\r\n chunked", "Transfer-Encoding: chunked\r\n , identity", "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "Transfer-Encoding: \x0bchunked", "Transfer-Encoding: chunked\x0b",
    "Transfer-Encoding\x0b: chunked", "Transfer-Encoding : chunked", "Transfer-Encoding: 'chunked'", "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: ,chunked", "Transfer-Encoding: chunked,", "X: y\nTransfer-Encoding: chunked", "Transfer-Encoding:",
    "Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4",
    "Content-Length: 4\r\nTransfer-Encoding: identity", "Content-Length: 4\r\nTransfer-Encoding:",
    "Content-Length: 4\r\nTransfer_Encoding : chunked", "Transfer-Encoding: ch\u00fcnked", "Transfer-Encoding: chun\0ked",
)  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/audio/transcriptions"])
async def test_no_length_can_be_read_in_two_ways(path: str) -> None:
    async with witnessed() as (g, witness):
        for line in LENGTHS:
            with contextlib.suppress(TypeError):
                line %= (len(INNER),) * line.count("%")
            head = f"POST {path} HTTP/1.1\r\nHost: g\r\n{line}\r\n\r\n".encode("latin-1")
            assert (await g.ask(head + INNER)).status in (400, 413), line
        for coding in CODINGS:
            for body in (b"0\r\n\r\n" + INNER, b"5c\r\n" + INNER):
                head = f"POST {path} HTTP/1.1\r\nHost: g\r\n{coding}\r\n\r\n".encode("latin-1")
                assert (await g.ask(head + body)).status in (400, 501), coding
        assert not any(witness.raw), "something of it reached the engine"
        assert not witness.requests


SIZES = (
    b"-1", b"+2", b" 2", b"2 ", b"2\t", b"0x2", b"2\0", b"", b";", b"2;a\rb", b"2;a\nb", b"2;\0", b"g", b"02g", b"f" * 16, b"1" + b"0" * 16,
    b"10000000000000002", b"\xb2", b"2_", b"2\r", b"2\r\n\r", b"2 ;a", b"2;a=\"\r\n", b"3", b"1",
)  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/audio/transcriptions"])
async def test_no_chunk_can_be_read_in_two_ways(path: str) -> None:
    async with witnessed() as (g, witness):
        head = b"POST %b HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n" % path.encode()
        for size in SIZES:
            wire = await g.client()
            await wire.send(head + size + b"\r\n{}\r\n0\r\n\r\n" + INNER)
            await wire.send(b"")
            got = await asyncio.wait_for(wire.reader.read(1000), 4) if size != b"f" * 16 else b" 400 "
            assert b" 400 " in got[:16] or b" 413 " in got[:16] or b" 200 " in got[:16], (size, got)
            assert b" 200 " not in got[:16] or size in (b"2 ", b"2 ;a", b"2\t"), (size, got)
            wire.close()
        for bad in (
            b"2\r\n{}0\r\n\r\n",
            b"2\n{}\n0\n\n",
            b"2\r\n{}\r0\r\n\r\n",
            b"2\r\n{}\n0\r\n\r\n",
            b"2\r\n{}\r\n0\r\n\n",
        ):
            answer = await g.ask(head + bad + INNER)
            assert answer.status == 400, bad
        await asyncio.sleep(0.05)
        assert not [target for _, target, _ in witness.requests if b"smuggled" in target]
        assert all(body in (b"{}", b"") for _, _, body in witness.requests)


def _all_of(port: int, pieces: list[bytes]) -> bytes:
    with Client(port) as client:
        for piece in pieces:
            client.send(piece)
        return client.rest()


async def test_every_request_that_reaches_the_engine_is_one_that_was_answered() -> None:
    """Requests of every framing, whole and broken, several on a connection, in any pieces: the engine sees those let through."""
    dice = random.Random(7)
    async with witnessed() as (g, witness):
        answered = 0
        for _ in range(100):
            sent = b""
            for _ in range(dice.randrange(1, 4)):
                body = json.dumps({"model": "m", "x": "y" * dice.randrange(50)}).encode()
                path = dice.choice((b"/v1/completions", b"/v1/audio/transcriptions"))
                framed = dice.choice((
                    b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
                    b"Transfer-Encoding: chunked\r\n\r\n" + chunked(body[:7], body[7:]),
                    b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n%b" % (len(body), chunked(body)),
                    b"Content-Length: 0\r\n\r\n",
                    b"Connection: content-length, host\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body),
                    b"Content-Length: %d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n%b" % (len(body), body),
                    b"\r\n",
                ))  # fmt: skip
                sent += b"POST %b HTTP/1.1\r\nHost: g\r\n%b" % (path, framed)
            sent += request("GET", "/load", "Connection: close")
            cuts = sorted(dice.sample(range(len(sent)), 3))
            pieces = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
            answered += (await asyncio.to_thread(_all_of, g.port, pieces)).count(b"HTTP/1.1 200")
        assert not witness.errors
        assert len(witness.requests) == answered > 100


@pytest.mark.parametrize(
    "target",
    [
        "/v1/../sleep", "/v1/%2e%2e/sleep", "/./sleep", "//sleep", "/v1//completions", "/sleep/", "/%73leep", "/sleep%00", "/sleep;a",
        "/sleep?", "/sleep#", "/v1\\..\\sleep", "/sleep%20", "/SLEEP", "/v1/models/../../sleep",
        "/v1/responses/../../sleep", "/v1/responses/a/../cancel", "/v1/responses/a%2fcancel", "http://g/sleep", "http://g/v1/../sleep",
        "http://g@h/sleep", "//g/sleep", "http:/sleep", "https://g/%73leep", "*", "sleep", "?/sleep", "/\xb7sleep", "/health/../sleep",
        "/v1/completions/../../sleep", "/v1/completions%2f..%2f..%2fsleep", "/sleep\t", "http://", "http://g:80:80/sleep", "/..;/sleep",
    ],
)  # fmt: skip
async def test_no_spelling_opens_a_closed_path(target: str) -> None:
    async with witnessed() as (g, witness):
        for method in ("GET", "POST", "PUT", "OPTIONS", "HEAD"):
            with contextlib.suppress(asyncio.IncompleteReadError):
                answer = await g.ask(
                    f"{method} {target} HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode(
                        "latin-1"
                    ),
                    to_head=True,
                )
                assert 400 <= answer.status < 600 or target.startswith("*"), (method, answer.head)
        reached = [target for _, target, _ in witness.requests]
        assert not reached


# Answers that lie


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: a\0\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison",
        b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nanything",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\npoison",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n" + JSON_OK,
    ],
)  # fmt: skip
async def test_an_answer_that_could_be_read_in_two_ways_is_a_502_and_the_next_client_gets_its_own(
    reply: bytes,
) -> None:
    bad = True
    errors: list[object] = []

    async def respond(request: Message, wire: Wire) -> None:
        await wire.send(reply if bad else JSON_OK)

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
    async with gateway(respond, read_timeout=5) as g:
        wire = await g.client()
        await wire.send(posted())
        first = await asyncio.wait_for(wire.answer(), 2)
        assert first.status == 502
        assert json.loads(first.body)["error"]["code"] == "engine_broke_http"
        bad = False
        for _ in range(3):
            answer = await g.ask(posted())
            assert (answer.status, answer.body) == (200, b"{}")
        assert g.gate.running == 0
    assert not errors


async def test_answers_to_head_and_get_do_not_mix() -> None:
    async def respond(message: Message, wire: Wire) -> None:
        body = b"" if message.line.startswith(b"HEAD") else b"hello"
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body)

    async with gateway(respond) as g:
        wire = await g.client()
        pairs = (request("HEAD", "/health") + request("GET", "/health")) * 5
        await wire.send(pairs + request("GET", "/load", "Connection: close"))
        data = await wire.rest()
        assert (data.count(b"HTTP/1.1 200"), data.count(b"hello")) == (11, 6)
        assert g.engine.connections == 1


async def test_what_an_engine_sends_after_an_answer_never_reaches_the_next_client() -> None:
    async def respond(request: Message, wire: Wire) -> None:
        await wire.send(JSON_OK)
        await asyncio.sleep(0.02)
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")

    async with gateway(respond) as g:
        for _ in range(5):
            assert (await g.ask(posted())).body == b"{}"
            await asyncio.sleep(0.05)
        assert g.engine.connections == 5


async def test_an_answers_connection_header_cannot_take_its_framing_out() -> None:
    reply = b"HTTP/1.1 200 OK\r\nConnection: transfer-encoding\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    async with gateway(answering(reply)) as g:
        wire = await g.client()
        await wire.send(posted())
        head = await asyncio.wait_for(wire.reader.readuntil(b"\r\n\r\n"), 5)
        assert (
            b" 502 " in head
            or b"transfer-encoding: chunked" in head.lower()
            or b"connection: close" in head.lower()
        )


async def test_an_engine_that_answers_before_the_request_is_whole_keeps_nothing_open() -> None:
    async def early(request: Message, wire: Wire) -> None:
        await wire.send(JSON_OK)

    early.stream = early  # type: ignore[attr-defined]  # answers at the head
    async with gateway(early) as g:
        wire = await g.client()
        await wire.send(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: g\r\nContent-Length: 1000000\r\n\r\nabc"
        )
        answer = await wire.answer()
        assert answer.status == 200
        assert answer["connection"] == "close"
        await wire.send(INNER * 100)
        assert await wire.is_closed()
        assert len(g.engine.requests) == 0
        assert g.gate.running == 0


# Who stays


async def test_a_client_that_leaves_the_rest_of_its_answer_unread_is_closed_at_last() -> None:
    async def respond(request: Message, wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        ours = next(iter(g.relay._connections))
        while ours.transport.get_write_buffer_size() == 0:
            await wire.send(_piece(b"x" * 4096))
            await asyncio.sleep(0.001)
        await wire.send(b"0\r\n\r\n")

    async with gateway(respond, idle_timeout=20, write_timeout=20) as g:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", g.port))
            client.send(request("GET", "/load"))
            await g.ledger.wait()
            for _ in range(4):
                g.clock.ahead += 30
                await asyncio.sleep(0.3)
            assert g.relay.connections == 0


async def test_a_client_that_sent_ahead_and_left_stops_the_engine() -> None:
    gone = asyncio.Event()

    async def respond(message: Message, wire: Wire) -> None:
        if await wire.some() == b"":
            gone.set()

    async with gateway(respond) as g:
        wire = await g.client()
        await wire.send(posted() + request("GET", "/health") * 5000)
        await asyncio.sleep(0.1)
        wire.abort()
        await asyncio.wait_for(gone.wait(), 2)
        assert g.gate.running == 0


async def test_an_upload_that_waits_for_its_turn_goes_when_its_client_goes() -> None:
    async def respond(message: Message, wire: Wire) -> None:
        await wire.some()

    async with gateway(respond, max_concurrent=1) as g:
        await (await g.client()).send(posted())
        await asyncio.sleep(0.05)
        wire = await g.client()
        await wire.send(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: g\r\nContent-Length: 100000\r\n\r\nabc"
        )
        async with asyncio.timeout(5):
            while not g.gate.queued:
                await asyncio.sleep(0.01)
        wire.abort()
        await asyncio.sleep(0.5)
        assert g.gate.queued == 0


async def test_slow_heads_make_room_for_who_comes() -> None:
    async with gateway(answering(JSON_OK), max_connections=20) as g:
        for wire in [await g.client() for _ in range(20)]:
            await wire.send(b"GET /health HTTP/1.1\r\nX")
        await asyncio.sleep(0.1)
        assert (await g.ask(posted())).status == 200


async def test_bodies_that_trickle_in_do_not_hold_all_the_room_for_ever() -> None:
    async with gateway(answering(JSON_OK), body_timeout=10) as g:
        g.relay.held_limit = 1 << 20
        slow = [await g.client() for _ in range(4)]
        for wire in slow:
            await wire.send(posted(b"x" * (255 << 10), length=1 << 20))
        for _ in range(30):
            g.clock.ahead += 9
            for wire in slow:
                with contextlib.suppress(ConnectionError):
                    await wire.send(b"x")
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        assert (await g.ask(posted(b'{"model":"m","p":"' + b"x" * 200_000 + b'"}'))).status == 200


@pytest.mark.parametrize("name", ["Authorization: Bearer ", "x-api-key: "])
async def test_no_key_of_a_client_reaches_the_engine_where_keys_end_here(name: str) -> None:
    keys = Keys([Key("k", (digest(b"good"),))])
    async with gateway(answering(JSON_OK), keys=keys) as g:
        answer = await g.ask(posted(b'{"model":"m"}', f"{name}secret", f"{name}good"))
        assert answer.status in (200, 400, 401)
        assert not [request for request in g.engine.requests if b"secret" in request.head]


async def test_a_request_ids_control_characters_are_not_written_down() -> None:
    async with gateway(answering(JSON_OK)) as g:
        await g.ask(posted(b'{"model":"m"}', "X-Request-Id: a\x85\x9b31m"))
        assert (await g.ledger.wait()).request_id.isprintable()


async def test_an_empty_request_id_is_none() -> None:
    async with gateway(answering(JSON_OK)) as g:
        answer = await g.ask(posted(b'{"model":"m"}', "X-Request-Id:"))
        assert len(answer["x-request-id"]) == 32


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","model":"other","stream":false,"stream":true}',
        b'{"stream":true,"stream":false,"model":"other","model":"m"}',
        b'{"mod\\u0065l":"m","str\\u0065am":true}',
        b'{"model":"m","stream":true,"stream":null}',
        b'\xef\xbb\xbf{"model":"m","stream":true}',
        '{"model":"m","stream":true}'.encode("utf-16"),
        '{"model":"m","stream":true}'.encode("utf-32-be"),
        b'{"model":"m","stream":true,"n":NaN}',
        b'{"model":"m","stream":true,"n":-Infinity,"x":1e999}',
        b'{"model":"m","x":"\\ud800","stream":true}',
        b'{"model":"m","stream":true,"n":' + b"9" * 4000 + b"}",
        b'{"model":"m","stream":true,"x":"\xed\xa0\x80"}',
        b'{"model":"m","x":{"model":"other","stream":false},"stream":true}',
        b' \t\r\n{"model":"m","stream":true}\r\n ',
        b'{"model":"m","stream":true}x',
        b'{"model":"m","x":"\x01","stream":true}',
        b"[]", b"", b"null", b'"model"', b"{", b'{"model":["m"],"stream":true}', b'{"model":5,"model":"m","stream":"true"}',
    ],
)  # fmt: skip
async def test_a_body_is_read_as_the_engine_will_read_it(body: bytes) -> None:
    """vLLM reads bodies with Python's json, so that is what counts."""
    try:
        meant = json.loads(body)
    except ValueError:
        meant = None
    meant = meant if isinstance(meant, dict) else {}
    async with gateway(answering(JSON_OK)) as g:
        assert (await g.ask(posted(body))).status == 200
        exchange = await g.ledger.wait()
        got = json.loads(g.engine.requests[0].body) if meant else {}
        assert exchange.stream is (meant.get("stream") in (True, "true"))
        assert exchange.model == (
            "" if isinstance(meant.get("model"), str) and meant["model"] != "m" else "m"
        )
        assert repr({name: value for name, value in got.items() if name != "stream_options"}) == repr(meant)
        if not meant:
            assert g.engine.requests[0].body == body
