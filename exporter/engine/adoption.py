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
from typing import Annotated

import structlog
from pydantic import Field, TypeAdapter, ValidationError

from exporter.engine.process.launcher import EngineProcess, start_guard
from exporter.engine.process.procfs import ProcessId, alive, boot_id
from exporter.engine.process.tree import EngineTree

log = structlog.get_logger(__name__)

FILE_NAME = "engine.json"


def argv_hash(argv: Sequence[str]) -> str:
    """Tells commands apart without keeping them: an argv may hold an API key."""
    return hashlib.sha256("\0".join(argv).encode(errors="surrogateescape")).hexdigest()


# What a field may hold: a record that somebody edited, or that a disk garbled, must not reach the kernel or the page.
Pid = Annotated[int, Field(gt=0, lt=1 << 31)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Time = Annotated[float, Field(ge=0, lt=1e12, allow_inf_nan=False)]
Text = Annotated[str, Field(pattern=r"^[^\x00]+$")]


@dataclass(frozen=True)
class EngineRecord:
    """An engine as the daemon that started it left it."""

    pid: Pid
    start_ticks: Count
    boot_id: str
    argv_hash: str
    base_url: Text
    output: Text
    output_offset: Count
    mark: Annotated[str, Field(pattern=r"^\w+=\w*$")]
    started_at: Time
    """Unix seconds."""
    generation: Count = 0
    ready_since: Time | None = None
    restarts: Mapping[str, Count] = field(default_factory=dict)
    members: tuple[tuple[Pid, Count], ...] = ()
    """(pid, start ticks) of every process seen."""
    kept: bool = True
    """Whether it was to outlive its daemon. Where not, a daemon that died without a word left a guard to end it."""
    moved: bool = False
    """Whether it listens on a loopback port of its daemon's choice, behind the gateway, and not where its command says."""

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
    kept: bool = True,
    moved: bool = False,
) -> EngineRecord:
    """The record of a running engine. `argv`: what the user asked for, wherever the engine listens."""
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
        kept=kept,
        moved=moved,
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
    """Nothing is left of the engine: the next start has nothing to adopt.

    A record that cannot be removed is no harm: the pid, start time and boot id in it fit no process.
    """
    path = data_dir / FILE_NAME
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("engine_record_not_removed", path=str(path), error=str(error))


def load(data_dir: Path) -> EngineRecord | None:
    """The record that an earlier daemon left; None when there is none. One that makes no sense is set aside."""
    path = data_dir / FILE_NAME
    try:
        return _RECORD.validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("engine_record_unreadable", path=str(path), error=str(error))
    except ValidationError as error:
        aside = path.with_suffix(".broken")
        wrong = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, wrong["loc"]))
        log.warning(
            "engine_record_set_aside", path=str(path), moved_to=str(aside), field=where, error=wrong["msg"]
        )
        with contextlib.suppress(OSError):
            path.replace(aside)
    return None


_RECORD = TypeAdapter(EngineRecord)


class Found(StrEnum):
    """What a record turns out to stand for."""

    RUNNING = "running"
    """The engine runs, and is the one that is wanted: adopt it."""
    OTHER_COMMAND = "other_command"
    """It runs, with another command: drain and stop it (it is ours) and start the wanted one."""
    OUT_OF_REACH = "out_of_reach"
    """It runs on a loopback port that only a gateway would make known to its clients, and there is none now: the same."""
    DOOMED = "doomed"
    """It still runs, but its daemon died and did not want it to stay: see to its end."""
    REMAINS = "remains"
    """Its root is gone and other processes of it live: sweep them."""
    GONE = "gone"
    """Nothing of it is left, or the machine was booted since."""


def examine(record: EngineRecord, argv: Sequence[str], *, behind_gateway: bool = False) -> Found:
    """Compare a record with what really runs: pid, start time and boot id must all agree.

    `behind_gateway`: whether this daemon's gateway brings clients to the engine, wherever it listens.
    """
    if record.boot_id != boot_id():
        return Found.GONE
    if alive(record.id):
        if not record.kept:
            return Found.DOOMED
        if record.argv_hash != argv_hash(argv):
            return Found.OTHER_COMMAND
        return Found.OUT_OF_REACH if record.moved and not behind_gateway else Found.RUNNING
    return Found.REMAINS if remains(record).refresh(full=True) else Found.GONE


def kept_at(data_dir: Path, argv: Sequence[str]) -> str | None:
    """Base URL of a running engine of this command that listens where its flags say: it will be adopted, not moved."""
    record = load(data_dir)
    if record is None or record.moved or examine(record, argv) is not Found.RUNNING:
        return None
    return record.base_url


def is_of(record: EngineRecord, process: ProcessId) -> bool:
    """Whether a process belongs to a recorded engine. Blocks for some milliseconds."""
    return record.boot_id == boot_id() and process in remains(record).refresh(full=True)


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
