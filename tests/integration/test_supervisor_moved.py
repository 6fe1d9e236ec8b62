"""A supervisor whose engine listens on a loopback port of its own, because the gateway has the one in its command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import structlog
from supervised import FAKE, Bench, free_port, running

from exporter.engine.process.ports import port_is_free
from exporter.engine.states import EngineState
from exporter.engine.verdict import elsewhere


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with aiohttp.ClientSession() as session:
        made = Bench(tmp_path, session)
        yield made
        await made.close()


def command(bench: Bench, *flags: str, then: str = "") -> tuple[str, ...]:
    """`vllm serve tiny --port …` that is the fake engine; `then` are further flags that its wrapper adds."""
    vllm = bench.folder / "vllm"
    vllm.write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" -S "{FAKE}" "$@" {then}\n')
    vllm.chmod(0o700)
    steer = ("--steer", str(bench.steering), "--pidfile", str(bench.pidfile))
    return (str(vllm), "serve", "tiny", "--port", str(bench.port), *steer, *flags)


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


@contextlib.contextmanager
def stranger_on(port: int) -> Iterator[None]:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        yield


async def test_a_moved_engine_leaves_its_own_port_to_others_and_all_that_is_told_names_the_new_one(
    bench: Bench,
) -> None:
    with structlog.testing.capture_logs() as logs:
        bench.start(argv=command(bench), moves=True)
        told_before = bench.supervisor.status.base_url
        status = await bench.reach(EngineState.ready)
    port = port_of(status.base_url)
    assert status.base_url == told_before == f"http://127.0.0.1:{port}"
    assert port != bench.port
    assert status.models == ("tiny",)
    assert port_is_free("0.0.0.0", bench.port)
    (started,) = [entry for entry in logs if entry["event"] == "engine_starting"]
    assert started["url"] == status.base_url
    assert f" --port {port} " in started["command"]
    assert started["command"].endswith(" --host 127.0.0.1")
    assert str(bench.port) not in started["command"]

    os.kill(bench.pids()[0], signal.SIGKILL)
    await bench.until(lambda: bench.supervisor.status.generation == 2)
    again = await bench.reach(EngineState.ready)
    assert again.base_url == status.base_url
    await bench.stop()
    assert not running(bench.pids()[1])


async def test_a_port_that_is_taken_when_the_engine_is_started_anew_is_changed_without_a_word_of_failure(
    bench: Bench,
) -> None:
    bench.start(argv=command(bench), moves=True, restart_delay=0.5, restart_delay_max=1.0)
    first = await bench.reach(EngineState.ready)
    os.kill(bench.pids()[0], signal.SIGKILL)
    await bench.reach(EngineState.backoff)
    with stranger_on(port_of(first.base_url)):
        await bench.until(lambda: bench.supervisor.status.generation == 2)
        second = await bench.reach(EngineState.ready)
    assert second.base_url != first.base_url
    assert second.restarts == {"killed": 1}
    assert await bench.supervisor._client.listens(1.0)
    await bench.stop()


async def test_a_port_that_is_taken_while_the_engine_starts_is_no_failure_for_good(bench: Bench) -> None:
    bench.start(argv=command(bench, "--load-seconds", "0.5"), moves=True)
    await bench.until(lambda: bench.pids())
    first = bench.supervisor.status.base_url
    with stranger_on(port_of(first)):
        await bench.until(lambda: bench.supervisor.status.generation == 2)
        status = await bench.reach(EngineState.ready)
    assert status.base_url != first
    assert status.restarts == {"port_in_use": 1}
    assert status.last_failure is not None
    assert status.last_failure.line == (
        f"port {port_of(first)}, which the daemon had chosen for it, was taken when the engine wanted it; "
        "the next start gets another one"
    )
    await bench.stop()


async def test_a_moved_engine_that_was_kept_is_adopted_where_it_is_and_its_successor_is_moved_too(
    bench: Bench,
) -> None:
    bench.start(argv=command(bench), moves=True, on_exit="keep")
    first = await bench.reach(EngineState.ready)
    record = bench.folder / "engine.json"
    await bench.stop()
    saved = json.loads(record.read_text())
    assert (saved["moved"], saved["base_url"]) == (True, first.base_url)

    bench.start(argv=command(bench), moves=True, on_exit="keep")
    second = await bench.reach(EngineState.ready)
    assert (second.mode, second.epoch, second.base_url) == ("adopted", first.epoch, first.base_url)
    await bench.until(lambda: json.loads(record.read_text())["moved"])
    os.kill(bench.pids()[0], signal.SIGKILL)
    await bench.until(lambda: bench.supervisor.status.generation == 2)
    third = await bench.reach(EngineState.ready)
    assert port_of(third.base_url) != bench.port
    os.kill(bench.pids()[1], signal.SIGKILL)


async def test_without_a_gateway_a_moved_engine_is_out_of_reach_and_is_started_where_its_command_says(
    bench: Bench,
) -> None:
    bench.start(argv=command(bench), moves=True, on_exit="keep")
    first = await bench.reach(EngineState.ready)
    await bench.stop()
    with structlog.testing.capture_logs() as logs:
        bench.start(argv=command(bench), on_exit="keep")
        second = await bench.reach(EngineState.ready)
    (stopped,) = [entry for entry in logs if entry["event"] == "engine_of_earlier_run_stopped"]
    assert (stopped["found"], stopped["url"]) == ("out_of_reach", first.base_url)
    assert (second.mode, second.base_url) == ("supervised", f"http://127.0.0.1:{bench.port}")
    assert not running(bench.pids()[0])
    os.kill(bench.pids()[1], signal.SIGKILL)


async def test_an_engine_that_was_kept_on_its_own_port_stays_there_until_it_ends(bench: Bench) -> None:
    bench.start(argv=command(bench), on_exit="keep")
    first = await bench.reach(EngineState.ready)
    await bench.stop()
    bench.start(argv=command(bench), moves=True, on_exit="keep")
    second = await bench.reach(EngineState.ready)
    assert (second.mode, second.epoch) == ("adopted", first.epoch)
    assert second.base_url == f"http://127.0.0.1:{bench.port}"
    record = bench.folder / "engine.json"
    await bench.until(lambda: not json.loads(record.read_text())["moved"])
    os.kill(bench.pids()[0], signal.SIGKILL)
    await bench.until(lambda: bench.supervisor.status.generation == 2)
    third = await bench.reach(EngineState.ready)
    assert port_of(third.base_url) != bench.port
    os.kill(bench.pids()[1], signal.SIGKILL)


async def test_a_wrapper_that_does_not_obey_is_told_of_with_what_to_set(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "AFTER_SERVER_STARTS", 0.2)
    monkeypatch.setattr(elsewhere, "BETWEEN", 0.2)
    other = free_port()
    say = ("--say", "INFO 11-20 10:00:00 [x.py:1] Starting vLLM API server 0 on http://0.0.0.0:1")
    with structlog.testing.capture_logs() as logs:
        bench.start(argv=command(bench, *say, then=f"--port {other}"), moves=True)
        await bench.until(lambda: any(entry["event"] == "engine_not_usable" for entry in logs))
        url = bench.supervisor.status.base_url
        await bench.stop()
    (told,) = [entry for entry in logs if entry["event"] == "engine_not_usable"]
    assert told["reason"] == "listens_elsewhere"
    assert told["error"] == (
        f"the engine listens on http://127.0.0.1:{other}, the daemon expects {url}; "
        "set gateway.listen to another port than the engine's, or gateway.mode to off"
    )
