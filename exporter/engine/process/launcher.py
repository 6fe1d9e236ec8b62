"""Starting the engine: its own session, its output in a file, its life tied to the daemon's unless it is to be kept."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from exporter.engine.command import EngineCommand
from exporter.engine.process.procfs import ProcessId, identify
from exporter.engine.process.tree import EngineTree, forget_own_child, note_own_child, starting_own_child
from exporter.errors import ExporterError

log = structlog.get_logger(__name__)

PR_SET_CHILD_SUBREAPER = 36
MARK = "EXPORTER_ENGINE_ID"
"""Variable that tells the engine's processes from all others. Not `VLLM_…`: vLLM warns of names that it does not know."""
ROTATE_AT = 1 << 30
_TRAMPOLINE = Path(__file__).with_name("trampoline.py")
_NOT_FOR_ENGINE = (
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
)


class StartError(ExporterError):
    """The engine's process could not be made at all (no memory, too many processes, an unwritable output file)."""


def become_subreaper() -> None:
    """From now on the orphans among our descendants become our children, not init's. Harmless to repeat."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        log.warning("subreaper_unavailable", error=os.strerror(ctypes.get_errno()))


@dataclass
class Guard:
    """The process that stops the engine when the daemon dies without doing so (see trampoline.py)."""

    popen: subprocess.Popen[bytes]
    _told: set[ProcessId] = field(default_factory=set)

    def tell(self, members: frozenset[ProcessId]) -> None:
        """Let the guard know of processes that it could not find by itself; cheap when there are no new ones."""
        new = members - self._told
        if not new or self.popen.stdin is None:
            return
        self._told |= new
        with contextlib.suppress(OSError):  # full pipe or a dead guard: the session and the mark remain
            os.write(self.popen.stdin.fileno(), b"".join(b"%d %d\n" % (m.pid, m.start_ticks) for m in new))

    def release(self) -> None:
        """The engine is gone or is to be kept: the guard ends and is reaped."""
        if self.popen.stdin is not None:
            with contextlib.suppress(OSError):
                os.write(self.popen.stdin.fileno(), b"quit\n")
            self.popen.stdin.close()
            self.popen.stdin = None
        with contextlib.suppress(OSError):
            self.popen.kill()
        self.popen.wait()
        forget_own_child(self.popen.pid)


@dataclass
class EngineProcess:
    """A running engine: its root process, where its output goes, and from which byte on."""

    id: ProcessId
    popen: subprocess.Popen[bytes] | None
    output: Path
    output_offset: int
    started_at: float
    """Unix seconds."""
    mark: str
    """`NAME=value` in the environment of each of the engine's processes."""
    guard: Guard | None = None
    recorded: tuple[ProcessId, ...] = ()
    """Processes that an earlier daemon knew."""
    output_is_temporary: bool = False
    """Whether the output file goes with the process."""

    @property
    def pid(self) -> int:
        return self.id.pid

    def tree(self) -> EngineTree:
        return EngineTree(self.id, recorded=self.recorded, mark=self.mark, our_child=self.popen is not None)

    def release(self) -> None:
        """Forget the process: the guard ends. Call it when the tree is empty, or when the engine is kept."""
        if self.guard is not None:
            self.guard.release()
            self.guard = None
        if self.popen is None:
            return
        if self.popen.poll() is not None:
            forget_own_child(self.popen.pid)
            if self.output_is_temporary:
                with contextlib.suppress(OSError):
                    self.output.unlink()
        else:
            # Left running on purpose: subprocess must not warn of a child that nobody waits for.
            self.popen.returncode = 0


def engine_environment(environ: Mapping[str, str], mark: str) -> dict[str, str]:
    """What the engine inherits: everything but the daemon's own settings and credentials, and systemd's sockets."""
    env = {
        name: value
        for name, value in environ.items()
        if not name.startswith("VLLM_EXPORTER_") and name not in _NOT_FOR_ENGINE
    }
    env.setdefault("PYTHONUNBUFFERED", "1")
    env[MARK] = mark.partition("=")[2]
    return env


def start(
    command: EngineCommand,
    *,
    output: Path,
    keep: bool,
    kill_timeout: float = 10.0,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> EngineProcess:
    """Start the engine; returns at once, before the command has been found (exit codes 126 and 127 tell).

    Must be called from the main thread unless `keep`: the kernel sends the parent-death signal when the *thread* that
    started the child ends. Raises StartError.
    """
    if not keep and threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "the engine must be started from the main thread: its parent-death signal is tied to it"
        )
    mark = f"{MARK}={uuid.uuid4().hex}"
    environment = engine_environment(os.environ if env is None else env, mark)
    fd, opened = _open_output(output)
    try:
        offset = os.fstat(fd).st_size
        with starting_own_child():
            popen = subprocess.Popen(  # noqa: S603  running the given command is the purpose
                [*_python(), "exec", str(os.getpid()), "1" if keep else "0", "--", *command.argv],
                stdin=subprocess.DEVNULL,
                stdout=fd,
                stderr=fd,
                cwd=cwd,
                env=environment,
                start_new_session=True,
            )
            note_own_child(popen.pid)
    except (OSError, ValueError) as error:
        raise StartError(f"cannot start a process for the engine: {error}") from error
    finally:
        os.close(fd)
    identity = identify(popen.pid)
    assert identity is not None, "an unreaped child has an entry in /proc"
    guard = None if keep else start_guard(identity, kill_timeout, mark)
    temporary = opened != output
    return EngineProcess(
        identity, popen, opened, offset, time.time(), mark, guard, output_is_temporary=temporary
    )


def _open_output(output: Path) -> tuple[int, Path]:
    """The file for the engine's output; a temporary one where the wanted one cannot be had. Raises StartError."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        _rotate(output)
        return os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), output
    except OSError as error:
        wanted = error
    try:
        fd, name = tempfile.mkstemp(prefix="vllm-exporter-engine-", suffix=".log")
    except OSError:
        raise StartError(f"cannot write the engine's output to {output}: {wanted.strerror}") from wanted
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
    log.warning("engine_output_elsewhere", path=name, wanted=str(output), error=wanted.strerror)
    return fd, Path(name)


def _rotate(output: Path) -> None:
    """Set aside a file that has grown by years of restarts; its size is mostly holes, but no editor opens it."""
    with contextlib.suppress(FileNotFoundError):
        if output.stat().st_size > ROTATE_AT:
            output.replace(output.with_name(output.name + ".1"))


def _python() -> list[str]:
    """An interpreter that reads no environment, no site packages: it starts in 10 ms and nothing can break it."""
    return [sys.executable, "-I", "-S", str(_TRAMPOLINE)]


def start_guard(engine: ProcessId, kill_timeout: float, mark: str) -> Guard | None:
    """A guard for an engine that must not outlive this process; None (and a warning) when it cannot be started."""
    try:
        with starting_own_child():
            popen = subprocess.Popen(  # noqa: S603
                [
                    *_python(),
                    "guard",
                    str(os.getpid()),
                    str(engine.pid),
                    str(engine.start_ticks),
                    str(kill_timeout),
                    mark,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
            note_own_child(popen.pid)
    except OSError as error:  # the parent-death signal alone stops the engine in most cases
        log.warning("guard_unavailable", error=str(error))
        return None
    assert popen.stdin is not None
    os.set_blocking(popen.stdin.fileno(), False)
    return Guard(popen)
