"""Waiting for an exit, and stopping everything that belongs to an engine: SIGTERM, again, SIGKILL, until nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Protocol

import structlog

from exporter.engine.process.procfs import ProcessId, command_line, ended, open_pidfd
from exporter.engine.process.tree import EngineTree

log = structlog.get_logger(__name__)

REPEAT = 1.0
"""Seconds between two SIGTERM: vLLM swallows one that comes while it loads."""
KILL_PATIENCE = 30.0
"""Seconds after the first SIGKILL until the survivors (stuck in the kernel, as in a driver) are given up."""
EXIT_POLL = 0.05
"""Seconds between two looks at a process of which no descriptor can be had."""
CLEANER_PATIENCE = 1.0
"""Seconds that Python's resource trackers get after the first SIGKILL: they unlink what the others can no longer."""


class Waitable(Protocol):
    """What `wait_exit` needs: `EngineProcess` of the launcher, or an adopted process."""

    @property
    def id(self) -> ProcessId: ...
    @property
    def popen(self) -> subprocess.Popen[bytes] | None: ...


@dataclass(frozen=True)
class StopReport:
    """How a stop went. `seconds` until nothing was left, `survivors` when something was."""

    seconds: float
    signalled: int
    killed: bool
    survivors: frozenset[ProcessId]


async def wait_exit(process: Waitable) -> int | None:
    """Wait for the end of a process by its descriptor: known within a millisecond or so, without polling.

    Where no descriptor can be had (none is free, a sandbox forbids it) it is looked at every `EXIT_POLL` seconds.
    The exit code is negative for a signal, and None for a process that is not our child (an adopted engine).
    Several tasks may wait at once.
    """
    popen = process.popen
    if popen is not None and popen.poll() is not None:
        return popen.returncode
    try:
        fd = open_pidfd(process.id)
    except OSError as error:
        log.warning("engine_exit_is_polled", pid=process.id.pid, error=error.strerror or str(error))
        while not (ended(process.id) if popen is None else popen.poll() is not None):  # noqa: ASYNC110
            await asyncio.sleep(EXIT_POLL)
    else:
        if fd is not None:
            try:
                await _readable(fd)
            finally:
                os.close(fd)
    if popen is None:
        return None
    while (code := popen.poll()) is None:  # noqa: ASYNC110  readable means dead: this turns at most a time or two
        await asyncio.sleep(0.001)
    return code


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)


def _is_cleaner(process: ProcessId) -> bool:
    """Python's resource tracker, which ends by itself, and cleans up, when the last process that uses it is gone."""
    return any("multiprocessing.resource_tracker" in word for word in command_line(process.pid))


def _never(process: ProcessId) -> bool:
    return False


async def stop_tree(
    tree: EngineTree,
    *,
    kill_timeout: float,
    process: Waitable | None = None,
    kill_patience: float = KILL_PATIENCE,
) -> StopReport:
    """Stop every process of the engine and see that nothing is left.

    SIGTERM at once and each second again (with SIGCONT for the stopped), SIGKILL after `kill_timeout` seconds (0: at
    once), and to whatever appears after that. `process` is the root where it is our child, so that it is reaped.
    Cancelling it (a second signal: call again with kill_timeout 0) leaves the engine as it then is.
    """
    started = time.monotonic()
    signalled = 0
    killed = False
    again = 0.0
    pause = 0.005
    while True:
        if process is not None and process.popen is not None:
            process.popen.poll()
        alive = await tree.refresh_all()
        now = time.monotonic() - started
        if alive and not signalled:
            tree.note_shared_memory()
        if (
            not alive and not await tree.refresh_all()
        ):  # twice: a fork may have slipped between two reads of the table
            seconds = time.monotonic() - started
            await asyncio.to_thread(tree.sweep_shared_memory)
            return StopReport(seconds, signalled, killed, frozenset())
        if now >= kill_timeout:
            if not killed:
                log.warning("engine_killed", processes=len(alive), after_seconds=round(now, 1))
            killed = True
            late = now >= kill_timeout + CLEANER_PATIENCE
            signalled += tree.signal(signal.SIGKILL, spare=_never if late else _is_cleaner)
            if now >= kill_timeout + kill_patience:
                return StopReport(now, signalled, killed, alive)
            pause = min(pause * 2, 0.05)
        elif now >= again:
            signalled += tree.signal(signal.SIGTERM)
            tree.wake_stopped()
            again = now + REPEAT
            pause = 0.005
        else:
            pause = min(pause * 2, 0.1)
        await asyncio.sleep(min(pause, max(0.001, kill_timeout - now)) if not killed else pause)
