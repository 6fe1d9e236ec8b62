"""`vllm-exporter test rules FILE…`: unit tests of rules, as `promtool test rules` runs them.

Exit codes as there: 0 all tests pass, 1 some do not.
"""

from __future__ import annotations

import argparse
import glob
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import ConfigError

if TYPE_CHECKING:
    from exporter.alerting.rulefile import Group

PASSED, FAILED = 0, 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="unit-test files")
    parser.add_argument(
        "--run",
        action="append",
        metavar="REGEX",
        help="only tests whose names match; may be repeated",
    )
    parser.add_argument(
        "--ignore-unknown-fields",
        action="store_true",
        help="ignore fields that are not known in rule and test files",
    )


def main(args: argparse.Namespace) -> int:
    """Run the tests of all files, and print how they went."""
    try:
        chosen = re.compile("|".join(args.run)).search if args.run else None
    except re.error as error:
        sys.stderr.write(f"vllm-exporter: --run: {error}\n")
        return FAILED
    failed = False
    for name in args.files:
        sys.stdout.write(f"Unit Testing:  {name}\n")
        failures = failures_of(Path(name), chosen=chosen, ignore_unknown=args.ignore_unknown_fields)
        sys.stdout.flush()
        if failures:
            failed = True
            sys.stderr.write("  FAILED:\n" + "\n\n".join(failures) + "\n\n")
            sys.stderr.flush()
        else:
            sys.stdout.write("  SUCCESS\n\n")
    return FAILED if failed else PASSED


def failures_of(
    path: Path,
    *,
    chosen: Callable[[str], object] | None = None,
    ignore_unknown: bool = False,
) -> list[str]:
    """What fails in one file; `chosen` picks tests by their names."""
    from exporter.promtool.runner import run_test
    from exporter.promtool.testfile import read_test_file

    try:
        file = read_test_file(path, ignore_unknown=ignore_unknown)
        tests = [test for test in file.tests if chosen is None or chosen(test.name)]
        groups = _groups(path, file.rule_files, ignore_unknown=ignore_unknown) if tests else []
    except ConfigError as error:
        return list(error.problems)
    return [failure for test in tests for failure in run_test(file, test, groups)]


def _groups(path: Path, patterns: Sequence[str], *, ignore_unknown: bool) -> list[Group]:
    """The groups of all rule files that a test file names, relative to itself; a file that is named twice counts once."""
    from exporter.alerting.rulefile import load_rules, read_rule_file

    files: dict[str, tuple[Group, ...]] = {}
    for pattern in patterns:
        where = str(path.parent / pattern)
        found = sorted(glob.glob(where, include_hidden=True)) if "\0" not in where else []  # noqa: PTH207  may be absolute
        if not found:
            sys.stderr.write(f"  WARNING: no file match pattern {pattern}\n")
        for name in found:
            if name not in files:
                files[name] = load_rules(read_rule_file(Path(name)), name, ignore_unknown=ignore_unknown)
    return [group for groups in files.values() for group in groups]
