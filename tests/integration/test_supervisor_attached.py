"""Attached mode: an engine that somebody else runs, played by fake_engine.py."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
import structlog

from exporter.engine import attached
from exporter.engine.attached import AttachedEngine
from exporter.engine.states import EngineState
from exporter.exposition.block import Block
from exporter.settings import EngineSettings

FAKE = Path(__file__).with_name("fake_engine.py")


class Page(NamedTuple):
    running: float
    waiting: float
    counter: float


class Bench:
    """A server of somebody else's, and the daemon's view of it."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.steering = folder / "steer.json"
        self.page = Page(0.0, 0.0, 0.0)
        self.states: list[str] = []
        self.block = Block()
        settings = EngineSettings(
            url=f"http://127.0.0.1:{self.port}",
            health_interval=0.1,
            health_timeout=2.0,
            hang_timeout=0.6,
            hang_grace=0.0,
            canary_timeout=0.5,
        )
        assert settings.url is not None
        self.engine = AttachedEngine(settings, settings.url, None, http=lambda: session, block=self.block)
        self.engine.subscribe(lambda status: self.states.append(status.state.value))
        self.run = asyncio.create_task(self.engine.run())
        self._watching = asyncio.create_task(self._watch())
        self._servers: list[subprocess.Popen[bytes]] = []

    async def serve(self) -> subprocess.Popen[bytes]:
        flags = ["--port", str(self.port), "--steer", str(self.steering)]
        server = await asyncio.to_thread(subprocess.Popen, [sys.executable, "-S", str(FAKE), *flags])
        self._servers.append(server)
        return server

    def steer(self, **behaviour: Any) -> None:
        new = self.steering.with_suffix(".new")
        new.write_text(json.dumps(behaviour))
        new.rename(self.steering)

    async def _watch(self) -> None:
        while True:
            self.engine.observe(self.page, now=time.monotonic())
            await self.engine.probe()
            await asyncio.sleep(0.05)

    async def until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 30.0
        while not condition():
            if self.run.done():
                self.run.result()
            assert time.monotonic() < deadline, (self.states, self.engine.status)
            await asyncio.sleep(0.01)

    async def reach(self, state: EngineState) -> None:
        await self.until(lambda: self.engine.status.state is state)

    def failure_reason(self) -> str | None:
        failure = self.engine.status.last_failure
        return failure.reason if failure is not None else None

    async def close(self) -> None:
        self._watching.cancel()
        self.engine.stop()
        await asyncio.gather(self.run, self._watching, return_exceptions=True)
        for server in self._servers:
            server.kill()
            server.wait()


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(attached, "LOOK_SECONDS", 0.05)
    async with aiohttp.ClientSession() as session:
        made = Bench(tmp_path, session)
        yield made
        await made.close()


async def test_an_engine_that_is_away_is_waited_for_and_told_of_once(bench: Bench) -> None:
    with structlog.testing.capture_logs() as logs:
        await bench.reach(EngineState.stopped)
        await asyncio.sleep(0.3)
        server = await bench.serve()
        await bench.reach(EngineState.ready)
        assert bench.engine.status.models == ("tiny",)
        assert bench.engine.status.mode == "attached"
        server.kill()
        await bench.reach(EngineState.stopped)
    told = [entry["event"] for entry in logs if entry["event"].startswith("engine_")]
    assert told == ["engine_unreachable", "engine_ready", "engine_unreachable"]
    failure = bench.engine.status.last_failure
    assert failure is not None
    assert failure.reason == "unreachable"
    assert bench.engine.status.expected_up


async def test_an_engine_that_comes_back_is_ready_again_in_the_same_epoch(bench: Bench) -> None:
    server = await bench.serve()
    await bench.reach(EngineState.ready)
    epoch = bench.engine.status.epoch
    server.kill()
    await bench.reach(EngineState.stopped)
    await bench.serve()
    await bench.reach(EngineState.ready)
    assert bench.engine.status.epoch == epoch


async def test_a_hung_engine_is_reported_and_never_signalled(bench: Bench) -> None:
    server = await bench.serve()
    await bench.reach(EngineState.ready)
    bench.steer(wedged=True)
    bench.page = Page(3.0, 2.0, 7.0)
    await bench.reach(EngineState.unresponsive)
    bench.page = Page(3.0, 2.0, 8.0)
    await bench.reach(EngineState.ready)
    assert server.poll() is None


async def test_an_engine_with_failing_health_is_unresponsive_until_it_answers_well_again(
    bench: Bench,
) -> None:
    server = await bench.serve()
    await bench.reach(EngineState.ready)
    bench.steer(health=503)
    await bench.reach(EngineState.unresponsive)
    bench.steer()
    await bench.reach(EngineState.ready)
    assert server.poll() is None


async def test_a_stop_leaves_the_engine_as_it_is(bench: Bench) -> None:
    server = await bench.serve()
    await bench.reach(EngineState.ready)
    bench.engine.stop()
    async with asyncio.timeout(10):
        await bench.run
    assert bench.engine.status.state is EngineState.stopped
    assert not bench.engine.status.expected_up
    assert server.poll() is None
    os.kill(server.pid, signal.SIGTERM)


async def test_a_stop_ends_the_wait_for_an_engine_that_never_came(bench: Bench) -> None:
    await bench.reach(EngineState.stopped)
    bench.engine.stop()
    async with asyncio.timeout(10):
        await bench.run
    assert not bench.engine.status.expected_up


async def test_a_server_that_wants_a_key_says_so_instead_of_being_unreachable(bench: Bench) -> None:
    """A 401 of `/v1/models` left the readiness page with the connection error of minutes ago."""
    with structlog.testing.capture_logs() as logs:
        await bench.reach(EngineState.stopped)
        bench.steer(models=401)
        await bench.serve()
        await bench.reach(EngineState.starting)
        await bench.until(lambda: bench.failure_reason() == "unauthorized")
        failure = bench.engine.status.last_failure
        assert failure is not None
        assert failure.line.endswith("/v1/models answered 401; set engine.api_key")
        bench.steer(models=404)
        await bench.until(lambda: bench.failure_reason() == "not_vllm")
        bench.steer()
        await bench.reach(EngineState.ready)
    told = [entry["reason"] for entry in logs if entry["event"] == "engine_not_usable"]
    assert told == ["unauthorized", "not_vllm"]
