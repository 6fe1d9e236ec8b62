"""Which rule files are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.alerting import files
from exporter.alerting.files import rule_files, shipped_folder


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
    assert rule_files((missing,), builtin=False) == ([], [f"rules.files: {missing} does not exist"])
