"""`check rules`: what it prints, and how it exits."""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.promtool import check

GOOD = "groups: [{name: g, rules: [{record: a, expr: b}, {alert: C, expr: d > 1}]}]\n"
TWICE = "groups: [{name: g, labels: {x: y}, rules: [{record: a, expr: b}, {record: a, expr: c}]}]\n"
BAD = "groups:\n- name: g\n  rules:\n  - alert: A\n    expr: sum(\n    for: 5x\n"


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    return check.main(parser.parse_args(list(arguments)))


def written(folder: Path, text: str, name: str = "r.yml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_valid_rules_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = written(tmp_path, GOOD), written(tmp_path, "", "empty.yml")
    assert run(one, other) == 0
    shown = capsys.readouterr()
    assert (
        shown.out
        == f"Checking {one}\n  SUCCESS: 2 rules found\n\nChecking {other}\n  SUCCESS: 0 rules found\n\n"
    )
    assert shown.err == ""


def test_every_mistake_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, good = written(tmp_path, BAD), written(tmp_path, GOOD, "good.yml")
    assert run(bad, good) == 1
    shown = capsys.readouterr()
    assert shown.out == f"Checking {bad}\n\nChecking {good}\n  SUCCESS: 2 rules found\n\n"
    lines = shown.err.splitlines()
    assert lines[0] == "  FAILED:"
    assert lines[1].startswith(f'{bad}:5:11: group "g", rule 1, "A": could not parse expression: 1:')
    assert lines[2] == f'{bad}:6:10: group "g", rule 1, "A": for: not a valid duration string: "5x"'
    assert len(lines) == 3


def test_a_file_that_is_not_there_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "none.yml")) == 1
    assert "cannot be read: " in capsys.readouterr().err


def test_rules_that_are_there_twice_are_told_and_matter_where_that_is_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = written(tmp_path, TWICE)
    assert run(name) == 0
    assert capsys.readouterr().err == (
        "  FAILED:\nlint error 1 duplicate rule(s) found.\nMetric: a\nLabel(s):\n\tx: y\n"
        "Might cause inconsistency while recording expressions\n"
    )
    assert run(name, "--lint-fatal") == 3
    assert run("--lint-fatal", name, written(tmp_path, BAD, "bad.yml")) == 1
    assert run(name, "--lint", "none", "--lint-fatal") == 0


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_standard_input_is_read(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert run(*arguments) == 0
    assert capsys.readouterr().out == "Checking standard input\n  SUCCESS: 2 rules found\n\n"


def test_standard_input_that_is_no_text_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    assert run("-") == 1
    assert "<stdin>: cannot be read: " in capsys.readouterr().err


def test_unknown_fields_may_be_ignored(tmp_path: Path) -> None:
    name = written(tmp_path, GOOD.replace("name: g", "name: g, extra: 1"))
    assert run(name) == 1
    assert run(name, "--ignore-unknown-fields") == 0


def test_a_second_document_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(written(tmp_path, GOOD + "---\n" + GOOD)) == 0
    shown = capsys.readouterr()
    assert "SUCCESS: 2 rules found" in shown.out
    assert shown.err == "  WARNING: only the first YAML document of a rule file counts\n"


def test_the_commands_cost_nothing_before_they_run() -> None:
    script = (
        "import sys, exporter.promtool.check, exporter.promtool.unittest; "
        "print([name for name in ('numpy', 'yaml', 're2', 'promql_parser') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
