"""What the next daemon must know to take over a running engine, or to sweep what is left of one.

The record is written whenever the engine's processes change, so that even a SIGKILL of the daemon leaves no stranger.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog

from exporter.engine.launcher import EngineProcess, start_guard
from exporter.engine.procfs import ProcessId, alive, boot_id
from exporter.engine.tree import EngineTree

log = structlog.get_logger(__name__)

FILE_NAME = "engine.json"


def argv_hash(argv: Sequence[str]) -> str:
    """Tells commands apart without keeping them: an argv may hold an API key."""
    return hashlib.sha256("\0".join(argv).encode(errors="surrogateescape")).hexdigest()


@dataclass(frozen=True)
class EngineRecord:
    """An engine as the daemon that started it left it."""

    pid: int
    start_ticks: int
    boot_id: str
    argv_hash: str
    base_url: str
    output: str
    output_offset: int
    mark: str
    started_at: float
    """Unix seconds."""
    generation: int = 0
    ready_since: float | None = None
    restarts: Mapping[str, int] = field(default_factory=dict)
    members: tuple[tuple[int, int], ...] = ()
    """(pid, start ticks) of every process seen."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """The supervisor's own, JSON-able."""

    @property
    def id(self) -> ProcessId:
        return ProcessId(self.pid, self.start_ticks)

    @property
    def known(self) -> tuple[ProcessId, ...]:
        return tuple(ProcessId(pid, ticks) for pid, ticks in self.members)


def record_of(
    process: EngineProcess,
    *,
    argv: Sequence[str],
    base_url: str,
    output_offset: int,
    members: Iterable[ProcessId] = (),
    generation: int = 0,
    ready_since: float | None = None,
    restarts: Mapping[str, int] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> EngineRecord:
    """The record of a running engine."""
    return EngineRecord(
        pid=process.id.pid,
        start_ticks=process.id.start_ticks,
        boot_id=boot_id(),
        argv_hash=argv_hash(argv),
        base_url=base_url,
        output=str(process.output),
        output_offset=output_offset,
        mark=process.mark,
        started_at=process.started_at,
        generation=generation,
        ready_since=ready_since,
        restarts=dict(restarts or {}),
        members=tuple(sorted((m.pid, m.start_ticks) for m in members)),
        extra=dict(extra or {}),
    )


def save(data_dir: Path, record: EngineRecord) -> None:
    """Replace the record as a whole. Raises OSError; the old record then stands."""
    path = data_dir / FILE_NAME
    temporary = path.with_suffix(".json.new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(asdict(record), file, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def forget(data_dir: Path) -> None:
    """Nothing is left of the engine: the next start has nothing to adopt."""
    with contextlib.suppress(FileNotFoundError):
        (data_dir / FILE_NAME).unlink()


def load(data_dir: Path) -> EngineRecord | None:
    """The record that an earlier daemon left; None when there is none that makes sense."""
    path = data_dir / FILE_NAME
    try:
        fields = json.loads(path.read_bytes())
        fields["members"] = tuple((int(pid), int(ticks)) for pid, ticks in fields.get("members", ()))
        record = EngineRecord(**fields)
        _ = record.pid + record.start_ticks + record.output_offset + record.started_at + record.generation
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("engine_record_unreadable", path=str(path), error=str(error))
        return None
    return record


class Found(StrEnum):
    """What a record turns out to stand for."""

    RUNNING = "running"
    """The engine runs, and is the one that is wanted: adopt it."""
    OTHER_COMMAND = "other_command"
    """It runs, with another command: stop it (it is ours) and start the wanted one."""
    REMAINS = "remains"
    """Its root is gone and other processes of it live: sweep them."""
    GONE = "gone"
    """Nothing of it is left, or the machine was booted since."""


def examine(record: EngineRecord, argv: Sequence[str]) -> Found:
    """Compare a record with what really runs: pid, start time and boot id must all agree."""
    if record.boot_id != boot_id():
        return Found.GONE
    if alive(record.id):
        return Found.RUNNING if record.argv_hash == argv_hash(argv) else Found.OTHER_COMMAND
    return Found.REMAINS if remains(record).refresh(full=True) else Found.GONE


def remains(record: EngineRecord) -> EngineTree:
    """The processes of a recorded engine, for `stop_tree`. Only for a record of this boot."""
    return EngineTree(record.id, recorded=record.known, mark=record.mark, our_child=False)


def adopt(record: EngineRecord, *, keep: bool, kill_timeout: float) -> EngineProcess:
    """Take over a running engine. Unless it is to be kept, a guard ties its life to this daemon's."""
    guard = None if keep else start_guard(record.id, kill_timeout, record.mark)
    if guard is not None:
        guard.tell(frozenset(record.known))
    return EngineProcess(
        id=record.id,
        popen=None,
        output=Path(record.output),
        output_offset=record.output_offset,
        started_at=record.started_at,
        mark=record.mark,
        guard=guard,
        recorded=record.known,
    )
