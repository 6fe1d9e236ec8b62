"""Evidence, kept before a hung or broken engine is killed: a folder with its last lines, samples, processes and stacks."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from exporter.engine.command import EngineCommand
from exporter.engine.output.logfile import read_tail
from exporter.engine.process.procfs import ProcessId, alive
from exporter.engine.process.tree import describe_process
from exporter.engine.secrets import MASK, is_secret_name, mask

log = structlog.get_logger(__name__)

KEPT = 20
"""Folders kept; the oldest go first."""
TAIL_LIMIT = 512 << 10
FILE_LIMIT = 2 << 20
PROCESS_LIMIT = 128
STACK_LIMIT = 16
"""Processes that py-spy looks at: it stops each for a moment."""

_RELEVANT = re.compile(
    r"(?:VLLM|CUDA|NVIDIA|NCCL|HF|HUGGING_FACE|TRANSFORMERS|TORCH|TORCHINDUCTOR|PYTORCH|TRITON|OMP|MKL|RAY|GLOO|UCX|ROCM|HIP)_"
    r"|(?:LD_PRELOAD|LD_LIBRARY_PATH|PYTHON[A-Z]*|VIRTUAL_ENV|PATH|HOME|TMPDIR|HTTPS?_PROXY|NO_PROXY)$"
)
_HARMLESS = re.compile(r"[\w./:,+=@%~ -]{0,2000}")


def write_incident(
    data_dir: Path,
    reason: str,
    *,
    summary: Mapping[str, Any],
    command: EngineCommand | None,
    members: Iterable[ProcessId],
    output: Path | None,
    samples: Sequence[Mapping[str, Any]] = (),
    environ: Mapping[str, str] | None = None,
    now: float,
    stack_seconds: float = 15.0,
) -> Path:
    """Write one incident folder under `data_dir/incidents` and return it. Call it in a thread, before the kill.

    `now` in unix seconds. What cannot be had (stacks without permission, py-spy not installed) is left out; takes
    `stack_seconds` at most for the stacks, and about 5 MB on disk. Raises OSError when the folder cannot be written.
    """
    base = data_dir / "incidents"
    base.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = _new_folder(base, reason, now)
    secrets = command.secrets if command is not None else ()
    processes = sorted(members)[:PROCESS_LIMIT]
    _write_json(
        folder / "summary.json",
        {
            "reason": reason,
            "time": _utc(now).isoformat(),
            "command": list(command.masked_argv) if command is not None else None,
            "base_url": mask(command.base_url, secrets) if command is not None else None,
            "environment": shown_environment(os.environ if environ is None else environ, secrets),
            **summary,
        },
        secrets,
    )
    _write_json(folder / "samples.json", list(samples), secrets)
    described = [entry for process in processes if (entry := describe_process(process, secrets)) is not None]
    _write_json(folder / "processes.json", described, secrets)
    if output is not None:
        tail = read_tail(output, TAIL_LIMIT).decode("utf-8", errors="replace")
        _write(folder / "engine.log", mask(tail, secrets))
    _write_stacks(folder, processes, secrets, stack_seconds)
    _drop_old(base, folder)
    return folder


def shown_environment(environ: Mapping[str, str], secrets: Sequence[str] = ()) -> dict[str, str]:
    """The variables that shape an engine; values of the harmless, `***` for the others."""
    shown = {}
    for name in sorted(environ):
        if not _RELEVANT.match(name) or name.startswith("VLLM_EXPORTER_"):
            continue
        value = environ[name]
        hidden = is_secret_name(name) or not _HARMLESS.fullmatch(value) or mask(value, secrets) != value
        shown[name] = MASK if hidden else value
    return shown


def _utc(now: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(now, tz=dt.UTC)


def _new_folder(base: Path, reason: str, now: float) -> Path:
    word = re.sub(r"[^A-Za-z0-9_]+", "-", reason)[:40].strip("-") or "incident"
    stem = f"{_utc(now):%Y%m%dT%H%M%SZ}-{word}"
    for number in range(1000):
        folder = base / (stem if number == 0 else f"{stem}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            return folder
    raise FileExistsError(f"{base / stem}: a thousand incidents in one second")


def _write_json(path: Path, content: object, secrets: Sequence[str]) -> None:
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    if len(text) > FILE_LIMIT and isinstance(content, list):  # the newest samples count
        kept = content[-max(1, len(content) * FILE_LIMIT // (2 * len(text))) :]
        text = json.dumps(kept, ensure_ascii=False, default=str)
    for secret in secrets:
        text = text.replace(secret, MASK)
    _write(path, text)


def _write(path: Path, text: str) -> None:
    data = text.encode("utf-8", errors="replace")[-FILE_LIMIT:]
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)


def _write_stacks(
    folder: Path, processes: Sequence[ProcessId], secrets: Sequence[str], seconds: float
) -> None:
    """Python stacks by py-spy, where it is installed and may look."""
    beside = Path(sys.executable).with_name("py-spy")
    tool = str(beside) if beside.exists() else shutil.which("py-spy")
    if tool is None or seconds <= 0:
        return
    deadline = time.monotonic() + seconds
    parts = []
    for process in processes[:STACK_LIMIT]:
        left = deadline - time.monotonic()
        if left <= 0:
            parts.append("(no time left for the other processes)")
            break
        if not alive(process):
            continue
        parts.append(f"== pid {process.pid}\n{_python_stack(tool, process.pid, min(left, 5.0))}")
    _write(folder / "python-stacks.txt", mask("\n\n".join(parts), secrets))


def _python_stack(tool: str, pid: int, seconds: float) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            [tool, "dump", "--pid", str(pid)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"(py-spy got no answer in {seconds:.1f} s)"
    except OSError as error:
        return f"(py-spy cannot run: {error})"
    text = done.stdout if done.returncode == 0 else done.stderr
    return text.decode("utf-8", errors="replace")[: 256 << 10]


def _drop_old(base: Path, newest: Path) -> None:
    folders = sorted((p for p in base.iterdir() if p.is_dir()), key=lambda p: p.name)
    for folder in folders[: max(0, len(folders) - KEPT)]:
        if folder != newest:
            shutil.rmtree(folder, ignore_errors=True)
