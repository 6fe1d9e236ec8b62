"""Processes where the kernel gives no descriptor of them: one that cannot be looked at is not one that is gone."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from exporter.engine.process import stopping
from exporter.engine.process.procfs import ProcessId, ended, identify, open_pidfd, send_signal
from exporter.engine.process.stopping import wait_exit


@dataclass
class Watched:
    """A process as `wait_exit` takes it; without `popen` it is an adopted one."""

    id: ProcessId
    popen: subprocess.Popen[bytes] | None = None


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["/bin/sleep", "60"])
    yield child
    child.kill()
    child.wait()


def identity(child: subprocess.Popen[bytes]) -> ProcessId:
    found = identify(child.pid)
    assert found is not None
    return found


@pytest.fixture(params=[errno.EMFILE, errno.ENOSYS, errno.EPERM])
def no_pidfd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.mark.usefixtures("no_pidfd")
@pytest.mark.parametrize("adopted", [True, False])
async def test_a_process_without_a_descriptor_is_waited_for_until_it_ends(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, *, adopted: bool
) -> None:
    looks = 0
    poll = sleeper.poll

    def counted_ended(process: ProcessId) -> bool:
        nonlocal looks
        looks += 1
        return ended(process)

    def counted_poll() -> int | None:
        nonlocal looks
        looks += 1
        return poll()

    monkeypatch.setattr(stopping, "ended", counted_ended)
    monkeypatch.setattr(sleeper, "poll", counted_poll)
    watched = Watched(identity(sleeper), None if adopted else sleeper)
    waiting = asyncio.create_task(wait_exit(watched))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    assert 1 <= looks <= 8
    sleeper.kill()
    async with asyncio.timeout(20):
        assert await waiting == (None if adopted else -signal.SIGKILL)


@pytest.mark.usefixtures("no_pidfd")
def test_a_process_without_a_descriptor_gets_its_signal_and_another_with_its_pid_does_not(
    sleeper: subprocess.Popen[bytes],
) -> None:
    process = identity(sleeper)
    assert not send_signal(ProcessId(process.pid, process.start_ticks + 1), signal.SIGKILL)
    assert sleeper.poll() is None
    assert send_signal(process, signal.SIGTERM)
    assert sleeper.wait(20) == -signal.SIGTERM
    assert not send_signal(process, signal.SIGTERM)


def test_a_process_that_cannot_be_read_counts_as_running_while_its_pid_is_taken(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = identity(sleeper)

    def full(path: str, flags: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        assert not ended(process)
        with pytest.raises(OSError, match="Too many"):
            open_pidfd(process)
        sleeper.kill()
        os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
        assert not ended(process), "a zombie holds its pid"
        sleeper.wait()
        assert ended(process)
    assert open_pidfd(process) is None
