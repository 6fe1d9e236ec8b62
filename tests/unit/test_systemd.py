from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.process_metrics import Heartbeat
from exporter.systemd import BEATS_PER_WATCHDOG, Notifier


class ServiceManager:
    """The receiving end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(5)

    def message(self) -> dict[str, str]:
        lines = self._socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def messages_so_far(self) -> list[str]:
        found = []
        self._socket.setblocking(False)
        try:
            while True:
                found.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServiceManager]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@vllm-exporter-test-{os.getpid()}"
    manager = ServiceManager(name)
    yield manager
    manager.close()


def test_each_message_arrives_as_systemd_reads_it(manager: ServiceManager) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.address})
    assert notifier.ready("engine loading")
    assert manager.message() == {"READY": "1", "STATUS": "engine loading"}
    assert notifier.stopping()
    assert manager.message() == {"STOPPING": "1"}
    assert notifier.extend_timeout(1.5)
    assert manager.message() == {"EXTEND_TIMEOUT_USEC": "1500000"}
    before = time.monotonic_ns() // 1000
    assert notifier.reloading()
    message = manager.message()
    assert message["RELOADING"] == "1"
    assert before <= int(message["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_a_status_is_one_line_and_sent_once(manager: ServiceManager) -> None:
    notifier = Notifier(manager.address)
    notifier.status("engine failed:\nREADY=1 Ünï")
    notifier.status("engine failed:\nREADY=1 Ünï")
    assert manager.messages_so_far() == ["STATUS=engine failed: READY=1 Ünï"]


def test_the_engine_does_not_inherit_the_service_managers_variables() -> None:
    environ = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/root"}
    Notifier.from_environment(environ)
    assert environ == {"HOME": "/root"}


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_only_when_meant_for_us(
    variables: dict[str, str], seconds: float | None
) -> None:
    assert Notifier.from_environment({"NOTIFY_SOCKET": "/run/x", **variables}).watchdog_seconds == seconds


def test_beats_are_sent_when_due_and_not_more_often(manager: ServiceManager) -> None:
    notifier = Notifier(manager.address, watchdog_seconds=30.0)
    sent = [now for now in range(100, 161) if notifier.beat(now)]
    assert sent == list(range(100, 161, 30 // BEATS_PER_WATCHDOG))
    assert manager.messages_so_far() == ["WATCHDOG=1"] * len(sent)


def test_without_a_watchdog_nothing_beats(manager: ServiceManager) -> None:
    assert not Notifier(manager.address).beat(100.0)
    assert manager.messages_so_far() == []


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "/nowhere/at/all", "@nobody-listens-here"])
def test_without_a_listener_nothing_is_delivered_and_nothing_breaks(address: str | None) -> None:
    notifier = Notifier(address, watchdog_seconds=1.0)
    assert not notifier.ready()
    assert not notifier.stopping()
    assert not notifier.beat(1.0)


def test_a_service_manager_that_reads_nothing_does_not_hold_us_up(manager: ServiceManager) -> None:
    notifier = Notifier(manager.address)
    began = time.monotonic()
    for number in range(100_000):
        if not notifier.status(str(number)):
            break
    else:
        pytest.fail("the queue never filled up")
    assert time.monotonic() - began < 20


async def test_a_stalled_loop_misses_its_beats_and_its_lag_is_measured() -> None:
    beats: list[float] = []
    heartbeat = Heartbeat(beats.append, interval=0.01)
    task = asyncio.create_task(heartbeat.run())
    async with asyncio.timeout(10):
        while len(beats) < 3:
            await asyncio.sleep(0.005)
    before = len(beats)
    time.sleep(0.3)
    assert len(beats) == before
    async with asyncio.timeout(10):
        while len(beats) == before:
            await asyncio.sleep(0.005)
    assert heartbeat.lag.largest >= 0.2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_watchdog_hangs_on_the_event_loop(manager: ServiceManager) -> None:
    notifier = Notifier(manager.address, watchdog_seconds=0.03)
    task = asyncio.create_task(Heartbeat(notifier.beat, interval=0.005).run())
    messages: list[str] = []
    async with asyncio.timeout(10):
        while len(messages) < 3:
            await asyncio.sleep(0.01)
            messages += manager.messages_so_far()
    assert set(messages) == {"WATCHDOG=1"}
    time.sleep(0.2)
    assert len(manager.messages_so_far()) <= 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
