"""A log is never worth the daemon."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

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
