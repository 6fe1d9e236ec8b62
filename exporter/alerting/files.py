"""Which rule files there are, those that ship with the program and what the settings name, and what is in them."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from exporter.alerting.rulefile import Group, RuleFileError, load_rules, read_rule_file
from exporter.errors import ConfigError

FILE_LIMIT = 1000
"""Most rule files: beyond, a pattern found something else than rules."""
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
        try:
            found = _matching(pattern)
            if len(files) + len(found) > FILE_LIMIT:
                problems.append(f"rules.files: with {pattern} there are more than {FILE_LIMIT} rule files")
                break
            for match in found:
                files.setdefault(Path(match).resolve(), RuleFile(Path(match), match))
        except (OSError, RuntimeError, ValueError) as error:
            problems.append(f"rules.files: {pattern}: {error}")
    return list(files.values()), problems


def _matching(pattern: str) -> list[str]:
    """What a pattern stands for, sorted; OSError, RuntimeError and ValueError for one that leads nowhere."""
    expanded = str(Path(pattern).expanduser())
    matches = sorted(islice(glob.iglob(expanded, recursive=True), FILE_LIMIT + 1))  # noqa: PTH207 - absolute patterns, too
    if not matches and not glob.has_magic(expanded):
        raise OSError("does not exist")
    return matches


def read_groups(patterns: Sequence[str], *, builtin: bool) -> tuple[list[Group], int]:
    """All groups of all files in order, and the number of files; ConfigError with every mistake in them.

    Blocks for as long as the file systems do.
    """
    files, problems = rule_files(patterns, builtin=builtin)
    groups: list[Group] = []
    for file in files:
        try:
            groups += load_rules(read_rule_file(file.path, regular=True), file.name)
        except RuleFileError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return groups, len(files)
