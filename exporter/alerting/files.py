"""Which rule files there are, those that ship with the program and what the settings name, and what is in them."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from exporter.alerting.rulefile import Group, RuleFileError, load_rules, read_rule_file
from exporter.errors import ConfigError

SHIPPED_PATTERN = "*.rules.yml"
SHIPPED_NAME = "rules"
"""What a shipped file's folder is called, wherever it is installed."""


class RuleFile(NamedTuple):
    """A rule file, and what it is called in the API and in labels."""

    path: Path
    name: str


def shipped_folder() -> Path | None:
    """Where the shipped rules lie: package data of a wheel, or beside the package in a checkout; None: nowhere."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_rules", package.parent / "rules"):
        if folder.is_dir():
            return folder
    return None


def rule_files(patterns: Sequence[str], *, builtin: bool) -> tuple[list[RuleFile], list[str]]:
    """All rule files in order, each once, and what is wrong with the patterns.

    A pattern may match nothing, as in Prometheus; a plain path that does not exist is a mistake.
    """
    files: dict[Path, RuleFile] = {}
    problems: list[str] = []
    if builtin:
        folder = shipped_folder()
        if folder is None:
            problems.append("the shipped rule files are missing: reinstall, or set rules.builtin = false")
        else:
            for path in sorted(folder.glob(SHIPPED_PATTERN)):
                files.setdefault(path.resolve(), RuleFile(path, f"{SHIPPED_NAME}/{path.name}"))
    for pattern in patterns:
        expanded = str(Path(pattern).expanduser())
        matches = sorted(glob.glob(expanded, recursive=True))  # noqa: PTH207 - absolute patterns, too
        if not matches and not glob.has_magic(expanded):
            problems.append(f"rules.files: {pattern} does not exist")
        for match in matches:
            files.setdefault(Path(match).resolve(), RuleFile(Path(match), match))
    return list(files.values()), problems


def read_groups(patterns: Sequence[str], *, builtin: bool) -> tuple[list[Group], int]:
    """All groups of all files in order, and the number of files; ConfigError with every mistake in them."""
    files, problems = rule_files(patterns, builtin=builtin)
    groups: list[Group] = []
    for file in files:
        try:
            groups += load_rules(read_rule_file(file.path), file.name)
        except RuleFileError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return groups, len(files)
