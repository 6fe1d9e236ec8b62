"""Following a growing file, and what becomes of its lines."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import LogCapture

from exporter.engine.output import logfile
from exporter.engine.output.engine_output import EngineOutput
from exporter.engine.output.logfile import LogFollower, read_tail

INFO = b"(EngineCore pid=1) INFO 11-21 02:31:47 [core.py:133] some text of a normal length for such lines\n"
ERROR = b"(EngineCore pid=1) ERROR 11-21 02:31:47 [core.py:133] something is wrong\n"


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[structlog.typing.EventDict]]:
    capture = LogCapture()
    before = structlog.get_config()
    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    monkeypatch.setattr("exporter.engine.output.engine_output.log", structlog.get_logger())
    monkeypatch.setattr("exporter.engine.output.logfile.log", structlog.get_logger())
    yield capture.entries
    structlog.configure(**before)


async def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"waited 20 s for {what}"
        await asyncio.sleep(0.005)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


class Sink:
    """A follower's lines."""

    def __init__(self, path: Path, *, offset: int = 0, limit: int = 64 << 20) -> None:
        self.lines: list[bytes] = []
        self.bulk: list[bytes] = []
        self.partial: list[bytes] = []
        self.follower = LogFollower(
            path,
            lambda data, lines: self.lines.extend(lines),
            bulk=self.bulk.append,
            partial=self.partial.append,
            offset=offset,
            limit=limit,
        )


async def test_lines_arrive_as_they_are_written_and_halves_wait(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntw")
    sink = Sink(path)
    sink.follower.start()
    try:
        await eventually(lambda: sink.lines == [b"one"], "the first line")
        assert sink.follower.offset == 4
        append(path, b"o\r\nthree\n")
        await eventually(lambda: sink.lines == [b"one", b"two", b"three"], "the other lines")
        assert sink.follower.offset == path.stat().st_size
    finally:
        sink.follower.close()


async def test_polling_does_where_inotify_is_not_to_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "_watch", lambda path: -1)
    path = tmp_path / "log"
    path.write_bytes(b"")
    sink = Sink(path)
    sink.follower.start()
    try:
        append(path, b"one\n")
        await eventually(lambda: sink.lines == [b"one"], "the line")
    finally:
        sink.follower.close()


async def test_a_progress_bar_is_seen_before_its_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\rshards: 10%\rshards: 20%")
    sink = Sink(path)
    sink.follower.drain()
    assert sink.partial == [b"shards: 20%"]
    assert sink.lines == [b"", b"shards: 10%", b"shards: 20%"]


def test_a_follower_goes_on_where_another_left_off(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nth")
    sink = Sink(path, offset=4)
    sink.follower.drain()
    assert sink.lines == [b"two", b"th"]


def test_an_offset_beyond_the_end_begins_at_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    sink = Sink(path, offset=1000)
    sink.follower.drain()
    assert sink.lines == [b"one"]


def test_a_line_without_an_end_does_not_grow_memory(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 200_000)
    sink = Sink(path)
    sink.follower.drain()
    assert b"".join(sink.lines) == b"x" * 200_000
    assert max(map(len, sink.lines)) <= logfile.LINE_LIMIT + logfile.CHUNK


def test_output_that_was_read_is_freed_and_reading_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    limit = 2 << 20
    sink = Sink(path, limit=limit)
    written = 0
    for number in range(100):
        append(path, b"%06d %s\n" % (number, b"x" * 99_000))
        written += 1
        sink.follower.drain()
        assert path.stat().st_blocks * 512 <= limit + (1 << 20)
    assert len(sink.lines) == written
    assert path.stat().st_size > 4 * limit
    assert len(read_tail(path, 300_000).splitlines()) == 3
    again = Sink(path, limit=limit)  # a new follower with an old offset lands behind the holes, not in them
    again.follower.drain()
    assert b"\0" not in b"".join(again.lines[:3]).lstrip(b"\0")


def test_a_file_system_without_holes_gets_its_file_truncated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[structlog.typing.EventDict]
) -> None:
    monkeypatch.setattr(logfile, "_punch", lambda fd, start, length: 95)
    path = tmp_path / "log"
    path.write_bytes(b"")
    limit = 2 << 20
    sink = Sink(path, limit=limit)
    for number in range(100):
        append(path, b"%06d %s\n" % (number, b"x" * 99_000))
        sink.follower.drain()
        assert path.stat().st_size <= 2 * limit
    assert [line[:6] for line in sink.lines] == [b"%06d" % number for number in range(100)]
    assert [e["event"] for e in events] == ["engine_output_truncated_instead"]


def test_a_writer_far_ahead_is_caught_up_with_by_skipping_which_is_told_once(
    tmp_path: Path, events: list[structlog.typing.EventDict]
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"y" * 99 + b"\n" + INFO * 100_000)
    sink = Sink(path, limit=4 << 20)
    sink.follower.drain()
    assert sink.follower.skipped_bytes > 4 << 20
    assert sink.follower.offset == path.stat().st_size
    assert path.stat().st_blocks * 512 < 4 << 20
    skipped = sink.follower.skipped_bytes
    append(path, INFO * 100_000)
    sink.follower.drain()
    assert sink.follower.skipped_bytes > skipped
    assert [e["event"] for e in events] == ["engine_output_skipped"]
    assert events[0]["bytes"] == skipped


async def test_output_leaves_room_on_a_disk_that_has_little_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[structlog.typing.EventDict]
) -> None:
    """A small data disk filled up with output that had long been read, and the engine could write no more."""
    path = tmp_path / "log"
    path.write_bytes(b"")
    monkeypatch.setattr(
        "exporter.engine.output.engine_output.free_bytes",
        lambda folder: (max(0, (2 << 20) - path.stat().st_blocks * 512), 2 << 20),
    )
    clock = iter(range(10_000))
    output = EngineOutput(path, clock=lambda: float(next(clock)))
    output.start()
    try:
        for _ in range(60):
            append(path, INFO * 1000)
            output.drain()
            assert path.stat().st_blocks * 512 < 1 << 20
    finally:
        output.close()
    assert [e["event"] for e in events].count("engine_output_disk_space_short") == 1


def test_the_tail_of_a_file_is_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"aaaa\nbbbb\ncccc\n")
    assert read_tail(path, 8) == b"cccc\n"
    assert read_tail(path) == b"aaaa\nbbbb\ncccc\n"
    assert read_tail(tmp_path / "absent") == b""


def drained(path: Path, data: bytes, **options: object) -> EngineOutput:
    path.write_bytes(data)
    output = EngineOutput(path, clock=lambda: 0.0, **options)  # type: ignore[arg-type]
    output.drain()
    return output


async def test_lines_are_passed_on_with_their_level_and_without_secrets(
    tmp_path: Path, events: list[structlog.typing.EventDict]
) -> None:
    output = drained(
        tmp_path / "log",
        INFO + ERROR + b"Traceback (most recent call last):\n  File x\nOddError: sesame\n"
        b'INFO:     1.2.3.4:5 - "GET /metrics HTTP/1.1" 200 OK\n\n',
        secrets=("sesame",),
    )
    assert [(e["log_level"], e["line"]) for e in events] == [
        ("info", "some text of a normal length for such lines"),
        ("error", "something is wrong"),
        ("error", "Traceback (most recent call last):"),
        ("error", "  File x"),
        ("error", "OddError: ***"),
        ("debug", '1.2.3.4:5 - "GET /metrics HTTP/1.1" 200 OK'),
    ]
    assert events[0]["event"] == "engine_log"
    assert events[0]["process"] == "EngineCore"
    assert events[0]["source"] == "core.py:133"
    assert output.lines["error"] == 4
    output.close()


async def test_the_complaints_of_an_engine_that_is_being_stopped_are_counted_and_not_raised(
    tmp_path: Path, events: list[structlog.typing.EventDict]
) -> None:
    (tmp_path / "log").write_bytes(ERROR)
    output = EngineOutput(tmp_path / "log")
    output.stopping()
    output.drain()
    output.close()
    assert [e["log_level"] for e in events] == ["debug"]
    assert output.lines["error"] == 1


async def test_errors_have_a_budget_of_their_own(
    tmp_path: Path, events: list[structlog.typing.EventDict]
) -> None:
    output = drained(tmp_path / "log", INFO * 100 + ERROR * 7, rate=5)
    levels = [e["log_level"] for e in events if e["event"] == "engine_log"]
    assert levels.count("info") == 5
    assert levels.count("error") == 5
    assert output.dropped == 97
    assert output.lines == {"debug": 0, "info": 100, "warning": 0, "error": 7}
    output.close()
    reports = [e["count"] for e in events if e["event"] == "engine_log_lines_dropped"]
    assert sum(reports) == 97
    assert len(reports) <= 2


async def test_a_flood_is_counted_searched_and_its_errors_are_shown(
    tmp_path: Path, events: list[structlog.typing.EventDict]
) -> None:
    needle = (
        b"ValueError: Total number of attention heads (2) must be divisible by tensor parallel size (3).\n"
    )
    shard = b"Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01,  1.9it/s]\n"
    data = INFO * 10_000 + needle + shard + ERROR + INFO * 10_000
    output = drained(tmp_path / "log", data, rate=100)
    assert sum(output.lines.values()) == 20_003
    assert [rule.reason for rule, _ in output.scan.found()] == ["parallel_size_mismatch"]
    assert output.progress.ratio == 0.5
    assert "something is wrong" in [e.get("line") for e in events]
    assert output.dropped + sum(e["event"] == "engine_log" for e in events) >= 20_001
    output.close()


async def test_progress_is_told_once_for_each_step_and_not_after_ready(
    tmp_path: Path, events: list[structlog.typing.EventDict]
) -> None:
    steps: list[tuple[str, float | None]] = []
    path = tmp_path / "log"
    path.write_bytes(b"Loading safetensors checkpoint shards:  25% Completed | 1/4 [00:01<00:01]\n")
    output = EngineOutput(path, on_progress=lambda p: steps.append((p.stage, p.ratio)))
    output.drain()
    output.ready()
    append(path, b"Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01]\n")
    output.drain()
    output.close()
    assert steps == [("loading_weights", 0.25)]
    assert [e for e in events if e["event"] == "engine_log"] == []


async def test_a_flood_neither_blocks_the_writer_nor_the_event_loop(
    tmp_path: Path, events: list[structlog.typing.EventDict]
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"")
    output = EngineOutput(path, rate=100, file_limit=4 << 20)
    following = asyncio.create_task(output.follow())
    await asyncio.sleep(0)
    block = INFO * 1000

    def flood() -> float:
        began = time.monotonic()
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        for _ in range(100):
            os.write(fd, block)
            time.sleep(0.002)
        os.close(fd)
        return time.monotonic() - began

    writer = asyncio.create_task(asyncio.to_thread(flood))
    gaps = []
    while not writer.done():
        before = time.perf_counter()
        await asyncio.sleep(0.005)
        gaps.append(time.perf_counter() - before)
    size = path.stat().st_size
    await eventually(lambda: output.offset == size, "the end of the flood")
    assert path.stat().st_blocks * 512 <= 8 << 20
    assert sorted(gaps)[len(gaps) * 3 // 4] < 0.1
    assert await writer < 10
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe"])
async def test_output_that_cannot_be_read_is_one_warning_and_ends_nothing(
    tmp_path: Path, events: list[structlog.typing.EventDict], kind: str
) -> None:
    path = tmp_path / "log"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    sink = Sink(path)
    sink.follower.start()
    await asyncio.sleep(0)
    sink.follower.drain()
    sink.follower.close()
    assert [entry["event"] for entry in events] == ["engine_output_unreadable"]
    assert sink.lines == []


async def test_output_on_a_disk_that_became_read_only_is_read_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.write_bytes(INFO * 40_000)
    real = os.open

    def read_only(name: Path, flags: int, *more: int) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(name))
        return real(name, flags, *more)

    monkeypatch.setattr(logfile.os, "open", read_only)
    sink = Sink(path, limit=1 << 20)
    sink.follower.drain()
    sink.follower.close()
    assert path.stat().st_size == len(INFO) * 40_000
    assert sink.follower.offset == len(INFO) * 40_000


async def test_a_read_that_fails_ends_the_reading_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[structlog.typing.EventDict]
) -> None:
    def broken(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "log"
    path.write_bytes(INFO)
    sink = Sink(path)
    monkeypatch.setattr(logfile.os, "pread", broken)
    sink.follower.drain()
    sink.follower.close()
    assert [entry["event"] for entry in events] == ["engine_output_unreadable"]


async def test_a_file_that_can_neither_be_punched_nor_truncated_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[structlog.typing.EventDict]
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    path = tmp_path / "log"
    path.write_bytes(INFO * 40_000)
    monkeypatch.setattr(logfile, "_punch", lambda *_: errno.EOPNOTSUPP)
    monkeypatch.setattr(logfile.os, "ftruncate", fails)
    sink = Sink(path, limit=1 << 20)
    sink.follower.drain()
    sink.follower.close()
    told = [e["event"] for e in events if e["event"] != "engine_output_skipped"]
    assert told == ["engine_output_truncated_instead", "engine_output_grows"]
    assert sink.follower.offset == len(INFO) * 40_000
