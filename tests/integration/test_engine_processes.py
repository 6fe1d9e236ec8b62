"""Real processes that behave as engines do when things go wrong: they fork, hide, ignore signals, stop, and are orphaned."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.engine.command import EngineCommand, read_command
from exporter.engine.process import EngineTree, ProcessId, alive, identify, launcher, stop_tree, wait_exit
from exporter.engine.process.launcher import EngineProcess
from exporter.engine.process.procfs import environment_has, pids, process_table, send_signal

PATIENCE = 20.0


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(0.01)


async def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        await asyncio.sleep(0.01)


def marked(mark: str) -> set[int]:
    """Live processes that began with this mark: what a test must not leave behind."""
    found = {pid for pid in pids() if environment_has(pid, mark.encode())}
    return {pid for pid in found if (i := identify(pid)) is not None and alive(i)}


@pytest.fixture(autouse=True)
def subreaper() -> None:
    launcher.become_subreaper()


class Yard:
    """Starts engines and sees that none of their processes outlives the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[EngineProcess] = []

    def command(self, *argv: str) -> EngineCommand:
        return read_command(argv, {}, url="http://127.0.0.1:1", read_file=lambda path: "")

    def script(self, text: str) -> EngineCommand:
        path = self.folder / f"engine{len(self.started)}.py"
        path.write_text(_PRELUDE + textwrap.dedent(text))
        return self.command(sys.executable, "-S", str(path), str(self.folder))

    def start(
        self, command: EngineCommand, *, keep: bool = False, kill_timeout: float = 2.0
    ) -> EngineProcess:
        process = launcher.start(
            command, output=self.folder / "engine.log", keep=keep, kill_timeout=kill_timeout
        )
        self.started.append(process)
        return process

    def ready(self, name: str) -> int:
        """The number that an engine's process wrote into the file `name`, once it has."""
        path = self.folder / name
        until(lambda: path.exists() and path.read_text().endswith("\n"), f"{name} of the engine")
        return int(path.read_text())

    def output(self) -> str:
        return (self.folder / "engine.log").read_text()


_PRELUDE = """
import os, signal, sys, time
folder = sys.argv[1]
def tell(name, value=None):
    with open(os.path.join(folder, name + ".new"), "w") as file:
        file.write(f"{os.getpid() if value is None else value}\\n")
    os.rename(os.path.join(folder, name + ".new"), os.path.join(folder, name))
def rest():
    while True:
        time.sleep(60)
"""


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    yard = Yard(tmp_path)
    yield yard
    for process in yard.started:
        for pid in marked(process.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process.popen is not None:
            process.popen.kill()
            process.popen.wait()
        process.release()


async def test_the_engine_leads_a_session_of_its_own_and_writes_to_its_file(yard: Yard) -> None:
    process = yard.start(yard.script("print('hello'); print('err', file=sys.stderr); tell('up'); rest()"))
    assert yard.ready("up") == process.pid
    stat = process_table()[process.pid]
    assert (stat.session, stat.group) == (process.pid, process.pid)
    assert stat.session != os.getsid(0)
    assert sorted(yard.output().split()) == ["err", "hello"]
    assert process.output_offset == 0
    report = await stop_tree(process.tree(), kill_timeout=5, process=process)
    assert not report.killed
    assert not report.survivors
    assert await wait_exit(process) == -signal.SIGTERM


async def test_the_daemons_own_settings_and_sockets_do_not_reach_the_engine(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_EXPORTER_WEB__BEARER_TOKEN", "very-secret")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/nowhere")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/nowhere")
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
    process = yard.start(yard.script("print('\\n'.join(sorted(os.environ)))"))
    assert await wait_exit(process) == 0
    names = yard.output().split()
    assert "VLLM_LOGGING_LEVEL" in names
    assert "PYTHONUNBUFFERED" in names
    assert not {"NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"} & set(names)
    assert not [name for name in names if name.startswith("VLLM_EXPORTER_")]


async def test_a_command_that_does_not_exist_ends_with_127_and_says_so(yard: Yard) -> None:
    process = yard.start(yard.command("no-such-engine", "serve"))
    assert await wait_exit(process) == 127
    assert "no-such-engine: no such command" in yard.output()


async def test_a_command_that_may_not_be_run_ends_with_126_and_says_so(yard: Yard) -> None:
    (yard.folder / "plain").write_text("text")
    process = yard.start(yard.command(str(yard.folder / "plain")))
    assert await wait_exit(process) == 126
    assert "Permission denied" in yard.output()


async def test_signals_that_python_ignores_are_as_a_shell_would_give_them(yard: Yard) -> None:
    process = yard.start(yard.command("grep", "SigIgn", "/proc/self/status"))
    assert await wait_exit(process) == 0
    ignored = int(yard.output().split()[1], 16)
    # Others may be ignored where the tests run, and a child inherits that.
    assert not [
        signum for signum in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT) if ignored >> (signum - 1) & 1
    ]


async def test_an_exit_is_known_within_fifty_milliseconds(yard: Yard) -> None:
    delays = []
    for number in range(5):
        process = yard.start(yard.script(f"tell('up{number}'); rest()"))
        yard.ready(f"up{number}")
        waiting = asyncio.create_task(wait_exit(process))
        await asyncio.sleep(0.02)
        began = time.perf_counter()
        os.kill(process.pid, signal.SIGKILL)
        assert await waiting == -signal.SIGKILL
        delays.append(time.perf_counter() - began)
    assert sorted(delays)[2] < 0.05  # the median: this machine may be busy


async def test_several_may_wait_for_the_same_exit(yard: Yard) -> None:
    process = yard.start(yard.script("time.sleep(0.2); sys.exit(7)"))
    assert await asyncio.gather(*(wait_exit(process) for _ in range(3))) == [7, 7, 7]
    assert await wait_exit(process) == 7


async def test_a_stop_finds_children_that_left_the_group_and_grandchildren_that_left_the_session(
    yard: Yard,
) -> None:
    process = yard.start(
        yard.script("""
        if os.fork() == 0:
            os.setpgid(0, 0)
            tell('group'); rest()
        if os.fork() == 0:
            if os.fork() == 0:
                os.setsid()
                tell('session'); rest()
            rest()
        rest()
        """)
    )
    hidden = [yard.ready("group"), yard.ready("session")]
    tree = process.tree()
    assert set(hidden) <= {m.pid for m in tree.refresh(full=True)}
    report = await stop_tree(tree, kill_timeout=5, process=process)
    assert not report.killed
    assert not report.survivors
    assert tree.empty()
    assert marked(process.mark) == set()


async def test_orphans_come_to_the_subreaper_and_are_the_engines_even_when_first_seen_as_orphans(
    yard: Yard,
) -> None:
    process = yard.start(
        yard.script("""
        if os.fork() == 0:
            os.setsid()
            tell('orphan'); rest()
        time.sleep(0.1)
        os._exit(3)
        """)
    )
    orphan = yard.ready("orphan")
    assert await wait_exit(process) == 3
    tree = process.tree()
    assert {m.pid for m in tree.refresh()} == {orphan}
    report = await stop_tree(tree, kill_timeout=5, process=process)
    assert report.signalled == 1
    assert identify(orphan) is None  # reaped: no zombie is left behind


async def test_an_orphan_with_a_clean_environment_is_found_by_its_parent(yard: Yard) -> None:
    process = yard.start(
        yard.script("""
        if os.fork() == 0:
            os.setsid()
            tell('pid')
            os.execve('/bin/sleep', ['sleep', '60'], {})
        rest()
        """)
    )
    hidden = yard.ready("pid")
    tree = process.tree()
    await eventually(lambda: hidden in {m.pid for m in tree.refresh()}, "the child")
    os.kill(process.pid, signal.SIGKILL)
    await wait_exit(process)
    assert hidden in {m.pid for m in tree.refresh()}
    await stop_tree(tree, kill_timeout=5, process=process)
    assert identify(hidden) is None


@pytest.mark.parametrize("environment", ["os.environ", "{}"])
async def test_an_orphan_of_one_engine_is_not_anothers(yard: Yard, environment: str) -> None:
    """With its mark it is told at once; without, by the engine that knew it before."""
    other = yard.start(yard.script("tell('other'); rest()"))
    process = yard.start(
        yard.script(f"""
        if os.fork() == 0:
            os.setsid()
            tell('pid')
            os.execve('/bin/sleep', ['sleep', '60'], {environment})
        rest()
        """)
    )
    yard.ready("other")
    hidden = yard.ready("pid")
    tree, others = process.tree(), other.tree()
    if environment == "{}":
        await eventually(lambda: hidden in {m.pid for m in tree.refresh()}, "the child")
    os.kill(process.pid, signal.SIGKILL)
    await wait_exit(process)
    await asyncio.sleep(0.05)
    assert {m.pid for m in others.refresh(full=True)} == {other.pid}
    assert hidden in {m.pid for m in tree.refresh(full=True)}
    await stop_tree(tree, kill_timeout=5, process=process)
    await stop_tree(others, kill_timeout=5, process=other)


async def test_the_mark_finds_a_process_that_nothing_else_ties_to_the_engine(yard: Yard) -> None:
    """As after a restart of the daemon: the orphan belongs to another subreaper, has a session of its own, was never seen."""
    process = yard.start(yard.script("tell('up'); rest()"))
    yard.ready("up")
    name, _, value = process.mark.partition("=")
    stranger = subprocess.Popen(["sleep", "60"], env={name: value}, start_new_session=True)
    try:
        tree = EngineTree(process.id, mark=process.mark, our_child=False)
        await eventually(
            lambda: stranger.pid in {m.pid for m in tree.refresh(full=True)}, "the marked process"
        )
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_sigterm_that_is_swallowed_is_repeated(yard: Yard) -> None:
    process = yard.start(
        yard.script("""
        seen = []
        def swallow(*_):
            seen.append(1)
            if len(seen) == 2:
                sys.exit(0)
        signal.signal(signal.SIGTERM, swallow)
        tell('up'); rest()
        """)
    )
    yard.ready("up")
    report = await stop_tree(process.tree(), kill_timeout=15, process=process)
    assert not report.killed
    assert report.signalled >= 2
    assert await wait_exit(process) == 0


async def test_what_ignores_sigterm_is_killed_after_the_timeout_with_all_its_children(yard: Yard) -> None:
    process = yard.start(
        yard.script("""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for number in range(3):
            if os.fork() == 0:
                os.setpgid(0, 0)
                tell(f'child{number}'); rest()
        tell('up'); rest()
        """)
    )
    for name in ("child0", "child1", "child2", "up"):
        yard.ready(name)
    report = await stop_tree(process.tree(), kill_timeout=0.5, process=process)
    assert report.killed
    assert not report.survivors
    assert report.seconds < 0.5 + 2.0
    assert marked(process.mark) == set()


async def test_stopped_processes_are_woken_to_act_on_the_signal(yard: Yard) -> None:
    process = yard.start(
        yard.script("""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        tell('up')
        os.kill(os.getpid(), signal.SIGSTOP)
        rest()
        """)
    )
    yard.ready("up")
    await eventually(lambda: process_table()[process.pid].state == "T", "the engine to stop itself")
    report = await stop_tree(process.tree(), kill_timeout=15, process=process)
    assert not report.killed
    assert await wait_exit(process) == 5


async def test_an_engine_that_forks_while_it_is_killed_does_not_get_away(yard: Yard) -> None:
    process = yard.start(
        yard.script("""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        tell('up')
        end = time.time() + 15
        while time.time() < end:
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    time.sleep(20)
                os._exit(0)
            time.sleep(0.02)
        """)
    )
    yard.ready("up")
    await asyncio.sleep(0.3)
    report = await stop_tree(process.tree(), kill_timeout=0, process=process)
    assert not report.survivors
    assert marked(process.mark) == set()


async def test_children_of_the_daemon_itself_are_neither_killed_nor_reaped(yard: Yard) -> None:
    process = yard.start(yard.script("tell('up'); rest()"))
    yard.ready("up")
    own = subprocess.Popen(["sleep", "60"])
    ended = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(9)"])
    through_asyncio = await asyncio.create_subprocess_exec("sh", "-c", "sleep 0.2; exit 4")
    noted = subprocess.Popen(["sleep", "60"], start_new_session=True)
    from exporter.engine.process import tree as tree_module

    tree_module.note_own_child(noted.pid)
    try:
        await stop_tree(process.tree(), kill_timeout=5, process=process)
        assert own.poll() is None
        assert noted.poll() is None
        assert ended.wait() == 9
        assert await through_asyncio.wait() == 4
    finally:
        tree_module.forget_own_child(noted.pid)
        for child in (own, noted):
            child.kill()
            child.wait()


async def test_a_pid_that_was_used_again_is_not_the_engines(yard: Yard) -> None:
    stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        real = identify(stranger.pid)
        assert real is not None
        recorded = ProcessId(real.pid, real.start_ticks - 1)  # the one that had this pid before
        assert not alive(recorded)
        assert not send_signal(recorded, signal.SIGKILL)
        tree = EngineTree(recorded, recorded=[recorded], mark="X=1", our_child=False)
        assert tree.refresh(full=True) == frozenset()
        report = await stop_tree(tree, kill_timeout=0)
        assert report.signalled == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_session_that_died_out_proves_nothing_when_its_number_is_used_again(yard: Yard) -> None:
    """The same pid leads a session again, later: not one process of the old engine is left to keep the number taken."""
    stranger = subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True)
    try:
        real = identify(stranger.pid)
        assert real is not None
        tree = EngineTree(ProcessId(real.pid, real.start_ticks - 1), our_child=False)
        assert tree.refresh(full=True) == frozenset()
        assert tree.refresh(full=True) == frozenset()
    finally:
        os.killpg(stranger.pid, signal.SIGKILL)
        stranger.wait()


async def test_describe_shows_states_and_masks_secrets(yard: Yard) -> None:
    path = yard.folder / "engine.py"
    path.write_text(_PRELUDE + "tell('up'); rest()\n")
    process = yard.start(
        yard.command(sys.executable, "-S", str(path), str(yard.folder), "--api-key", "sesame-open")
    )
    yard.ready("up")
    tree = process.tree()
    tree.refresh()
    (entry,) = tree.describe()
    assert entry["pid"] == process.pid
    assert entry["state"] == "S"
    assert entry["rss_bytes"] > 0
    assert entry["command"][-2:] == ["--api-key", "***"]
    assert entry["tasks"][0]["tid"] == process.pid


async def test_the_engine_of_a_daemon_thread_is_refused_unless_it_is_kept(yard: Yard) -> None:
    with pytest.raises(RuntimeError, match="main thread"):
        await asyncio.to_thread(yard.start, yard.command("true"))
    process = await asyncio.to_thread(yard.start, yard.command("true"), keep=True)
    assert await wait_exit(process) == 0


async def test_a_huge_output_file_is_set_aside_at_the_next_start(yard: Yard) -> None:
    output = yard.folder / "engine.log"
    output.write_text("old\n")
    os.truncate(output, launcher.ROTATE_AT + 1)  # a hole: it takes no place
    process = yard.start(yard.command("echo", "new"))
    assert process.output_offset == 0
    assert await wait_exit(process) == 0
    assert yard.output() == "new\n"
    assert (yard.folder / "engine.log.1").stat().st_size == launcher.ROTATE_AT + 1


async def test_an_engine_whose_output_file_cannot_be_written_writes_to_a_temporary_one(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher.tempfile, "tempdir", str(yard.folder))
    process = launcher.start(
        yard.command("sh", "-c", "echo one; echo two"), output=Path("/proc/nowhere/engine.log"), keep=True
    )
    assert await wait_exit(process) == 0
    assert process.output.parent == yard.folder
    assert process.output.read_text() == "one\ntwo\n"
    process.release()
    assert not process.output.exists()


async def test_output_that_can_be_written_nowhere_is_an_error(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher.tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(launcher.StartError, match=r"cannot write the engine's output"):
        launcher.start(yard.command("true"), output=Path("/proc/nowhere/engine.log"), keep=True)


_DAEMON = """
import os, sys, time
from pathlib import Path
from exporter.engine.process import launcher
from exporter.engine.command import read_command
launcher.become_subreaper()
folder = Path(sys.argv[1])
command = read_command(sys.argv[3:], {}, url="http://127.0.0.1:1", read_file=lambda p: "")
process = launcher.start(command, output=folder / "engine.log", keep=sys.argv[2] == "keep", kill_timeout=1.0)
(folder / "mark.new").write_text(process.mark)
(folder / "mark.new").rename(folder / "mark")
while True:
    time.sleep(60)
"""

_STUBBORN = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    tell('hidden'); rest()
tell('up'); rest()
"""


class Daemon:
    """A process that starts an engine as the daemon does, to be killed."""

    def __init__(self, yard: Yard, mode: str, engine: str) -> None:
        path = yard.folder / "engine.py"
        path.write_text(_PRELUDE + textwrap.dedent(engine))
        (yard.folder / "daemon.py").write_text(_DAEMON)
        self.popen = subprocess.Popen(
            [sys.executable, str(yard.folder / "daemon.py"), str(yard.folder), mode, sys.executable, "-S", str(path), str(yard.folder)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        until((yard.folder / "mark").exists, "the daemon to start its engine")
        self.mark = (yard.folder / "mark").read_text()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()


@pytest.fixture
def daemons() -> Iterator[list[Daemon]]:
    daemons: list[Daemon] = []
    yield daemons
    for daemon in daemons:
        daemon.kill()
        for pid in marked(daemon.mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_the_engine_does_not_outlive_a_killed_daemon(yard: Yard, daemons: list[Daemon]) -> None:
    daemons.append(Daemon(yard, "stop", "tell('up'); rest()"))
    yard.ready("up")
    daemons[0].kill()
    until(lambda: not marked(daemons[0].mark), "the end of the engine")


def test_an_engine_that_swallows_sigterm_does_not_outlive_a_killed_daemon_nor_does_its_hidden_child(
    yard: Yard, daemons: list[Daemon]
) -> None:
    daemons.append(Daemon(yard, "stop", _STUBBORN))
    yard.ready("up")
    yard.ready("hidden")
    daemons[0].kill()
    until(lambda: not marked(daemons[0].mark), "the end of the engine")


def test_an_engine_that_is_kept_outlives_a_killed_daemon(yard: Yard, daemons: list[Daemon]) -> None:
    daemons.append(Daemon(yard, "keep", "tell('up'); rest()"))
    engine = yard.ready("up")
    identity = identify(engine)
    daemons[0].kill()
    time.sleep(0.5)
    assert identity is not None
    assert alive(identity)


def test_no_guard_is_left_when_the_engine_is_released(yard: Yard) -> None:
    process = yard.start(yard.script("tell('up'); rest()"))
    guard = process.guard
    assert guard is not None
    process.release()
    assert guard.popen.returncode is not None
    assert identify(guard.popen.pid) is None


_SEGMENT = """
sys.path[:0] = [p for p in __import__('sysconfig').get_paths().values()]
from multiprocessing import resource_tracker, shared_memory
segment = shared_memory.SharedMemory(create=True, size=4096)
resource_tracker.unregister(segment._name, 'shared_memory')
with open(os.path.join(folder, 'name'), 'w') as file:
    file.write(segment.name)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
tell('up'); rest()
"""


async def test_shared_memory_of_a_killed_engine_is_removed(yard: Yard) -> None:
    process = yard.start(yard.script(_SEGMENT))
    yard.ready("up")
    segment = Path("/dev/shm") / (yard.folder / "name").read_text()
    assert segment.exists()
    await stop_tree(process.tree(), kill_timeout=0, process=process)
    assert not segment.exists()


async def test_pythons_resource_tracker_gets_to_clean_up_after_a_kill(yard: Yard) -> None:
    """Killed together with the others, it would leave shared memory and semaphores that nobody else knows of."""
    process = yard.start(
        yard.script(_SEGMENT.replace("resource_tracker.unregister(segment._name, 'shared_memory')", ""))
    )
    yard.ready("up")
    segment = Path("/dev/shm") / (yard.folder / "name").read_text()
    tree = process.tree()
    tree.sweep_shared_memory = list  # type: ignore[method-assign]
    report = await stop_tree(tree, kill_timeout=0, process=process)
    assert not report.survivors
    assert not segment.exists()
    assert "leaked shared_memory objects" in yard.output()


async def test_shared_memory_that_somebody_still_maps_stays(yard: Yard) -> None:
    process = yard.start(yard.script(_SEGMENT))
    yard.ready("up")
    segment = Path("/dev/shm") / (yard.folder / "name").read_text()
    import mmap

    try:
        with segment.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
            file.close()
            await stop_tree(process.tree(), kill_timeout=0, process=process)
            assert segment.exists()
    finally:
        segment.unlink(missing_ok=True)
