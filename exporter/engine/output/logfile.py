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
import stat
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

    A file that cannot be read is one warning and no lines: the engine is worth more than its output.
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
        self._writable = True
        self._told_unreadable = False
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
        """Follow the file in the running event loop."""
        if not self._open():
            return
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
        self._close_file()

    def _close_file(self) -> None:
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

    def _open(self) -> bool:
        """Whether the file is open."""
        if self._fd >= 0:
            return True
        try:
            self._fd, self._writable = _open_regular(self._path)
        except OSError as error:
            self._give_up(error)
            return False
        size = os.fstat(self._fd).st_size
        if self._read_to > size:
            self._read_to = 0
        elif self._read_to < size:
            with contextlib.suppress(OSError):  # holes that an earlier follower left are no output
                self._read_to = os.lseek(self._fd, self._read_to, os.SEEK_DATA)
        return True

    def _give_up(self, error: OSError) -> None:
        if not self._told_unreadable:
            log.warning("engine_output_unreadable", path=str(self._path), error=error.strerror or str(error))
        self._told_unreadable = True
        self._close_file()

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
        elif self._inotify < 0 <= self._fd:
            self._schedule(POLL)

    def _step(self) -> bool:
        """Read one piece; whether there is more."""
        if self._fd < 0:
            return False
        try:
            size = os.fstat(self._fd).st_size
            if size < self._read_to:  # somebody truncated it
                self._read_to, self._freed_to, self._rest = 0, 0, b""
            if size - self._read_to > self._limit // 2:
                self._skip(size - self._limit // 4)
            bulk = size - self._read_to > BULK_BACKLOG
            data = os.pread(self._fd, BULK_CHUNK if bulk else CHUNK, self._read_to)
        except OSError as error:  # a failing disk, a share that went away
            self._give_up(error)
            return False
        if data:
            self._read_to += len(data)
            self._hand_on(data, bulk=bulk)
        self._free()
        return self._read_to < size

    def _skip(self, target: int) -> None:
        if not self.skipped_bytes:  # the metric tells of the rest
            log.warning(
                "engine_output_skipped",
                path=str(self._path),
                bytes=target - self._read_to,
                advice="more came at once than engine.log_file_limit lets stay unread; raise it to skip less",
            )
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
        if not self._writable or target - self._freed_to < min(_FREE_STEP, keep):
            return
        if self._punching:
            code = _punch(self._fd, self._freed_to, target - self._freed_to)
            if code == 0:
                self._freed_to = target
                return
            self._punching = False
            log.info("engine_output_truncated_instead", path=str(self._path), error=os.strerror(code))
        # Without holes: start over. What the engine writes between the last read and here is lost.
        try:
            os.ftruncate(self._fd, 0)
        except OSError as error:
            self._writable = False
            log.warning("engine_output_grows", path=str(self._path), error=error.strerror)
            return
        self._read_to, self._freed_to = 0, 0


def _open_regular(path: Path) -> tuple[int, bool]:
    """A descriptor, and whether it may write; it may not where the disk became read-only. Raises OSError."""
    flags = os.O_CLOEXEC | os.O_NONBLOCK  # a pipe in the file's place must not block
    writable = True
    try:
        fd = os.open(path, os.O_RDWR | flags)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        fd = os.open(path, os.O_RDONLY | flags)
        writable = False
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is no regular file")
    return fd, writable


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
