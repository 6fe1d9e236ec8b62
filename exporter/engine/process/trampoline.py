"""Stand-alone script, run between the daemon and the engine by `python -I -S`; it imports nothing of this package.

    trampoline.py exec PARENT_PID KEEP -- COMMAND…
        Ties the engine's life to the daemon's (unless KEEP is 1) and becomes the command.
    trampoline.py guard DAEMON_PID ENGINE_PID ENGINE_START_TICKS KILL_TIMEOUT NAME=VALUE
        Waits for the daemon's death. vLLM swallows a SIGTERM while it loads and may not exit on one while it
        serves, so a guard stays to repeat the signal, escalate and sweep what the daemon no longer can.

Exit codes of `exec` are the shell's: 127 no such command, 126 not executable, and 125 when the daemon is gone.
"""

# ruff: noqa: T201, S606, PTH110, PTH123, PTH208  prints to the engine's output, starts without pathlib, and exec is its purpose

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
GUARD_POLL = 0.1


def _set_parent_death_signal(signum: int) -> None:
    import ctypes  # not needed by a guard, which stays

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:
        print(f"vllm-exporter: prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)


def become(parent: int, keep: bool, command: list[str]) -> int:
    """Replace this process by `command`; what Python itself changed (ignored signals) is put back."""
    for signum in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if not keep:
        _set_parent_death_signal(signal.SIGTERM)
        # The parent may have died before the call above: then nobody will ever send the signal.
        if os.getppid() != parent:
            print("vllm-exporter: the daemon ended before the engine started", file=sys.stderr)
            return 125
    try:
        os.execvp(command[0], command)
    except (FileNotFoundError, NotADirectoryError):
        found = os.path.exists(command[0]) if "/" in command[0] else False
        what = "the interpreter that its first line names does not exist" if found else "no such command"
        print(f"vllm-exporter: cannot start the engine: {command[0]}: {what}", file=sys.stderr)
        return 127
    except OSError as error:
        print(f"vllm-exporter: cannot start the engine: {command[0]}: {error.strerror}", file=sys.stderr)
        return 126


def _table() -> dict[int, tuple[int, int, int, bool]]:
    """pid -> (parent, session, start ticks, is a zombie) of every process that can be read."""
    table = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        table[int(name)] = (int(fields[1]), int(fields[3]), int(fields[19]), fields[0] in (b"Z", b"X"))
    return table


class Guarded:
    """The engine's processes as the guard knows them: session members and descendants, remembered over orphaning."""

    def __init__(self, pid: int, start_ticks: int, marker: str) -> None:
        self.session = pid
        self.start_ticks = start_ticks
        self.marker = marker.encode()
        self.known = {pid: start_ticks}

    def refresh(self) -> dict[int, int]:
        """Processes still alive, as pid -> start ticks. A session counts only while a known member holds its number."""
        table = _table()
        known = {p: s for p, s in self.known.items() if p in table and table[p][2] == s}
        for pid, (_, _, start, _) in table.items():
            if pid not in known and start >= self.start_ticks and self._is_marked(pid):
                known[pid] = start
        held = any(table[p][1] == self.session for p in known)
        grown = True
        while grown:
            grown = False
            for pid, (parent, session, start, _) in table.items():
                if pid not in known and (parent in known or (held and session == self.session)):
                    known[pid] = start
                    grown = True
        self.known = known
        return {p: s for p, s in known.items() if not table[p][3]}

    def _is_marked(self, pid: int) -> bool:
        """Whether the process began with the variable that the launcher gave to the engine."""
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return self.marker in file.read().split(b"\0")
        except OSError:
            return False


def _send(pid: int, start_ticks: int, signum: int) -> None:
    """Signal a process by a descriptor, so that a reused pid is never hit."""
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(pid)
        try:
            if _start_ticks(pid) == start_ticks:
                signal.pidfd_send_signal(fd, signum)
        finally:
            os.close(fd)


def _start_ticks(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except OSError:
        return None


def _is_cleaner(pid: int) -> bool:
    """Python's resource tracker: it unlinks shared memory and ends by itself when the others are gone."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"multiprocessing.resource_tracker" in file.read()
    except OSError:
        return False


def _wait_for_death(daemon: int, engine_processes: Guarded) -> bool:
    """Read `PID START_TICKS` lines from standard input until it ends; True when the daemon died without a word."""
    fd = os.pidfd_open(daemon) if os.getppid() == daemon else None
    rest = b""
    while data := os.read(0, 65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line == b"quit":
                return False
            pid, start_ticks = line.split()
            engine_processes.known[int(pid)] = int(start_ticks)
    # The pipe closes a moment before the parent is gone; one that closed for another reason asks for nothing.
    return fd is None or bool(select.select([fd], [], [], 10.0)[0])


def guard(daemon: int, engine: int, start_ticks: int, kill_timeout: float, marker: str) -> int:
    """Wait until the daemon is gone; after its death leave nothing of the engine. 1: something survived SIGKILL."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    engine_processes = Guarded(engine, start_ticks, marker)
    if not _wait_for_death(daemon, engine_processes):
        return 0
    deadline = time.monotonic() + kill_timeout
    again = 0.0
    while alive := engine_processes.refresh():
        now = time.monotonic()
        if now >= deadline:
            for pid, start in alive.items():
                if now >= deadline + 1.0 or not _is_cleaner(pid):
                    _send(pid, start, signal.SIGKILL)
            if now >= deadline + 30:
                return 1
        elif now >= again:
            for pid, start in alive.items():
                _send(pid, start, signal.SIGTERM)
                _send(pid, start, signal.SIGCONT)
            again = now + 1.0
        time.sleep(GUARD_POLL)
    return 0


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["exec"]:
        return become(int(arguments[1]), arguments[2] == "1", arguments[4:])
    if arguments[:1] == ["guard"]:
        return guard(
            int(arguments[1]), int(arguments[2]), int(arguments[3]), float(arguments[4]), arguments[5]
        )
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
