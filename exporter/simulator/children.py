"""Idle child processes in the place of vLLM's engine core and workers, for what happens to process trees.

As there: they outlive a killed server, a killed one means a dead engine, and a stopped one (SIGSTOP) a wedged engine.
With data parallelism each is the leader of a process group of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

_BODY = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
with open("/proc/self/comm", "w") as comm:
    comm.write(sys.argv[1])
while True:
    signal.pause()
"""


class Children:
    """The children of one server; none until `start`."""

    def __init__(self) -> None:
        self.pids: list[int] = []
        self._stopped: set[int] = set()

    def start(self, count: int, *, own_groups: bool) -> None:
        """Start `count` of them: an engine core first, then workers."""
        for number in range(count):
            name = "VLLM::EngineCore" if not number else f"VLLM::Worker_{number - 1}"
            argv = [sys.executable, "-I", "-S", "-c", _BODY, name]
            if own_groups:
                self.pids.append(os.posix_spawn(sys.executable, argv, os.environ, setpgroup=0))
            else:
                self.pids.append(os.posix_spawn(sys.executable, argv, os.environ))

    def changes(self) -> Iterator[str]:
        """What became of them since the last look (after a SIGCHLD): `died`, `stopped` or `continued`."""
        for pid in tuple(self.pids):
            while True:
                found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
                if not found:
                    break
                if os.WIFSTOPPED(status):
                    self._stopped.add(pid)
                    yield "stopped"
                    continue
                self._stopped.discard(pid)
                if os.WIFCONTINUED(status):
                    if not self._stopped:
                        yield "continued"
                    continue
                self.pids.remove(pid)
                yield "died"
                break

    def end(self, grace: float = 0.2) -> None:
        """Ask them to go, and make them; returns when they are gone."""
        for pid in self.pids:
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace
        while self.pids and time.monotonic() < deadline:
            list(self.changes())
            time.sleep(0.005)
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.pids.clear()
