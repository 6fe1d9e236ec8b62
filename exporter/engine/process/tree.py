"""Which processes are the engine's: proven by session, descent, orphaning to this subreaper, or a mark in the environment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from exporter.engine.process.procfs import (
    ProcessId,
    Stat,
    command_line,
    environment_has,
    environment_value,
    pids,
    process_table,
    read_stat,
    send_signal,
)
from exporter.engine.process.sharedmem import SharedMemory
from exporter.engine.secrets import mask_argv

_own_children: set[int] = set()
"""Children that this daemon started for itself; they are no orphans of the engine."""
_starts = 0
"""Children that are being started, and are not noted yet."""
_trees: weakref.WeakSet[EngineTree] = weakref.WeakSet()
"""All trees: an orphan belongs to the one that knew it before."""


def note_own_child(pid: int) -> None:
    """This child belongs to the daemon, whatever its session; forget it with `forget_own_child` when it is reaped."""
    _own_children.add(pid)


@contextlib.contextmanager
def starting_own_child() -> Iterator[None]:
    """Around the start of a child, up to `note_own_child`: meanwhile a look at another engine claims no orphan."""
    global _starts
    _starts += 1
    try:
        yield
    finally:
        _starts -= 1


def forget_own_child(pid: int) -> None:
    _own_children.discard(pid)


class EngineTree:
    """Everything that belongs to one engine, as long as it lives, wherever it hides.

    A process is the engine's when one of these holds, and it is remembered from then on:
    it is the root or was recorded earlier; its parent is the engine's; it is in the root's session while a process known
    to be there keeps that number taken; it is a child of this process that nobody here started (an orphan that the
    subreaper got) and that is no other engine's; or it began with the engine's mark in its environment (only looked at by a full refresh).

    `refresh` looks at new pids only (0.2 ms), `refresh(full=True)` at every process (15 µs for each), and `refresh_all`
    does that in a thread. One refresh writes at a time; all else belongs to the event loop.
    """

    def __init__(
        self, root: ProcessId, *, recorded: Iterable[ProcessId] = (), mark: str = "", our_child: bool = True
    ) -> None:
        """`mark` is the `NAME=value` of the launcher; `our_child`: whether orphans come to this process."""
        self.root = root
        self._mark = mark.encode()
        self._our_child = our_child
        self._me = os.getpid()
        self._my_session = os.getsid(0)
        self._members: dict[int, ProcessId] = {p.pid: p for p in (root, *recorded)}
        self._in_session: set[ProcessId] = {root}
        self._seen: set[int] = set()
        self._alive: frozenset[ProcessId] = frozenset()
        self._shared_memory = SharedMemory()
        self._writing = threading.Lock()
        _trees.add(self)

    async def refresh_all(self) -> frozenset[ProcessId]:
        """`refresh(full=True)` in a thread: on a host with thousands of processes it takes a tenth of a second."""
        return await asyncio.to_thread(self.refresh, full=True)

    def refresh(self, *, full: bool = False) -> frozenset[ProcessId]:
        """The engine's live processes now; its zombies that are children of this process are reaped (not the root).

        While another refresh is under way, a full one waits for it, and a quick one is content with the last result.
        """
        if not self._writing.acquire(blocking=full):
            return self._alive
        try:
            return self._refresh(full=full)
        finally:
            self._writing.release()

    def _refresh(self, *, full: bool) -> frozenset[ProcessId]:
        present = set(pids())
        looked_at = present if full else (present - self._seen) | (present & self._members.keys())
        table = process_table() if full else {p: s for p in looked_at if (s := read_stat(p)) is not None}
        self._seen = present
        self._members = {
            pid: member
            for pid, member in self._members.items()
            if pid in table and table[pid].start_ticks == member.start_ticks
        }
        self._in_session = {m for m in self._in_session if self._members.get(m.pid) == m}
        # The session's number is the root's pid: who is known to be the engine's and has it proves that it is in use.
        self._in_session.update(m for pid, m in self._members.items() if table[pid].session == self.root.pid)
        self._grow(table, full=full)
        self._reap(table)
        self._alive = frozenset(m for pid, m in self._members.items() if table[pid].alive)
        return self._alive

    def _grow(self, table: dict[int, Stat], *, full: bool) -> None:
        strangers = {
            pid: stat
            for pid, stat in table.items()
            if pid not in self._members and stat.start_ticks >= self.root.start_ticks and pid != self._me
        }
        grown = True
        while grown and strangers:
            grown = False
            for pid, stat in list(strangers.items()):
                if stat.parent in self._members or self._is_session_member(stat) or self._is_orphan(stat):
                    self._add(strangers.pop(pid))
                    grown = True
            if not grown and full and self._mark:
                for pid in list(strangers):
                    if pid not in _own_children and environment_has(pid, self._mark):
                        self._add(strangers.pop(pid))
                        grown = True
                full = False

    def _add(self, stat: Stat) -> None:
        self._members[stat.pid] = stat.id
        if stat.session == self.root.pid:
            self._in_session.add(stat.id)

    def _is_session_member(self, stat: Stat) -> bool:
        """The kernel gives no new process a number that is still in use as a session's: a known member proves the rest."""
        return stat.session == self.root.pid and bool(self._in_session)

    def _is_orphan(self, stat: Stat) -> bool:
        return (
            self._our_child
            and stat.parent == self._me
            and stat.session != self._my_session
            and not _starts
            and stat.pid not in _own_children
            and not self._is_of_another(stat)
        )

    def _is_of_another(self, stat: Stat) -> bool:
        """Whether another engine of this daemon knows an orphan, or it bears another engine's mark."""
        if any(tree._members.get(stat.pid) == stat.id for tree in tuple(_trees) if tree is not self):
            return True
        name, _, value = self._mark.partition(b"=")
        found = environment_value(stat.pid, name) if value else None
        return found is not None and found != value

    def _reap(self, table: dict[int, Stat]) -> None:
        """Collect orphans that ended. The root is left to whoever waits for its exit code, as are all other children."""
        for pid, member in list(self._members.items()):
            stat = table[pid]
            if stat.state == "Z" and stat.threads <= 1 and stat.parent == self._me and member != self.root:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    @property
    def members(self) -> frozenset[ProcessId]:
        """Live processes as of the last refresh."""
        return self._alive

    def empty(self) -> bool:
        """Looks at every process: whether nothing of the engine is left."""
        return not self.refresh(full=True)

    def signal(self, signum: int, *, spare: Callable[[ProcessId], bool] = lambda member: False) -> int:
        """Send to every process of the last refresh but those that `spare` picks; how many got it."""
        return sum(send_signal(member, signum) for member in sorted(self._alive) if not spare(member))

    def wake_stopped(self) -> int:
        """SIGCONT to stopped processes: they act on no other signal but SIGKILL. How many there were."""
        stopped = [m for m in self._alive if (s := read_stat(m.pid)) and s.id == m and s.state in "Tt"]
        return sum(send_signal(member, signal.SIGCONT) for member in stopped)

    def note_shared_memory(self) -> int:
        """Remember which segments the live processes hold, for when they are gone. Worth a call once it is ready."""
        return self._shared_memory.note(self._alive)

    def sweep_shared_memory(self) -> list[str]:
        """Remove what the engine left in /dev/shm, once its tree is empty. Blocking: call it in a thread."""
        return self._shared_memory.sweep()

    def describe(self, secrets: Iterable[str] = ()) -> list[dict[str, Any]]:
        """One entry for each live process: names, states, masked command lines, memory, and where it stands in the kernel."""
        known = tuple(secrets)
        return [entry for m in sorted(self._alive) if (entry := describe_process(m, known)) is not None]


def describe_process(process: ProcessId, secrets: tuple[str, ...] = ()) -> dict[str, Any] | None:
    """What can be seen of one process without disturbing it; None when it is gone."""
    stat = read_stat(process.pid)
    if stat is None or stat.id != process:
        return None
    tasks: list[Path] = []
    with contextlib.suppress(OSError):
        tasks = sorted(Path(f"/proc/{process.pid}/task").iterdir(), key=lambda p: int(p.name))[:256]
    return {
        "pid": stat.pid,
        "parent": stat.parent,
        "group": stat.group,
        "session": stat.session,
        "name": stat.name,
        "state": stat.state,
        "threads": stat.threads,
        "rss_bytes": stat.rss,
        "command": list(mask_argv(command_line(stat.pid), secrets)),
        "wchan": _read(Path(f"/proc/{stat.pid}/wchan")),
        "kernel_stack": (_read(Path(f"/proc/{stat.pid}/stack")) or "").splitlines(),
        "tasks": [_describe_task(task) for task in tasks],
    }


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")[:16384].strip()
    except OSError:
        return None


def _describe_task(task: Path) -> dict[str, Any]:
    return {"tid": int(task.name), "state": _task_state(task), "wchan": _read(task / "wchan")}


def _task_state(task: Path) -> str | None:
    text = _read(task / "stat")
    return text.rpartition(")")[2].split()[0] if text else None
