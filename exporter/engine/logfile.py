"""Following the file that the engine writes its output to, without ever making the engine wait.

A file, not a pipe: it does not fill up while the daemon is busy, and does not break when the daemon restarts. What has
been read is freed by punching holes, so the file's size grows and its place on disk does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

CHUNK = 64 << 10
"""Bytes handed on at once: about a millisecond of work, so that the event loop stays responsive."""
BULK_CHUNK = 512 << 10
BULK_BACKLOG = 256 << 10
"""Further behind than this, output is only searched and counted, not split into lines."""
LINE_LIMIT = 64 << 10
COALESCE = 0.05
"""Seconds between two reads of a file that keeps growing slowly: one wake-up for many lines."""
POLL = 0.25

_IN_MODIFY = 0x2
_IN_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01  # linux/falloc.h
_FREE_STEP = 1 << 20


class LogFollower:
    """Reads whole lines from a growing file and hands them to `lines`, from `offset` on.

    `bulk` gets text of whole lines that came too fast to be split, `partial` what stands after the last line end (a
    progress bar), again and again as it grows. Both `\\n` and `\\r` end a line. `limit` bounds the bytes on disk.
    Reads are small and come from the page cache, so they are done in the event loop.
    """

    def __init__(
        self,
        path: Path,
        lines: Callable[[bytes, list[bytes]], None],
        *,
        bulk: Callable[[bytes], None],
        partial: Callable[[bytes], None] | None = None,
        offset: int = 0,
        limit: int = 64 << 20,
    ) -> None:
        self._path = path
        self._lines = lines
        self._bulk = bulk
        self._partial = partial
        self._limit = limit
        self._fd = -1
        self._read_to = offset
        self._rest = b""
        self._freed_to = 0
        self._punching = True
        self._inotify = -1
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self.skipped_bytes = 0
        """Bytes that were never read, because the engine wrote more than `limit` ahead."""

    @property
    def offset(self) -> int:
        """First byte that has not been handed on: where a later follower goes on."""
        return self._read_to - len(self._rest)

    def bound(self, limit: int) -> None:
        """From now on keep at most `limit` bytes on disk."""
        self._limit = limit

    def start(self) -> None:
        """Follow the file in the running event loop. Raises OSError when it cannot be opened."""
        self._open()
        self._inotify = _watch(self._path)
        if self._inotify >= 0:
            asyncio.get_running_loop().add_reader(self._inotify, self._on_event)
        self._schedule(0.0)

    def close(self) -> None:
        """Stop following; what was read stays read."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._inotify >= 0:
            asyncio.get_running_loop().remove_reader(self._inotify)
            os.close(self._inotify)
            self._inotify = -1
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def drain(self) -> None:
        """Read to the present end, for a writer that has ended: the last line counts even without a line end."""
        self._open()
        for _ in range(10_000):
            if not self._step():
                break
        if self._rest:
            rest, self._rest = self._rest, b""
            self._lines(rest + b"\n", [rest])

    def _open(self) -> None:
        if self._fd >= 0:
            return
        self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        size = os.fstat(self._fd).st_size
        if self._read_to > size:
            self._read_to = 0
        elif self._read_to < size:
            with contextlib.suppress(OSError):  # holes that an earlier follower left are no output
                self._read_to = os.lseek(self._fd, self._read_to, os.SEEK_DATA)

    def _on_event(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._inotify, 4096)
        if self._timer is None:
            self._schedule(COALESCE)

    def _schedule(self, delay: float) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay, self._pump) if delay else loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._timer = None
        if self._step():
            self._schedule(0.0)
        elif self._inotify < 0:
            self._schedule(POLL)

    def _step(self) -> bool:
        """Read one piece; whether there is more."""
        size = os.fstat(self._fd).st_size
        if size < self._read_to:  # somebody truncated it
            self._read_to, self._freed_to, self._rest = 0, 0, b""
        backlog = size - self._read_to
        if backlog > self._limit // 2:
            self._skip(size - self._limit // 4)
            backlog = size - self._read_to
        bulk = backlog > BULK_BACKLOG
        data = os.pread(self._fd, BULK_CHUNK if bulk else CHUNK, self._read_to)
        if data:
            self._read_to += len(data)
            self._hand_on(data, bulk=bulk)
        self._free()
        return self._read_to < size

    def _skip(self, target: int) -> None:
        self.skipped_bytes += target - self._read_to
        self._read_to = target
        self._rest = b""

    def _hand_on(self, data: bytes, *, bulk: bool) -> None:
        data = self._rest + data
        if b"\r" in data:
            # A lone \r at the very end may be half of \r\n: an empty line more does no harm.
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) > LINE_LIMIT:
            end = len(data)
        whole, self._rest = data[:end], data[end:]
        if whole and bulk:
            self._bulk(whole)
        elif whole:
            self._lines(whole, whole.removesuffix(b"\n").split(b"\n"))
        if self._rest and self._partial is not None:
            self._partial(self._rest)

    def _free(self) -> None:
        """Give what was read back to the file system, all but the newest part of it."""
        keep = self._limit // 2
        target = (self._read_to - keep) & ~0xFFFF
        if target - self._freed_to < min(_FREE_STEP, keep):
            return
        if self._punching:
            code = _punch(self._fd, self._freed_to, target - self._freed_to)
            if code == 0:
                self._freed_to = target
                return
            self._punching = False
            log.info("engine_output_truncated_instead", path=str(self._path), error=os.strerror(code))
        # Without holes: start over. What the engine writes between the last read and here is lost.
        os.ftruncate(self._fd, 0)
        self._read_to, self._freed_to = 0, 0


def read_tail(path: Path, limit: int = 256 << 10) -> bytes:
    """The last whole lines of a file, at most `limit` bytes; empty when it cannot be read."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - limit))
            data = file.read(limit)
    except OSError:
        return b""
    if size > limit:
        data = data[data.find(b"\n") + 1 :]
    return data.lstrip(b"\0")


def _watch(path: Path) -> int:
    """An inotify descriptor that becomes readable when the file changes; -1 when there is none to be had."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(_IN_NONBLOCK_CLOEXEC)
    if fd < 0:
        log.info("inotify_unavailable", error=os.strerror(ctypes.get_errno()), poll_seconds=POLL)
        return -1
    if libc.inotify_add_watch(fd, os.fsencode(path), _IN_MODIFY) < 0:
        log.info("inotify_unavailable", error=os.strerror(ctypes.get_errno()), poll_seconds=POLL)
        os.close(fd)
        return -1
    return fd


def _punch(fd: int, start: int, length: int) -> int:
    """Free a range of a file; 0 or an errno (EOPNOTSUPP where the file system cannot)."""
    libc = ctypes.CDLL(None, use_errno=True)
    fallocate = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if fallocate is None:
        return errno.EOPNOTSUPP
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return 0 if fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, start, length) == 0 else ctypes.get_errno()
