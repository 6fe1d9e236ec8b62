from __future__ import annotations

import argparse
import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from exporter.promtool import query
from exporter.promtool.client import QueryFailed, ask


@asynccontextmanager
async def answering(answer: bytes | None, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that gives one answer to everything, or none; its port."""
    silent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await silent.wait()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]
        silent.set()


def http(code: int, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {code} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


async def failure(url: str, *, token: str | None = None, timeout: float = 10.0) -> str:
    with pytest.raises(QueryFailed) as failed:
        await asyncio.to_thread(ask, url, "query", {"query": "up"}, token=token, timeout=timeout)
    return str(failed.value)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            http(502, b"<html>bad gateway</html>", "text/html"),
            "answered with status 502 and no Prometheus answer",
        ),
        (http(200, b"[1]"), "no Prometheus answer"),
        (http(200, b"{}"), "no Prometheus answer"),
        (http(200, b'{"status": "error"}'), "no Prometheus answer"),
        (http(401, b'{"status":"error","error":"no"}'), "wants a token"),
        (http(404, b'{"status":"error","error":"no such path"}'), "has no query API: no such path"),
        (
            http(422, b'{"status":"error","errorType":"execution","error":"many-to-many"}'),
            "execution: many-to-many",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "cannot be asked"),
        (b"", "cannot be asked"),
    ],
)
async def test_what_is_no_answer_is_told_apart(answer: bytes, message: str) -> None:
    async with answering(answer) as port:
        assert message in await failure(f"http://127.0.0.1:{port}")


async def test_a_server_that_keeps_silent_is_not_waited_for_forever() -> None:
    async with answering(None) as port:
        assert "does not answer within 0.05 s" in await failure(f"http://127.0.0.1:{port}", timeout=0.05)


async def test_a_path_before_the_api_is_kept() -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http(200, b'{"status":"success","data":{}}'))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/box/"
        await asyncio.to_thread(ask, url, "query", {"query": "up"}, token="s3cret", timeout=10.0)
    assert asked[0].startswith(b"POST /box/api/v1/query HTTP/1.1\r\n")
    assert b"Authorization: Bearer s3cret\r\n" in asked[0]


def test_neither_numpy_nor_a_web_server_is_loaded_to_ask() -> None:
    code = "import sys, exporter.promtool.query; print([m for m in ('numpy','aiohttp','re2') if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout == "[]\n"


def request(*words: str) -> tuple[str, dict[str, str]]:
    parser = argparse.ArgumentParser()
    query.add_arguments(parser)
    return query._request(parser.parse_args(list(words)), now=1000.5)


def test_times_of_a_request() -> None:
    assert request("up") == ("query", {"query": "up", "time": "1000.500"})
    assert request("up", "--time", "1970-01-01T00:00:07Z") == ("query", {"query": "up", "time": "7.000"})
    assert request("up", "--range", "1h", "--step", "15s", "--time", "7200") == (
        "query_range",
        {"query": "up", "start": "3600.000", "end": "7200.000", "step": "15.000"},
    )


@pytest.mark.parametrize(("length", "step"), [("1h", "120.000"), ("10s", "1.000"), ("1d", "2880.000")])
def test_a_range_has_about_thirty_steps_by_default(length: str, step: str) -> None:
    assert request("up", "--range", length)[1]["step"] == step
