"""One POST to an endpoint that may do anything."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from exporter.notify.receivers.answers import Answer, outcome_of
from exporter.notify.receivers.http import ANSWER_BYTES, HttpClient, Transport, place
from exporter.notify.receivers.masking import Masker

Start = Callable[..., Awaitable[Any]]
Respond = Callable[..., bytes]
NOW = 1_700_000_000.0
SECRET_PATH = "/hooks/T000/secret-token-1"


async def post(url: str, body: bytes = b"{}", **options: Any) -> Answer:
    client = HttpClient(Transport(timeout=options.pop("timeout", 5.0), masker=Masker(urls=[url]), **options))
    try:
        return await client.post(url, body, {"Content-Type": "application/json"}, now=NOW)
    finally:
        await client.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


async def test_the_body_arrives_as_it_is_with_its_length_and_our_name(start: Start, respond: Respond) -> None:
    server = await start(respond(204))
    answer = await post(server.url + SECRET_PATH, "火".encode(), headers={"Authorization": "Bearer x"})
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", SECRET_PATH, "火".encode())
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"] == "Bearer x"
    assert request.headers["User-Agent"].startswith("vllm-exporter/")
    assert "Cookie" not in request.headers
    assert answer.code == 204
    assert outcome_of(answer, "hook").result == "delivered"


@pytest.mark.parametrize(
    ("headers", "expected"), [({}, "Basic dXNlcjpwdw=="), ({"Authorization": "Bearer x"}, "Bearer x")]
)
async def test_who_we_are_may_stand_in_the_address_and_a_header_goes_first(
    start: Start, headers: dict[str, str], expected: str
) -> None:
    server = await start()
    answer = await post(f"http://user:pw@127.0.0.1:{server.port}/x", headers=headers)
    assert answer.code == 200
    assert server.requests[0].headers["Authorization"] == expected


async def test_a_large_body_is_sent_whole(start: Start) -> None:
    server = await start()
    body = b"x" * 3_000_000
    assert (await post(server.url, body)).code == 200
    assert server.requests[0].body == body


async def test_the_answer_is_kept_masked_and_cut(start: Start, respond: Respond) -> None:
    server = await start(respond(400, f"POST {SECRET_PATH} is\nwrong " + "x" * 9000, Retry_After="5"))
    answer = await post(server.url + SECRET_PATH)
    assert answer.text.startswith("POST <secret> is wrong xxx")
    assert len(answer.text) == 500
    assert len(answer.body) == ANSWER_BYTES
    assert answer.retry_after == 5.0


async def test_nobody_there_is_said_without_the_address(start: Start) -> None:
    port = free_port()
    answer = await post(f"http://127.0.0.1:{port}{SECRET_PATH}")
    assert answer == Answer(None, f"cannot connect to 127.0.0.1:{port}: connection refused")
    assert outcome_of(answer, "x").result == "retry"


@pytest.mark.parametrize(
    ("url", "problem"),
    [("http://a..b/secret-path", "resolve"), ("http://h:99999999/secret-path", "URL"), ("nonsense", "URL")],
)
async def test_an_address_that_is_none_is_said_so(url: str, problem: str) -> None:
    answer = await post(url)
    assert answer.code is None
    assert "secret" not in answer.problem
    assert answer.problem


async def test_a_connection_that_is_reset_is_tried_again(start: Start) -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    server = await start(reset)
    answer = await post(server.url + SECRET_PATH)
    assert answer.code is None
    assert not answer.final
    assert "secret" not in answer.problem
    assert "reset" in answer.problem or "closed the connection" in answer.problem


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"]
)
async def test_what_is_no_http_answer_is_tried_again(start: Start, said: bytes) -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()

    server = await start(speak)
    answer = await post(server.url + SECRET_PATH)
    assert answer.code is None
    assert not answer.final
    assert "secret" not in answer.problem
    assert answer.problem.startswith(f"127.0.0.1:{server.port} ") or "connection" in answer.problem


async def test_a_server_that_hangs_or_drips_its_head_ends_with_the_time(start: Start) -> None:
    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for octet in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n":
            writer.write(bytes([octet]))
            await asyncio.sleep(0.05)

    server = await start(hang)
    began = asyncio.get_running_loop().time()
    answer = await post(server.url, timeout=0.2)
    assert asyncio.get_running_loop().time() - began < 2.0
    assert answer.problem == f"127.0.0.1:{server.port} gave no answer within 0.2 s"
    assert outcome_of(answer, "x").result == "retry"


async def test_once_the_head_says_delivered_a_dripping_body_changes_nothing(start: Start) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    server = await start(drip)
    answer = await post(server.url, timeout=1.0)
    assert answer.code == 200
    assert set(answer.text) == {"x"}


async def test_a_huge_answer_is_not_read(start: Start) -> None:
    written = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while written < 100_000_000:
            writer.write(bytes(65536))
            written += 65536
            await writer.drain()

    server = await start(pour)
    assert (await post(server.url)).code == 200
    await asyncio.sleep(0)
    assert written < 50_000_000


async def test_a_packed_answer_is_not_unpacked(start: Start, respond: Respond) -> None:
    server = await start(respond(200, "not gzip at all", Content_Encoding="gzip"))
    assert (await post(server.url)).code == 200


async def test_redirects_are_not_followed_unless_that_is_asked_for(start: Start, respond: Respond) -> None:
    server = await start(respond(307, Location="/other"), respond(200))
    answer = await post(server.url)
    assert answer.code == 307
    outcome = outcome_of(answer, "x")
    assert outcome.result == "refused"
    assert "not followed" in outcome.detail
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [301, 302, 307, 308])
async def test_a_redirect_is_followed_with_the_same_method_and_body(
    start: Start, respond: Respond, code: int
) -> None:
    server = await start(respond(code, Location="/other?x=1"), respond(200))
    answer = await post(server.url + "/hook", b"body", follow_redirects=True, headers={"X-Token": "t"})
    assert answer.code == 200
    assert [(one.method, one.path, one.body) for one in server.requests] == [
        ("POST", "/hook", b"body"),
        ("POST", "/other?x=1", b"body"),
    ]
    assert server.requests[1].headers["X-Token"] == "t"


async def test_303_and_a_redirect_without_a_place_are_answers_like_others(
    start: Start, respond: Respond
) -> None:
    for first in (respond(303, Location="/other"), respond(302)):
        server = await start(first, respond(200))
        answer = await post(server.url, follow_redirects=True)
        assert answer.code in (302, 303)
        assert len(server.requests) == 1


async def test_credentials_do_not_follow_a_redirect_to_another_server(start: Start, respond: Respond) -> None:
    other = await start(respond(200))
    server = await start(respond(308, Location=f"{other.url}/elsewhere"))
    answer = await post(server.url, follow_redirects=True, headers={"Authorization": "Bearer t"})
    assert answer.code == 200
    assert "Authorization" in server.requests[0].headers
    assert "Authorization" not in other.requests[0].headers


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("file:///etc/passwd", "scheme 'file'"),
        ("http://169.254.169.254/latest/meta-data", "link-local"),
        ("ftp://127.0.0.1/", "scheme 'ftp'"),
    ],
)
async def test_a_redirect_out_of_bounds_is_final(
    start: Start, respond: Respond, location: str, why: str
) -> None:
    server = await start(respond(307, Location=location))
    answer = await post(server.url + SECRET_PATH, follow_redirects=True)
    assert answer.code is None
    assert answer.final
    assert why in answer.problem
    assert "secret-token" not in answer.problem


async def test_redirects_in_a_circle_end(start: Start, respond: Respond) -> None:
    server = await start(respond(307, Location="/"))
    answer = await post(server.url, follow_redirects=True)
    assert answer.final
    assert "more than 5 times" in answer.problem
    assert len(server.requests) == 6


async def test_a_name_that_is_this_host_is_refused_to_an_endpoint_from_outside(
    start: Start, respond: Respond, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def outside(*_: object) -> frozenset[str]:
        return frozenset({"other"})

    monkeypatch.setattr("exporter.notify.receivers.http.sorts_of", outside)
    inner = await start(respond(200))
    server = await start(respond(307, Location=f"http://localhost:{inner.port}/-/reload"))
    answer = await post(server.url, follow_redirects=True)
    assert answer.final
    assert "redirected to a loopback address, which is not followed" in answer.problem
    assert inner.requests == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += [
        "-subj",
        "/CN=hook.test",
        "-addext",
        "subjectAltName=DNS:hook.test",
        "-out",
        cert,
        "-keyout",
        key,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def server_tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


async def test_a_certificate_that_nobody_trusts_is_said_and_tried_again(
    start: Start, certificate: tuple[Path, Path]
) -> None:
    server = await start(tls=server_tls(certificate))
    answer = await post(server.url + SECRET_PATH)
    assert answer.problem == (
        f"the certificate of 127.0.0.1:{server.port} is not trusted: self-signed certificate"
    )
    assert not answer.final
    assert server.requests == []


async def test_a_certificate_of_another_name_is_not_trusted_unless_that_name_is_expected(
    start: Start, certificate: tuple[Path, Path]
) -> None:
    server = await start(tls=server_tls(certificate))
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    wrong = await post(server.url, tls=trusting)
    assert "is not trusted" in wrong.problem
    assert (await post(server.url, tls=trusting, server_name="hook.test")).code == 200


async def test_http_where_https_is_meant_is_said(start: Start) -> None:
    server = await start()
    answer = await post(f"https://127.0.0.1:{server.port}{SECRET_PATH}", timeout=0.5)
    assert answer.code is None
    assert "secret-token" not in answer.problem
    assert f"127.0.0.1:{server.port}" in answer.problem


async def test_a_storm_uses_one_connection_again(start: Start) -> None:
    server = await start()
    client = HttpClient(Transport())
    for _ in range(5):
        assert (await client.post(server.url, b"{}", {}, now=NOW)).code == 200
    await client.close()
    assert server.connections == 1


async def test_cancelling_an_attempt_lets_its_connection_go(start: Start) -> None:
    arrived = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        arrived.set()
        assert await reader.read() == b""
        left.set()

    left = asyncio.Event()
    server = await start(hang)
    task = asyncio.create_task(post(server.url))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5):
        await left.wait()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@example.org/x?y=z", "example.org:443"),
        ("http://[::1]:9/x", "[::1]:9"),
        ("http://h:8080", "h:8080"),
    ],
)
def test_of_an_address_only_host_and_port_are_shown(url: str, shown: str) -> None:
    assert place(URL(url)) == shown
