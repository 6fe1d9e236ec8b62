"""What must outlive a restart of the daemon: one small JSON file, replaced whole, never half-written."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from exporter.errors import ConfigError

log = structlog.get_logger(__name__)

VERSION = 1


class DataDir:
    """The daemon's folder, held by one daemon at a time.

    Raises:
        ConfigError: the folder cannot be made or written, or another daemon holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._lock = self._hold()
        except BlockingIOError as error:
            raise ConfigError(
                [
                    f"data_dir {path} is in use by another daemon ({error.strerror}); give this one its own with --data-dir"
                ]
            ) from error
        except OSError as error:
            raise ConfigError(
                [f"data_dir {path}: {error.strerror}; give a folder that can be written with --data-dir"]
            ) from error

    def _hold(self) -> int:
        """Make the folder and lock it; BlockingIOError names who has it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.path.stat()
        if found.st_uid not in (os.geteuid(), 0) or found.st_mode & stat.S_IWOTH:
            # What lies in it says which processes are ours to signal.
            raise PermissionError(errno.EPERM, "it belongs to another user, or everybody may write to it")
        # Inherited by nobody: an engine that is kept must not hold the lock.
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(lock)
            raise BlockingIOError(error.errno, f"pid {holder}") from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        return lock

    def check(self) -> None:
        """Hold the folder again when somebody removed it; a second daemon could take the same path otherwise.

        Raises:
            OSError: it cannot be made again, or another daemon has taken it meanwhile.
        """
        with contextlib.suppress(FileNotFoundError):
            if (self.path / "lock").stat().st_ino == os.fstat(self._lock).st_ino:
                return
        lost, self._lock = self._lock, self._hold()
        os.close(lost)
        log.warning(
            "data_dir_was_removed", path=str(self.path), advice="it was made again; what it held is lost"
        )

    def close(self) -> None:
        """Let the folder go."""
        os.close(self._lock)


class StateFile:
    """Saved state of the daemon's parts, by name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: str | None = None

    def load(self) -> dict[str, Any]:
        """What was saved last; empty when there is nothing. A broken file is set aside, not fatal."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            log.warning("state_unreadable", path=str(self._path), error=str(error))
            return {}
        try:
            saved = json.loads(text)
            if not isinstance(saved, dict) or saved.get("version") != VERSION:
                raise ValueError(f"expected version {VERSION}")
            parts = saved["parts"]
            if not isinstance(parts, dict):
                raise ValueError("parts is no mapping")
        except (ValueError, KeyError, RecursionError) as error:
            aside = self._path.with_suffix(".broken")
            log.warning("state_set_aside", path=str(self._path), moved_to=str(aside), error=str(error))
            with contextlib.suppress(OSError):
                self._path.replace(aside)
            return {}
        return parts

    def save(self, parts: dict[str, Any]) -> None:
        """Replace the file; OSError when the disk does not take it. Nothing is written when nothing changed.

        What is saved outlives the process from here on, and a crash of the machine from the next `sync` on.
        """
        text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
        if text == self._last:
            return
        temporary = self._path.with_suffix(".new")
        content = f'{{"version":{VERSION},"saved_at":{time.time():.3f},"parts":{text}}}'
        with open(temporary, "w", encoding="utf-8", opener=_private) as file:
            with contextlib.suppress(OSError):  # a file system without modes
                os.fchmod(file.fileno(), 0o600)
            file.write(content)
        temporary.replace(self._path)
        self._last = text

    def sync(self) -> None:
        """Bring what was saved to the disk; blocks, so call it in a thread. OSError when the disk does not take it."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as file:
            os.fsync(file.fileno())


def _private(path: str, flags: int) -> int:
    """Open for this user alone, as everything in the folder is."""
    return os.open(path, flags, 0o600)


class Part(NamedTuple):
    """Something whose totals are saved: its name in the file, what they are, and what changes whenever they do."""

    name: str
    state: Callable[[], dict[str, Any]]
    version: Callable[[], object]


class Keeper:
    """Saves the totals before anybody is shown them.

    A scraper that saw a total must never see a smaller one, not even after a SIGKILL of the daemon: it would take that
    for a reset and count the whole again. So a new page is printed only when what it shows is saved, which costs a small
    write a second at most, and nothing while nobody looks.
    """

    def __init__(
        self,
        data_dir: DataDir,
        file: StateFile,
        parts: Sequence[Part],
    ) -> None:
        self._data_dir = data_dir
        self._file = file
        self._parts = tuple(parts)
        self._saved: list[object] | None = None
        self._failing: set[str] = set()

    def save(self) -> None:
        """Save if something changed; a disk that does not take it is a warning, not the end of monitoring."""
        present = [part.version() for part in self._parts]
        if self._saved != present:
            self._saved = present
            parts = {part.name: part.state() for part in self._parts}
            self._try("check", self._data_dir.check)
            self._try("save", lambda: self._file.save(parts))

    async def sync(self) -> None:
        """Save, and bring it to the disk."""
        self._try("check", self._data_dir.check)
        self.save()
        await asyncio.to_thread(self._try, "sync", self._file.sync)

    def _try(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as error:
            if what not in self._failing:
                log.warning("state_not_saved", data_dir=str(self._data_dir.path), error=str(error))
            self._failing.add(what)
        else:
            self._failing.discard(what)
