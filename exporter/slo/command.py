"""`vllm-exporter rules generate SPEC…`: the rule file that follows from specifications of objectives."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from exporter.alerting.rulefile import RuleFileError, load_rules
from exporter.errors import ConfigError
from exporter.slo.generate import generate
from exporter.slo.output import RuleGroup, as_yaml
from exporter.slo.spec import SpecError, load_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "specs",
        type=Path,
        nargs="+",
        metavar="SPEC",
        help="service level objectives in Sloth's prometheus/v1 form",
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="rule file to write; without it, to the terminal"
    )


def main(args: argparse.Namespace) -> int:
    """Write the rule file; ConfigError with the mistakes of every specification."""
    text = rule_file([(path.name, _read(path)) for path in args.specs])
    if args.output is None:
        sys.stdout.write(text)
    else:
        _replace(args.output, text)
    return 0


def rule_file(specs: Sequence[tuple[str, str]]) -> str:
    """The rule file for specifications, each with its file name and text; SpecError with every mistake in them."""
    groups: list[RuleGroup] = []
    problems: list[str] = []
    for file, text in specs:
        try:
            made = generate(load_spec(text, file))
        except SpecError as error:
            problems += error.problems
            continue
        known = {group.name for group in groups}
        problems += [f"{file}: group {group.name} is made twice" for group in made if group.name in known]
        groups += made
    if problems:
        raise SpecError(problems)
    names = " ".join(file for file, _ in specs)
    made_text = as_yaml(
        groups, (f"Made from {names} by `vllm-exporter rules generate`. Change that, not this.",)
    )
    try:
        load_rules(made_text, f"the rules made from {names}")  # a template in an annotation may be wrong
    except RuleFileError as error:
        raise SpecError(error.problems) from error
    return made_text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError([f"cannot read {path}: {error}"]) from error


def _replace(path: Path, text: str) -> None:
    """Write a file as a whole or not at all: a daemon may be reading it."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            file.write(text)
        Path(file.name).chmod(0o644 if not path.exists() else path.stat().st_mode & 0o777)
        os.replace(file.name, path)  # noqa: PTH105
    except OSError as error:
        raise ConfigError([f"cannot write {path}: {error}"]) from error
