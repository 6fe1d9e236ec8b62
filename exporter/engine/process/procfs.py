"""Processes as /proc shows them: identities that survive pid reuse, one table of all of them, signals that cannot miss."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True, order=True)
class ProcessId:
    """A process for good: its pid, and its start time in clock ticks since boot. With the boot id it is unique."""

    pid: int
    start_ticks: int


class Stat(NamedTuple):
    """What `/proc/PID/stat` says and this program uses (proc_pid_stat(5)). `rss` is in bytes."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    session: int
    threads: int
    start_ticks: int
    rss: int

    @property
    def id(self) -> ProcessId:
        return ProcessId(self.pid, self.start_ticks)

    @property
    def alive(self) -> bool:
        """Still holding memory. A leader that is a zombie while its threads are still ending counts as alive."""
        return self.state not in "ZX" or self.threads > 1


_PAGE = os.sysconf("SC_PAGE_SIZE")


@functools.cache
def boot_id() -> str:
    """The kernel's identity of this boot: start times of another boot mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def read_stat(pid: int) -> Stat | None:
    """The process as it stands, None when there is none, or when it cannot be read."""
    try:
        return _stat(pid)
    except OSError:
        return None


def _stat(pid: int) -> Stat | None:
    """The process as it stands, None when there is none. OSError when that cannot be told, as without a free descriptor."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        data = os.read(fd, 4096)
    except ProcessLookupError:  # it ended between open and read
        return None
    finally:
        os.close(fd)
    head, _, tail = data.rpartition(b")")
    fields = tail.split()
    if len(fields) < 22:
        return None
    return Stat(
        pid=pid,
        name=head.partition(b"(")[2].decode(errors="replace"),
        state=fields[0].decode(),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
        rss=int(fields[21]) * _PAGE,
    )


def pids() -> list[int]:
    """Every pid that /proc shows."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208  names, not paths


def process_table() -> dict[int, Stat]:
    """Every process by pid; costs about 15 µs for each."""
    return {pid: stat for pid in pids() if (stat := read_stat(pid)) is not None}


def identify(pid: int) -> ProcessId | None:
    """Who holds this pid now; None when nobody does."""
    stat = read_stat(pid)
    return stat.id if stat else None


def alive(process: ProcessId) -> bool:
    """Whether exactly this process still runs; a zombie does not."""
    stat = read_stat(process.pid)
    return stat is not None and stat.start_ticks == process.start_ticks and stat.alive


def ended(process: ProcessId) -> bool:
    """Whether exactly this process surely runs no more; one that cannot be looked at counts as running."""
    try:
        stat = _stat(process.pid)
    except OSError:
        try:
            os.kill(process.pid, 0)
        except OSError as error:
            return isinstance(error, ProcessLookupError)
        return False
    return stat is None or stat.start_ticks != process.start_ticks or not stat.alive


def open_pidfd(process: ProcessId) -> int | None:
    """A descriptor of exactly this process (zombie or not), None when it is gone. The caller closes it.

    OSError when none can be had: no descriptor is free, or a sandbox or the kernel does not allow it.
    """
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    try:  # read after the open: the descriptor is of the process that was read
        stat = _stat(process.pid)
    except OSError:
        os.close(fd)
        raise
    if stat is not None and stat.id == process:
        return fd
    os.close(fd)
    return None


def send_signal(process: ProcessId, signum: int) -> bool:
    """Signal exactly this process, never another that got its pid; False when it is gone or may not be signalled."""
    try:
        fd = open_pidfd(process)
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, signum)
        finally:
            os.close(fd)
    except ProcessLookupError:
        return False
    except OSError:
        return _send_by_number(process, signum)
    return True


def _send_by_number(process: ProcessId, signum: int) -> bool:
    """Where descriptors of processes cannot be had: who has the pid is looked at right before the signal."""
    if identify(process.pid) != process:
        return False
    try:
        os.kill(process.pid, signum)
    except OSError:
        return False
    return True


def environment_has(pid: int, entry: bytes) -> bool:
    """Whether the process began with this `NAME=value`; False when that cannot be read."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return entry in data.split(b"\0")


def environment_value(pid: int, name: bytes) -> bytes | None:
    """The value of a variable that the process began with; None without it, or where that cannot be read."""
    try:
        data = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    return next(
        (entry[len(name) + 1 :] for entry in data.split(b"\0") if entry.startswith(name + b"=")), None
    )


def command_line(pid: int) -> list[str]:
    """The process's argv as it shows it now; empty for kernel threads, zombies and processes that are gone."""
    with contextlib.suppress(OSError):
        data = Path(f"/proc/{pid}/cmdline").read_bytes()[:65536]
        return [part.decode(errors="replace") for part in data.rstrip(b"\0").split(b"\0")] if data else []
    return []


def oom_kills() -> int:
    """Processes that the kernel has killed for memory since boot; whoever compares two readings learns of one."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
