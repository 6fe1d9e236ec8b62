"""A log is never worth the daemon."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.logs import QUEUE_LINES, Outlet


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    """The reading and the writing end; a test takes out what it closes itself."""
    ends = list(os.pipe())
    yield ends
    for end in ends:
        os.close(end)


def test_lines_come_out_in_order_and_in_utf_8(pipe: list[int]):
    outlet = Outlet(pipe[1])
    for number in range(100):
        outlet.write(f"{number} 通义\n")
    outlet.write("half a surrogate pair: \ud83d\n")
    outlet.close()
    lines = os.read(pipe[0], 1 << 16).decode().splitlines()
    assert lines[:100] == [f"{number} 通义" for number in range(100)]
    assert lines[100] == "half a surrogate pair: \\ud83d"
    assert outlet.lost == 0


@pytest.mark.parametrize(("level", "at_once"), [("info", False), ("warning", True), ("error", True)])
def test_what_somebody_must_know_does_not_wait_for_other_lines(level: str, at_once: bool):
    program = f"""
        import os, signal, structlog, time
        from exporter import logs
        logs.GATHER_SECONDS = 60
        logs.configure("json", "info")
        structlog.get_logger().{level}("told")
        time.sleep({2 if at_once else 0.3})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ("told" in done.stderr) is at_once


def test_closing_while_the_thread_is_about_to_write_waits_for_no_more(
    pipe: list[int], monkeypatch: pytest.MonkeyPatch
):
    outlet = Outlet(pipe[1])
    at_work, go_on = threading.Event(), threading.Event()
    clear = outlet._some.clear

    def slowly() -> None:
        at_work.set()
        go_on.wait()
        clear()

    monkeypatch.setattr(outlet._some, "clear", slowly)
    outlet.write("a\n")
    at_work.wait()
    threading.Timer(0.05, go_on.set).start()
    outlet.close()
    assert not outlet._thread.is_alive()
    assert os.read(pipe[0], 10) == b"a\n"


def test_a_reader_that_is_gone_loses_lines_and_raises_nothing(pipe: list[int]):
    os.close(pipe.pop(0))
    outlet = Outlet(pipe[0])
    outlet.write("nobody hears this\n")
    outlet.close()
    assert outlet.lost == 1


def test_a_full_disk_loses_lines_and_raises_nothing():
    descriptor = os.open("/dev/full", os.O_WRONLY)
    outlet = Outlet(descriptor)
    outlet.write("no room\n")
    outlet.close()
    os.close(descriptor)
    assert outlet.lost == 1


def test_a_reader_that_stopped_reading_stalls_nobody_and_grows_no_memory(pipe: list[int]):
    outlet = Outlet(pipe[1])
    began = time.monotonic()
    for _ in range(3 * QUEUE_LINES):
        outlet.write("x" * 200 + "\n")
    assert time.monotonic() - began < 30
    assert outlet.lost >= QUEUE_LINES
    os.close(pipe.pop(0))
    outlet.close()


@pytest.mark.parametrize("fmt", ["console", "json"])
def test_a_traceback_shows_no_local_variables_where_rich_is_installed(tmp_path: Path, fmt: str):
    rich = tmp_path / "rich"
    rich.mkdir()
    for name in ("__init__", "console", "traceback"):
        (rich / f"{name}.py").write_text(
            textwrap.dedent(
                """
                class Console:
                    def __init__(self, *args, file=None, **options):
                        self.file = file
                    def print(self, text):
                        self.file.write(text)
                class Traceback:
                    @classmethod
                    def from_exception(cls, kind, error, trace, **options):
                        while trace.tb_next:
                            trace = trace.tb_next
                        return repr(trace.tb_frame.f_locals)
                """
            )
        )
    program = f"""
        import structlog
        from exporter import logs
        logs.configure({fmt!r}, "info")
        def work():
            secret = "sword" + "fish"
            raise ValueError("told")
        try:
            work()
        except ValueError:
            structlog.get_logger().exception("failed")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
    )
    assert "ValueError: told" in done.stderr
    assert "swordfish" not in done.stderr
