"""`vllm-exporter check rules FILE…`: whether rule files are valid, as `promtool check rules` says it.

Exit codes as there: 0 valid, 1 not, 3 rules are there twice and `--lint-fatal` was given.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.errors import ConfigError

if TYPE_CHECKING:
    from exporter.alerting.rulefile import Group

VALID, INVALID, LINT = 0, 1, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("files", nargs="*", metavar="FILE", help="rule files; - or none reads standard input")
    parser.add_argument(
        "--lint",
        choices=("all", "duplicate-rules", "none"),
        default="duplicate-rules",
        help="what to look for beyond mistakes (default duplicate-rules)",
    )
    parser.add_argument("--lint-fatal", action="store_true", help="exit with 3 when something was found so")
    parser.add_argument(
        "--ignore-unknown-fields", action="store_true", help="ignore fields that Prometheus does not know"
    )


def main(args: argparse.Namespace) -> int:
    """Check all files, and print how they are."""
    code = VALID
    for name in args.files or ["-"]:
        sys.stdout.write("Checking standard input\n" if name == "-" else f"Checking {name}\n")
        problems, duplicates, rules = _checked(name, ignore_unknown=args.ignore_unknown_fields)
        if args.lint == "none":
            duplicates = []
        sys.stdout.flush()
        if problems or duplicates:
            sys.stderr.write("  FAILED:\n" + "\n".join([*problems, *duplicates]) + "\n")
            sys.stderr.flush()
        else:
            sys.stdout.write(f"  SUCCESS: {rules} rules found\n")
        sys.stdout.write("\n")
        if problems:
            code = INVALID
        elif duplicates and args.lint_fatal and code == VALID:
            code = LINT
    return code


def _checked(name: str, *, ignore_unknown: bool) -> tuple[list[str], list[str], int]:
    """A file's mistakes, what to say of rules that are there twice, and how many rules it has; `-` is standard input."""
    from exporter.alerting.document import parse_document
    from exporter.alerting.rulefile import load_rules, read_rule_file

    try:
        text = _standard_input() if name == "-" else read_rule_file(Path(name))
        groups = load_rules(text, "<stdin>" if name == "-" else name, ignore_unknown=ignore_unknown)
    except ConfigError as error:
        return list(error.problems), [], 0
    if parse_document(text)[1]:
        sys.stderr.write("  WARNING: only the first YAML document of a rule file counts\n")
    return [], duplicate_rules(groups), sum(len(group.rules) for group in groups)


def _standard_input() -> str:
    from exporter.alerting.document import SIZE_LIMIT
    from exporter.alerting.rulefile import RuleFileError

    raw = sys.stdin.buffer.read(SIZE_LIMIT + 1)
    try:
        return raw.decode("utf-8-sig")
    except ValueError as error:
        raise RuleFileError([f"<stdin>: cannot be read: {error}"]) from error


def duplicate_rules(groups: Sequence[Group]) -> list[str]:
    """What to say of rules with the same name and labels; nothing when there are none."""
    counts = Counter(
        (rule.name, tuple(sorted(rule.labels.items()))) for group in groups for rule in group.rules
    )
    twice = sorted(key for key, count in counts.items() if count > 1)
    if not twice:
        return []
    lines = [f"lint error {len(twice)} duplicate rule(s) found."]
    for name, labels in twice:
        lines += [f"Metric: {name}", "Label(s):", *(f"\t{label}: {value}" for label, value in labels)]
    return ["\n".join([*lines, "Might cause inconsistency while recording expressions"])]
