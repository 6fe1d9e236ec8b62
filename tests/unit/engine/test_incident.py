"""Incident folders: what they hold, and what they must not."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from exporter.engine import incident
from exporter.engine.command import read_command
from exporter.engine.incident import shown_environment, write_incident
from exporter.engine.process import ProcessId, identify

NOW = 1_795_000_000.0


def write(folder: Path, **changes: object) -> Path:
    me = identify(os.getpid())
    assert me is not None
    output = folder / "engine.out"
    output.write_text("early line\nkey is sesame-open\nlast line\n")
    options: dict[str, object] = {
        "summary": {"state": "unresponsive", "exit_code": None},
        "command": read_command(
            ("vllm", "serve", "M", "--api-key", "sesame-open"), {}, url=None, read_file=lambda path: ""
        ),
        "members": {me, ProcessId(4_000_000, 1)},
        "output": output,
        "samples": [{"time": 1.0, "running": 3}],
        "environ": {"VLLM_API_KEY": "sesame-open", "VLLM_LOGGING_LEVEL": "INFO", "SHELL": "sh"},
        "now": NOW,
        "stack_seconds": 0.0,
        **changes,
    }
    return write_incident(folder / "data", "hang", **options)  # type: ignore[arg-type]


def test_an_incident_holds_lines_samples_processes_and_the_masked_command(tmp_path: Path) -> None:
    folder = write(tmp_path)
    assert folder.parent == tmp_path / "data" / "incidents"
    assert folder.name == "20261118T110640Z-hang"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["reason"] == "hang"
    assert summary["state"] == "unresponsive"
    assert summary["command"] == ["vllm", "serve", "M", "--api-key", "***"]
    assert summary["environment"] == {"VLLM_API_KEY": "***", "VLLM_LOGGING_LEVEL": "INFO"}
    assert json.loads((folder / "samples.json").read_text()) == [{"time": 1.0, "running": 3}]
    (process,) = json.loads((folder / "processes.json").read_text())
    assert process["pid"] == os.getpid()
    assert process["tasks"]
    assert (folder / "engine.log").read_text().endswith("last line\n")


def test_no_file_of_an_incident_holds_a_secret(tmp_path: Path) -> None:
    folder = write(tmp_path, summary={"note": "with sesame-open inside"})
    for path in folder.iterdir():
        assert "sesame-open" not in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_incidents_of_one_second_get_two_folders_and_the_oldest_go(tmp_path: Path) -> None:
    first = write(tmp_path)
    second = write(tmp_path)
    assert first != second
    for number in range(incident.KEPT + 3):
        newest = write(tmp_path, now=NOW + 60 + number)
    kept = sorted(p.name for p in newest.parent.iterdir())
    assert len(kept) == incident.KEPT
    assert newest.name in kept
    assert first.name not in kept


def test_a_huge_past_does_not_fill_the_disk(tmp_path: Path) -> None:
    output = tmp_path / "huge"
    output.write_bytes(b"x" * 99 + b"\n" * (4 << 20))
    samples = [{"number": number, "text": "y" * 1000} for number in range(20_000)]
    folder = write(tmp_path, output=output, samples=samples)
    assert sum(p.stat().st_size for p in folder.iterdir()) < 6 << 20
    assert json.loads((folder / "samples.json").read_text())[-1]["number"] == 19_999


def test_what_cannot_be_had_is_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path, command=None, output=tmp_path / "absent", members=())
    assert json.loads((folder / "processes.json").read_text()) == []
    assert (folder / "engine.log").read_text() == ""


def fake_py_spy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    tool = tmp_path / "bin" / "py-spy"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "elsewhere" / "python"))


def test_python_stacks_are_kept_when_py_spy_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_py_spy(tmp_path, monkeypatch, 'echo "Thread 1 of $3 at sesame-open"')
    text = (write(tmp_path, stack_seconds=10.0) / "python-stacks.txt").read_text()
    assert text == f"== pid {os.getpid()}\nThread 1 of {os.getpid()} at ***\n"


def test_a_py_spy_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_py_spy(tmp_path, monkeypatch, "exec sleep 60")
    assert "no answer in" in (write(tmp_path, stack_seconds=0.3) / "python-stacks.txt").read_text()


@pytest.mark.parametrize(
    ("environ", "shown"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0,1", "HF_TOKEN": "x", "USER": "me"}, {"CUDA_VISIBLE_DEVICES": "0,1", "HF_TOKEN": "***"}),
        ({"VLLM_EXPORTER_WEB__BEARER_TOKEN": "x", "VLLM_X": "a{b}"}, {"VLLM_X": "***"}),
        ({"HTTPS_PROXY": "http://u:p@h:1"}, {"HTTPS_PROXY": "***"}),
    ],
)  # fmt: skip
def test_only_harmless_values_of_relevant_variables_are_shown(
    environ: Mapping[str, str], shown: Mapping[str, str]
) -> None:
    assert shown_environment(environ) == shown
