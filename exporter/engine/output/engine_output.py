"""The engine's output in the daemon: followed, counted, searched for the cause of an end, passed on to the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from exporter.engine.output.budget import DropReport, LineBudget
from exporter.engine.output.diagnosis import OutputScan
from exporter.engine.output.logfile import LogFollower
from exporter.engine.output.loglines import (
    LEVELS,
    Level,
    LoadProgress,
    LogLine,
    level_of,
    may_be_progress,
    parse_line,
)
from exporter.engine.output.space import free_bytes, output_limit
from exporter.engine.secrets import mask

log = structlog.get_logger(__name__)

_ERRORS_LOOKED_AT = 200
"""In one piece of a flood."""
_SPACE_SECONDS = 1.0
"""Between two looks at the free space of the disk, while there is output."""


class EngineOutput:
    """Everything that one incarnation prints. Used from the event loop only.

    Lines are passed on as `engine_log` events with their own level, at most `rate` a second, and as many errors again
    out of a budget of their own; what is dropped is counted and told of once a second at most.
    """

    def __init__(
        self,
        path: Path,
        *,
        offset: int = 0,
        rate: int = 500,
        file_limit: int = 64 << 20,
        secrets: tuple[str, ...] = (),
        on_progress: Callable[[LoadProgress], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.scan = OutputScan()
        self.progress = LoadProgress()
        self.lines: dict[Level, int] = dict.fromkeys(LEVELS, 0)
        """Lines read so far, by level (the lines of a flood, which are not looked at, as `info`)."""
        self.dropped = 0
        """Lines read but not passed on."""
        self._secrets = secrets
        self._on_progress = on_progress
        self._clock = clock
        self._serving = False
        self._stopping = False
        self._budget = LineBudget(rate)
        self._error_budget = LineBudget(rate)
        self._report = DropReport()
        self._report_timer: asyncio.TimerHandle | None = None
        self._last_level: Level = "info"
        self._path = path
        self._file_limit = file_limit
        self._space_known_at = -_SPACE_SECONDS
        self._space_is_short = False
        self._follower = LogFollower(
            path,
            self._take,
            bulk=self._take_bulk,
            partial=self._take_partial,
            offset=offset,
            limit=file_limit,
        )

    @property
    def offset(self) -> int:
        """Where a later daemon goes on reading."""
        return self._follower.offset

    @property
    def skipped_bytes(self) -> int:
        return self._follower.skipped_bytes

    def start(self) -> None:
        """Follow the file; one that cannot be opened is told once, and not followed."""
        self._mind_space(self._clock())
        self._follower.start()

    async def follow(self) -> None:
        """Follow the file until cancelled."""
        self.start()
        try:
            await asyncio.Event().wait()
        finally:
            self.close()

    def ready(self) -> None:
        """The engine serves: what it prints from now on is no news of loading, and no evidence of a wrong start."""
        self._serving = True
        self.scan.ready()

    def stopping(self) -> None:
        """The engine was asked to stop: what it complains about while it dies is of interest to nobody but `debug`."""
        self._stopping = True

    def drain(self) -> None:
        """Take in all that is left, once the engine has ended."""
        self._follower.drain()

    def close(self) -> None:
        """Stop following, and tell of what was dropped last."""
        self._follower.close()
        if self._report_timer is not None:
            self._report_timer.cancel()
            self._report_timer = None
        self._tell_dropped(force=True)

    def _take(self, data: bytes, lines: list[bytes]) -> None:
        self.scan.feed(data)
        now = self._clock()
        self._mind_space(now)
        self._budget.refill(now)
        self._error_budget.refill(now)
        dropped = 0
        moved = False
        for raw in lines:
            level = level_of(raw) or self._last_level
            self._last_level = level
            self.lines[level] += 1
            allowed = (self._error_budget if level == "error" else self._budget).take()
            if not allowed:
                dropped += 1
                if self._serving or not may_be_progress(raw):
                    continue
            line = parse_line(raw)
            if not self._serving:
                moved |= self.progress.feed(line)
            if allowed:
                self._forward(line, level)
        self._after(dropped, moved=moved)

    def _take_bulk(self, data: bytes) -> None:
        self.scan.feed(data)
        self._mind_space(self._clock())
        count = data.count(b"\n")
        shown = self._errors_of_bulk(data) if b"ERROR" in data else 0
        self.lines["info"] += count - shown
        moved = False
        if not self._serving and may_be_progress(data):
            for raw in data.split(b"\n"):
                if may_be_progress(raw):
                    moved |= self.progress.feed(parse_line(raw))
        self._after(count - shown, moved=moved)

    def _mind_space(self, now: float) -> None:
        """Keep less of the output on a disk that has little room: an engine that cannot write its output may end."""
        if now - self._space_known_at < _SPACE_SECONDS:
            return
        self._space_known_at = now
        space = free_bytes(self._path.parent)
        if space is None:
            return
        limit = output_limit(self._file_limit, space[0])
        self._follower.bound(limit)
        short = limit < self._file_limit
        if short and not self._space_is_short:
            log.warning(
                "engine_output_disk_space_short",
                folder=str(self._path.parent),
                free_bytes=space[0],
                kept_bytes=limit,
                advice="free some space there, or lower engine.log_file_limit",
            )
        if short or space[0] >= 4 * self._file_limit:  # a disk around the edge is told of once
            self._space_is_short = short

    def _errors_of_bulk(self, data: bytes) -> int:
        """Pass on the errors of a flood as far as their own budget goes; how many were."""
        self._error_budget.refill(self._clock())
        shown = 0
        place = data.find(b"ERROR")
        for _ in range(_ERRORS_LOOKED_AT):
            if place < 0:
                break
            end = data.find(b"\n", place)
            raw = data[data.rfind(b"\n", 0, place) + 1 : end]
            if level_of(raw) == "error":
                if not self._error_budget.take():
                    break
                shown += 1
                self.lines["error"] += 1
                self._forward(parse_line(raw), "error")
            place = data.find(b"ERROR", end)
        return shown

    def _take_partial(self, raw: bytes) -> None:
        if not self._serving and b"%" in raw and self.progress.feed(parse_line(raw)):
            self._after(0, moved=True)

    def _after(self, dropped: int, *, moved: bool) -> None:
        if moved and self._on_progress is not None:
            self._on_progress(self.progress)
        if dropped:
            self.dropped += dropped
            self._report.add(dropped)
            self._tell_dropped()

    def _tell_dropped(self, *, force: bool = False) -> None:
        if count := self._report.due(self._clock(), force=force):
            log.warning("engine_log_lines_dropped", count=count)
        elif self._report.pending and self._report_timer is None:
            self._report_timer = asyncio.get_running_loop().call_later(1.0, self._tell_later)

    def _tell_later(self) -> None:
        self._report_timer = None
        self._tell_dropped()

    def _forward(self, line: LogLine, level: Level) -> None:
        if line.kind == "progress" or not line.text:
            return
        text = mask(line.text, self._secrets)
        extra = {k: v for k, v in (("process", line.process), ("source", line.source)) if v is not None}
        if line.kind == "access":
            level = line.level or level
        if self._stopping:
            level = "debug"
        getattr(log, level)("engine_log", line=text, **extra)
