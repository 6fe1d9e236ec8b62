"""When, and where, an engine is looked for that does not listen where it is expected."""

from __future__ import annotations

import asyncio
import os
import socket

import aiohttp
import pytest

from exporter.engine.process.ports import listening
from exporter.engine.process.procfs import identify
from exporter.engine.verdict import elsewhere
from exporter.engine.verdict.elsewhere import SearchPlan, find_elsewhere
from exporter.engine.verdict.probes import EngineClient


def searches(stages: dict[int, str | None], seconds: int) -> list[int]:
    plan = SearchPlan(0.0)
    stage: str | None = None
    found = []
    for now in range(seconds):
        stage = stages.get(now, stage)
        if plan.due(float(now), stage=stage):
            found.append(now)
    return found


def test_a_model_that_loads_for_long_is_left_in_peace() -> None:
    assert searches({5: "initializing", 20: "loading_weights", 400: "capturing_graphs"}, 2000) == []


def test_a_server_that_started_is_looked_for_after_some_seconds_and_then_rarely() -> None:
    assert searches({5: "initializing", 100: "starting_server"}, 180) == [110, 140, 170]


def test_an_engine_that_says_nothing_is_looked_for_after_a_minute() -> None:
    assert searches({}, 100) == [60, 90]


def test_the_sockets_of_a_process_are_found_those_open_to_the_network_first() -> None:
    me = identify(os.getpid())
    assert me is not None
    with socket.socket() as inner, socket.socket() as outer, socket.socket() as closed:
        inner.bind(("127.0.0.1", 0))
        inner.listen()
        outer.bind(("0.0.0.0", 0))
        outer.listen()
        closed.bind(("127.0.0.1", 0))
        found = listening([me])
        places = [found.index(("127.0.0.1", s.getsockname()[1])) for s in (outer, inner)]
        assert places == sorted(places)
        assert ("127.0.0.1", closed.getsockname()[1]) not in found
    assert listening([]) == []


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: bytes) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(words)
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", True),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", False),
        (b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f", False),
        (b"", False),
    ],
)
async def test_only_a_socket_that_answers_health_is_the_engines_own_server(
    words: bytes, found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await asyncio.start_server(lambda r, w: _answer(r, w, words), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(elsewhere, "listening", lambda members: [("127.0.0.1", port)])
    async with server, aiohttp.ClientSession() as session:
        client = EngineClient("http://127.0.0.1:1", None, lambda: session)
        assert await find_elsewhere([], client) == (f"http://127.0.0.1:{port}" if found else None)
        expected = EngineClient(f"http://127.0.0.1:{port}", None, lambda: session)
        assert await find_elsewhere([], expected) is None
