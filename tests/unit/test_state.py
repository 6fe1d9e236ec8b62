"""What outlives a restart of the daemon."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from exporter.errors import ConfigError
from exporter.state import DataDir, StateFile


def test_saved_parts_come_back(tmp_path: Path):
    StateFile(tmp_path / "state.json").save({"sli": {"模型": 1.5}})
    assert StateFile(tmp_path / "state.json").load() == {"sli": {"模型": 1.5}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 99, "parts": {}}',
        '{"version": 1}',
        '{"version": 1, "parts": 3}',
        "[" * 100_000,
    ],
)
def test_a_broken_file_is_set_aside_and_the_daemon_starts_afresh(tmp_path: Path, text: str):
    path = tmp_path / "state.json"
    path.write_text(text)
    assert StateFile(path).load() == {}
    assert not path.exists()
    assert (tmp_path / "state.broken").read_text() == text


def test_what_is_saved_is_for_this_user_alone(tmp_path: Path) -> None:
    (tmp_path / "state.new").write_text("of a daemon before")
    for parts in ({"n": 1}, {"n": 2}):
        StateFile(tmp_path / "state.json").save(parts)
        assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


def test_a_second_daemon_is_refused_the_same_folder_and_told_by_whom(tmp_path: Path):
    first = DataDir(tmp_path / "d")
    with pytest.raises(ConfigError, match=r"in use by another daemon \(pid \d+\)"):
        DataDir(tmp_path / "d")
    first.close()
    DataDir(tmp_path / "d").close()


def test_a_removed_folder_is_held_again(tmp_path: Path):
    held = DataDir(tmp_path / "d")
    held.check()
    shutil.rmtree(tmp_path / "d")
    held.check()
    with pytest.raises(ConfigError, match="in use"):
        DataDir(tmp_path / "d")
    shutil.rmtree(tmp_path / "d")
    other = DataDir(tmp_path / "d")
    with pytest.raises(OSError, match="pid"):
        held.check()
    other.close()
    held.close()


def test_saving_again_replaces_the_whole_and_leaves_no_half_written_file(tmp_path: Path):
    file = StateFile(tmp_path / "state.json")
    for number in range(3):
        file.save({"n": number})
        file.sync()
        assert StateFile(tmp_path / "state.json").load() == {"n": number}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.json"]


def test_a_folder_that_everybody_may_write_to_is_refused(tmp_path: Path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0o777)
    with pytest.raises(ConfigError, match="everybody may write"):
        DataDir(tmp_path / "d")


def test_a_folder_that_cannot_be_made_is_a_configuration_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--data-dir"):
        DataDir(tmp_path / "file" / "d")
