"""A supervisor under test over real child processes: fake_engine.py, which misbehaves on request."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from exporter.engine.command import read_command
from exporter.engine.process.procfs import read_stat
from exporter.engine.states import EngineState
from exporter.engine.status import EngineStatus
from exporter.engine.supervisor import Supervisor
from exporter.exposition.block import Block
from exporter.settings import EngineSettings

FAKE = Path(__file__).with_name("fake_engine.py")
PATIENCE = 30.0


class Page(NamedTuple):
    running: float | None
    waiting: float | None
    counter: float | None


class Bench:
    """One supervisor under test, with a scrape and a probe every 50 ms as the daemon would make them."""

    def __init__(self, folder: Path, session: aiohttp.ClientSession) -> None:
        self.folder = folder
        self.session = session
        self.port = free_port()
        self.steering = folder / "steer.json"
        self.pidfile = folder / "pids"
        self.page: Page | None = Page(0.0, 0.0, 0.0)
        self.block = Block()
        self.states: list[str] = []
        self.seen: list[tuple[float, EngineStatus]] = []
        self.supervisor: Supervisor
        self.gpu_memory_of: Callable[[frozenset[int]], int | None] = lambda pids: None
        self._tasks: list[asyncio.Task[None]] = []

    def start(
        self,
        *flags: str,
        argv: tuple[str, ...] | None = None,
        saved: dict[str, Any] | None = None,
        moves: bool = False,
        **settings: Any,
    ) -> Supervisor:
        fake = (sys.executable, "-S", str(FAKE), "--port", str(self.port))
        steer = ("--steer", str(self.steering), "--pidfile", str(self.pidfile))
        command = argv or (*fake, *steer, *flags)
        quick: dict[str, Any] = {
            "restart_delay": 0.05,
            "kill_timeout": 2.0,
            "drain_timeout": 20.0,
            "health_interval": 0.1,
            "health_timeout": 2.0,
            "hang_timeout": 0.6,
            "hang_grace": 0.0,
            "canary_timeout": 0.5,
        }
        self.supervisor = Supervisor(
            EngineSettings(command=command, **(quick | settings)),
            read_command(command, {}, url=None, read_file=lambda name: Path(name).read_text()),
            data_dir=self.folder,
            moves=moves,
            http=lambda: self.session,
            block=self.block,
            recent_samples=lambda seconds: [{"running": 3}],
            gpu_memory_of=lambda pids: self.gpu_memory_of(pids),
        )
        if saved is not None:
            self.supervisor.restore(json.loads(json.dumps(saved)))
        self.states = []
        self.supervisor.subscribe(self._note)
        self._tasks = [asyncio.create_task(self.supervisor.run()), asyncio.create_task(self._watch())]
        return self.supervisor

    def _note(self, status: EngineStatus) -> None:
        self.seen.append((time.time(), status))
        if not self.states or self.states[-1] != status.state:
            self.states.append(status.state.value)

    async def _watch(self) -> None:
        while True:
            self.supervisor.observe(self.page, now=time.monotonic())
            await self.supervisor.probe()
            await asyncio.sleep(0.05)

    def steer(self, **behaviour: Any) -> None:
        new = self.steering.with_suffix(".new")
        new.write_text(json.dumps(behaviour))
        new.rename(self.steering)

    async def until(self, condition: Callable[[], Any], what: str = "") -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self._tasks[0].done():
                self._tasks[0].result()
            assert time.monotonic() < deadline, f"{what}: {self.states} {self.supervisor.status}"
            await asyncio.sleep(0.01)

    async def reach(self, state: EngineState) -> EngineStatus:
        await self.until(lambda: self.supervisor.status.state is state, f"waiting for {state}")
        return self.supervisor.status

    async def ended(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._tasks[0]

    async def stop(self) -> float:
        began = time.monotonic()
        self.supervisor.stop()
        await self.ended()
        assert self.supervisor.status.state is EngineState.stopped
        return time.monotonic() - began

    def pids(self) -> list[int]:
        return [int(pid) for pid in self.pidfile.read_text().split()] if self.pidfile.exists() else []

    def metric(self, line_start: str) -> float:
        for line in self.block.render(openmetrics=False).decode().splitlines():
            if line.startswith(line_start + " "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no {line_start} in\n{self.block.render(openmetrics=False).decode()}")

    async def abandon(self) -> None:
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        await self.abandon()
        for pid in self.pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def running(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and stat.alive
