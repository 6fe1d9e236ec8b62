"""The record of an engine: written whole, read with suspicion, compared with what really runs."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from exporter.engine import adoption
from exporter.engine.adoption import EngineRecord, Found
from exporter.engine.process import boot_id, identify

ARGV = ("vllm", "serve", "M", "--api-key", "sesame")


@pytest.fixture
def engine() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield child
    child.kill()
    child.wait()


def record_for(pid: int) -> EngineRecord:
    identity = identify(pid)
    assert identity is not None
    return EngineRecord(
        pid=identity.pid,
        start_ticks=identity.start_ticks,
        boot_id=boot_id(),
        argv_hash=adoption.argv_hash(ARGV),
        base_url="http://127.0.0.1:8000",
        output="/nowhere/engine.log",
        output_offset=17,
        mark="EXPORTER_ENGINE_ID=x",
        started_at=1.5,
        generation=3,
        ready_since=2.5,
        restarts={"crashed": 2},
        members=((identity.pid, identity.start_ticks),),
    )


def test_a_record_comes_back_as_it_was_saved_and_holds_no_secret(tmp_path: Path) -> None:
    record = record_for(os.getpid())
    adoption.save(tmp_path, record)
    assert adoption.load(tmp_path) == record
    path = tmp_path / adoption.FILE_NAME
    assert "sesame" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == [adoption.FILE_NAME]
    adoption.forget(tmp_path)
    adoption.forget(tmp_path)
    assert adoption.load(tmp_path) is None


NONSENSE = ["", "{", "[]", "{}", "null", "5", '{"pid": 1}', "\xff", "[" * 20_000, '{"pid":' * 20_000]


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_a_record_that_makes_no_sense_is_set_aside_with_one_warning(tmp_path: Path, text: str) -> None:
    (tmp_path / adoption.FILE_NAME).write_bytes(text.encode("latin-1"))
    with structlog.testing.capture_logs() as logs:
        assert adoption.load(tmp_path) is None
        assert adoption.load(tmp_path) is None
    assert [entry["event"] for entry in logs] == ["engine_record_set_aside"]
    assert [path.name for path in tmp_path.iterdir()] == ["engine.broken"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pid", "one"),
        ("pid", 0),
        ("pid", True),
        ("pid", 10**30),
        ("start_ticks", 1.5),
        ("boot_id", None),
        ("output", "a\0b"),
        ("output_offset", -1),
        ("mark", 5),
        ("mark", "EXPORTER=x\0y"),
        ("started_at", float("inf")),
        ("ready_since", "now"),
        ("generation", "3"),
        ("restarts", 5),
        ("restarts", {"hang": "x"}),
        ("restarts", {"hang": -1}),
        ("members", 7),
        ("members", [[1]]),
        ("members", [["1", 2]]),
    ],
)
def test_a_record_with_one_wrong_field_is_set_aside(tmp_path: Path, name: str, value: object) -> None:
    adoption.save(tmp_path, record_for(os.getpid()))
    path = tmp_path / adoption.FILE_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with structlog.testing.capture_logs() as logs:
        assert adoption.load(tmp_path) is None
    (told,) = logs
    assert told["event"] == "engine_record_set_aside"
    assert told["field"].startswith(name) or name == "started_at"
    assert not path.exists()


def test_a_record_of_a_later_version_with_more_fields_still_counts(tmp_path: Path) -> None:
    adoption.save(tmp_path, record_for(os.getpid()))
    path = tmp_path / adoption.FILE_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "novelty": [1]}))
    assert adoption.load(tmp_path) == record_for(os.getpid())


def test_a_record_that_cannot_be_removed_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, **_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    adoption.save(tmp_path, record_for(os.getpid()))
    monkeypatch.setattr(Path, "unlink", read_only)
    with structlog.testing.capture_logs() as logs:
        adoption.forget(tmp_path)
    assert [entry["event"] for entry in logs] == ["engine_record_not_removed"]


def test_a_running_engine_is_known_again(engine: subprocess.Popen[bytes]) -> None:
    assert adoption.examine(record_for(engine.pid), ARGV) is Found.RUNNING


def test_another_command_is_told_apart(engine: subprocess.Popen[bytes]) -> None:
    assert adoption.examine(record_for(engine.pid), (*ARGV, "--port", "1")) is Found.OTHER_COMMAND


def test_an_engine_on_a_port_of_the_daemons_choice_needs_a_gateway_before_it(
    engine: subprocess.Popen[bytes],
) -> None:
    record = replace(record_for(engine.pid), moved=True, base_url="http://127.0.0.1:45678")
    assert adoption.examine(record, ARGV, behind_gateway=True) is Found.RUNNING
    assert adoption.examine(record, ARGV) is Found.OUT_OF_REACH
    assert adoption.examine(record, ("other",)) is Found.OTHER_COMMAND
    assert adoption.examine(record_for(engine.pid), ARGV, behind_gateway=True) is Found.RUNNING


def test_where_an_engine_was_kept_is_known_before_it_is_adopted(
    engine: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    record = record_for(engine.pid)
    assert adoption.kept_at(tmp_path, ARGV) is None
    adoption.save(tmp_path, record)
    assert adoption.kept_at(tmp_path, ARGV) == "http://127.0.0.1:8000"
    assert adoption.kept_at(tmp_path, ("other",)) is None
    adoption.save(tmp_path, replace(record, moved=True))
    assert adoption.kept_at(tmp_path, ARGV) is None
    adoption.save(tmp_path, replace(record, kept=False))
    assert adoption.kept_at(tmp_path, ARGV) is None
    adoption.save(tmp_path, replace(record, boot_id="another"))
    assert adoption.kept_at(tmp_path, ARGV) is None


def test_a_recorded_engines_processes_are_told_from_strangers(engine: subprocess.Popen[bytes]) -> None:
    record = record_for(engine.pid)
    stranger = identify(os.getpid())
    assert stranger is not None
    assert adoption.is_of(record, record.id)
    assert not adoption.is_of(record, stranger)
    assert not adoption.is_of(replace(record, boot_id="another"), record.id)


def test_a_pid_used_again_another_boot_and_a_dead_engine_are_not_the_engine(
    engine: subprocess.Popen[bytes],
) -> None:
    record = record_for(engine.pid)
    reused = replace(
        record, start_ticks=record.start_ticks - 1, members=((engine.pid, record.start_ticks - 1),)
    )
    assert adoption.examine(reused, ARGV) is Found.GONE
    assert adoption.examine(replace(record, boot_id="another"), ARGV) is Found.GONE
    engine.kill()
    engine.wait()
    assert adoption.examine(record, ARGV) is Found.GONE


def test_processes_that_outlived_their_root_are_found(engine: subprocess.Popen[bytes]) -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as root:
        dead = identify(root.pid)
        root.kill()
    assert dead is not None
    orphaned = replace(record_for(engine.pid), pid=dead.pid, start_ticks=dead.start_ticks)
    assert adoption.examine(orphaned, ARGV) is Found.REMAINS
    assert {m.pid for m in adoption.remains(orphaned).refresh(full=True)} == {engine.pid}


def test_an_adopted_engine_has_no_exit_code_and_knows_its_processes(
    engine: subprocess.Popen[bytes],
) -> None:
    process = adoption.adopt(record_for(engine.pid), keep=True, kill_timeout=1.0)
    assert process.popen is None
    assert process.output_offset == 17
    assert engine.pid in {m.pid for m in process.tree().refresh()}
    again = adoption.record_of(process, argv=ARGV, base_url="u", output_offset=20, members=process.recorded)
    assert again.id == process.id
    assert again.output_offset == 20
    process.release()
