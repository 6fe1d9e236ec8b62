"""Which rule files are found."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from exporter.alerting import files
from exporter.alerting.files import FILE_LIMIT, read_groups, rule_files, shipped_folder
from exporter.errors import ConfigError


def test_shipped_files_are_found_beside_the_package_and_only_rule_files_are_taken() -> None:
    found, problems = rule_files((), builtin=True)
    assert not problems
    assert found
    assert all(file.path.name.endswith(".rules.yml") and file.name.startswith("rules/") for file in found)
    assert not any("test" in file.path.name for file in found)


def test_a_wheel_has_them_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "exporter"
    (package / "alerting").mkdir(parents=True)
    (package / "_rules").mkdir()
    (tmp_path / "rules").mkdir()
    monkeypatch.setattr(files, "__file__", str(package / "alerting" / "files.py"))
    assert shipped_folder() == package / "_rules"
    (package / "_rules").rmdir()
    assert shipped_folder() == tmp_path / "rules"
    (tmp_path / "rules").rmdir()
    assert shipped_folder() is None
    assert rule_files((), builtin=True) == (
        [],
        ["the shipped rule files are missing: reinstall, or set rules.builtin = false"],
    )


def test_patterns_are_expanded_and_each_file_is_taken_once(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yml", "c.txt"):
        (tmp_path / name).write_text("groups: []\n")
    (tmp_path / "link.yml").symlink_to(tmp_path / "a.yml")
    found, problems = rule_files(
        (str(tmp_path / "*.yml"), str(tmp_path / "b.yml"), str(tmp_path / "none-*.yml")), builtin=False
    )
    assert [file.path.name for file in found] == ["a.yml", "b.yml"]
    assert [file.name for file in found] == [str(tmp_path / "a.yml"), str(tmp_path / "b.yml")]
    assert not problems


def test_a_plain_path_that_does_not_exist_is_a_mistake(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.yml")
    assert rule_files((missing,), builtin=False) == ([], [f"rules.files: {missing}: does not exist"])


def test_only_regular_files_are_read_and_the_rest_is_told_of(tmp_path: Path) -> None:
    """A pipe among the rule files held up the daemon for ever: whoever opens one waits for who writes into it."""
    os.mkfifo(tmp_path / "pipe.yml")
    (tmp_path / "folder.yml").mkdir()
    (tmp_path / "zero.yml").symlink_to("/dev/zero")
    (tmp_path / "loop.yml").symlink_to("loop.yml")
    (tmp_path / "good.yml").write_text("groups: []\n")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path)  # the path of a socket is short
        try:
            listener.bind("socket.yml")
        finally:
            os.chdir(here)
        with pytest.raises(ConfigError) as caught:
            read_groups([str(tmp_path / f"{name}*.yml") for name in "pfzls"], builtin=False)
    told = {
        name: problem
        for name in ("pipe", "folder", "zero", "loop", "socket")
        for problem in caught.value.problems
        if f"{name}.yml" in problem or (name == "loop" and "l*" in problem)
    }
    assert len(caught.value.problems) == len(told) == 5
    assert told["pipe"].endswith("it is a pipe, and no file")
    assert told["folder"].endswith("it is a folder, and no file")
    assert told["zero"].endswith("it is a device, and no file")
    assert told["socket"].endswith("it is a socket, and no file")


def test_a_user_that_is_not_known_is_a_mistake(tmp_path: Path) -> None:
    found, problems = rule_files(("~nobody-of-that-name/*.yml",), builtin=False)
    assert not found
    assert problems[0].startswith("rules.files: ~nobody-of-that-name/*.yml: ")


def test_a_pattern_that_finds_a_whole_disk_is_a_mistake(tmp_path: Path) -> None:
    for number in range(FILE_LIMIT + 1):
        (tmp_path / f"{number}.yml").touch()
    _, problems = rule_files((str(tmp_path / "*"),), builtin=False)
    assert problems == [f"rules.files: with {tmp_path}/* there are more than 1000 rule files"]
