"""Shared memory segments that killed engines leave behind: removed when provably the engine's and used by nobody.

vLLM's workers talk through Python's `multiprocessing.shared_memory`, files called `psm_…` in /dev/shm. Whoever dies by
SIGKILL does not unlink them, and they keep their memory until somebody does.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import structlog

from exporter.engine.process.procfs import ProcessId, identify, pids

log = structlog.get_logger(__name__)

DIRECTORY = "/dev/shm"  # noqa: S108  where POSIX shared memory lives, shm_overview(7)
_PREFIX = "psm_"


class SharedMemory:
    """The segments that the engine's processes were seen to hold open: that is the proof that they are theirs."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}

    def note(self, members: Iterable[ProcessId]) -> int:
        """Look at what these processes hold open now; how many segments are known in all. About 1 µs a descriptor."""
        for member in members:
            names = _held(member.pid)
            if names and identify(member.pid) == member:
                for name in names - self._seen.keys():
                    with contextlib.suppress(OSError):
                        stat = os.lstat(f"{DIRECTORY}/{name}")
                        self._seen[name] = (stat.st_dev, stat.st_ino)
        return len(self._seen)

    def sweep(self) -> list[str]:
        """Remove the noted segments that are still there and that no process holds or maps; their names.

        Call it when the engine's processes are gone, in a thread: it reads the maps of every process.
        """
        left = {name for name, inode in self._seen.items() if _inode(name) == inode}
        if left:
            left -= _in_use(left)
        removed = []
        for name in sorted(left):
            if _inode(name) == self._seen[name]:
                with contextlib.suppress(OSError):
                    Path(DIRECTORY, name).unlink()
                    removed.append(name)
        self._seen.clear()
        if removed:
            log.info("engine_shared_memory_removed", segments=removed)
        return removed


def _inode(name: str) -> tuple[int, int] | None:
    try:
        stat = os.lstat(f"{DIRECTORY}/{name}")
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _held(pid: int) -> set[str]:
    """Names of the segments that a process holds open."""
    names = set()
    start = f"{DIRECTORY}/{_PREFIX}"
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                target = os.readlink(entry.path)  # noqa: PTH115  thousands of them: no object for each
                if target.startswith(start):
                    names.add(target.removeprefix(DIRECTORY + "/"))
    return names


def _in_use(names: set[str]) -> set[str]:
    """Those that some process holds or maps, or might: one of the same user whose maps cannot be read spares them all."""
    used: set[str] = set()
    owners = {os.lstat(f"{DIRECTORY}/{name}").st_uid for name in names if _inode(name) is not None}
    for pid in pids():
        used |= _held(pid) & names
        try:
            maps = Path(f"/proc/{pid}/maps").read_text(errors="replace")
        except PermissionError:
            if pid == 1:  # init hides itself on some machines; it maps no engine's memory
                continue
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{pid}").st_uid in owners:  # noqa: PTH116
                    return names
            continue
        except OSError:
            continue
        if f"{DIRECTORY}/{_PREFIX}" in maps:
            used |= {name for name in names if f"{DIRECTORY}/{name}" in maps}
    return used
