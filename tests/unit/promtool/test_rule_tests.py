"""`test rules`: unit-test files of rules, run as promtool runs them."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.promtool import unittest
from exporter.promtool.testfile import RuleTestFileError, load_tests

RULES = """
groups:
- name: g
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
  - alert: Down
    expr: up == 0
    for: 2m
    labels: {severity: page}
    annotations: {summary: "{{ $labels.instance }} of {{ $externalLabels.box }} at {{ .ExternalURL }}"}
"""

TESTS = """
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
- name: down
  interval: 1m
  external_labels: {box: b1}
  external_url: http://box
  input_series:
  - {series: 'up{job="a", instance="x"}', values: '1 0x9'}
  - {series: 'up{job="a", instance="y"}', values: '1x10'}
  alert_rule_test:
  - {eval_time: 2m, alertname: Down, exp_alerts: []}
  - eval_time: 3m
    alertname: Down
    exp_alerts:
    - exp_labels: {job: a, instance: x, severity: page}
      exp_annotations: {summary: x of b1 at http://box}
  promql_expr_test:
  - expr: job:up:sum
    eval_time: 4m
    exp_samples: [{labels: 'job:up:sum{job="a"}', value: 1}]
  - expr: ALERTS{alertstate="pending"}
    eval_time: 1m
    exp_samples:
    - {labels: 'ALERTS{alertname="Down",alertstate="pending",instance="x",job="a",severity="page"}', value: 1}
  - {expr: 1 + 1, eval_time: 0, exp_samples: [{value: 2}]}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rules.yml").write_text(RULES)
    return tmp_path


def run(folder: Path, text: str, *flags: str) -> int:
    (folder / "t.test.yml").write_text(text)
    parser = argparse.ArgumentParser()
    unittest.add_arguments(parser)
    return unittest.main(parser.parse_args([str(folder / "t.test.yml"), *flags]))


def test_tests_that_hold_pass(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, TESTS) == 0
    assert capsys.readouterr().out == f"Unit Testing:  {folder}/t.test.yml\n  SUCCESS\n\n"


def test_an_alert_that_does_not_fire_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, TESTS.replace("eval_time: 3m", "eval_time: 2m30s")) == 1
    shown = capsys.readouterr()
    assert shown.out == f"Unit Testing:  {folder}/t.test.yml\n"
    labels = '{alertname="Down", instance="x", job="a", severity="page"}'
    assert shown.err == (
        "  FAILED:\n"
        "    name: down,\n"
        "    alertname: Down, time: 2m30s, \n"
        "        exp:[\n"
        "            0:\n"
        f"              Labels:{labels}\n"
        '              Annotations:{summary="x of b1 at http://box"}\n'
        "            ], \n"
        "        got:[]\n"
        "        difference:\n"
        f"            missing: {labels}\n\n"
    )


def test_a_wrong_value_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, TESTS.replace("value: 2}", "value: 3}")) == 1
    assert capsys.readouterr().err == (
        '  FAILED:\n    expr: "1 + 1", time: 0s,\n        exp: {} 3E+00\n        got: {} 2E+00\n'
        "        difference:\n            {}: expected 3.0, got 2.0\n\n"
    )


def test_a_rule_that_fails_ends_its_test(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rules.yml").write_text(RULES.replace("expr: up == 0", "expr: up == on() up"))
    assert run(folder, TESTS) == 1
    error = capsys.readouterr().err
    assert "    rule: Down, time: 0s, err: found duplicate series for the match group {}" in error
    assert error.count("err:") == 1


def test_an_expression_that_fails_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, TESTS.replace("1 + 1", "'up[5m]'")) == 1
    assert 'expr: "up[5m]", time: 0s, err: rule result is not a vector or scalar' in capsys.readouterr().err


def test_every_mistake_of_a_test_file_is_told_with_its_place(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TESTS.replace("'1x10'", "'1x'").replace("2m, alertname: Down", "2x")
    assert run(folder, text + "unknown: 1\n") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert lines == [
        "  FAILED:",
        f'{folder}/t.test.yml:11:51: values: expected a number, "stale", "_", or a+bxN, got \'1x\'',
        f"{folder}/t.test.yml:13:5: an item under alert_rule_test misses required attribute alertname",
        f'{folder}/t.test.yml:13:17: eval_time: not a valid duration string: "2x"',
        f'{folder}/t.test.yml:28:1: the file: unknown field "unknown"; known are evaluation_interval, fuzzy_compare,'
        " group_eval_order, rule_files, tests",
    ]


def test_mistakes_of_rule_files_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "rules.yml").write_text(RULES.replace("for:", "fro:"))
    assert run(folder, TESTS) == 1
    assert f'{folder}/rules.yml:9:5: group "g", rule 2: unknown field "fro"' in capsys.readouterr().err


def test_a_pattern_without_files_is_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, TESTS.replace("[rules.yml]", "[r*.yml, nothing*.yml]")) == 0
    assert capsys.readouterr().err == "  WARNING: no file match pattern nothing*.yml\n"


def test_a_rule_file_that_is_named_twice_counts_once(folder: Path) -> None:
    assert run(folder, TESTS.replace("[rules.yml]", "[rules.yml, r*.yml]")) == 0


def test_tests_are_chosen_by_name(folder: Path) -> None:
    text = TESTS.replace("value: 2}", "value: 3}")
    assert run(folder, text) == 1
    assert run(folder, text, "--run", "other") == 0
    assert run(folder, text, "--run", "other", "--run", "^do") == 1
    assert run(folder, text, "--run", "(") == 1


@pytest.mark.parametrize(("expected", "code"), [("0.3000002", 0), ("0.300001", 1), (".nan", 1)])
def test_fuzzy_comparison_takes_what_is_within_a_millionth(folder: Path, expected: str, code: int) -> None:
    text = f"""
fuzzy_compare: true
tests:
- input_series: [{{series: x, values: '0.1+0.1x2'}}, {{series: n, values: NaN}}]
  promql_expr_test:
  - {{expr: x, eval_time: 2m, exp_samples: [{{labels: x, value: {expected}}}]}}
  - {{expr: n, eval_time: 0, exp_samples: [{{labels: n, value: .nan}}]}}
"""
    assert run(folder, text) == code


def test_without_it_values_are_equal_and_nan_equals_nan(folder: Path) -> None:
    text = """
tests:
- input_series: [{series: x, values: '0.1+0.1x2'}, {series: n, values: NaN}]
  promql_expr_test:
  - {expr: x, eval_time: 2m, exp_samples: [{labels: x, value: VALUE}]}
  - {expr: n, eval_time: 0, exp_samples: [{labels: n, value: .nan}]}
"""
    assert run(folder, text.replace("VALUE", "0.30000000000000004")) == 0
    assert run(folder, text.replace("VALUE", "0.3")) == 1


def test_groups_are_evaluated_in_the_order_that_is_asked_for(folder: Path) -> None:
    (folder / "rules.yml").write_text(
        "groups:\n"
        "- {name: second, rules: [{record: b, expr: a}]}\n"
        "- {name: first, rules: [{record: a, expr: vector(time())}]}\n"
    )
    text = """
rule_files: [rules.yml]
group_eval_order: [ORDER]
tests:
- promql_expr_test:
  - {expr: b, eval_time: 1m, exp_samples: [{labels: b, value: VALUE}]}
"""
    assert run(folder, text.replace("ORDER", "first, second").replace("VALUE", "60")) == 0
    assert run(folder, text.replace("ORDER", "second, first").replace("VALUE", "0")) == 0
    assert run(folder, text.replace("ORDER", "first, first").replace("VALUE", "0")) == 1


def test_samples_come_into_being_as_time_goes_on(folder: Path) -> None:
    (folder / "rules.yml").write_text("groups: [{name: g, rules: [{record: future, expr: x offset -1m}]}]\n")
    assert (
        run(
            folder,
            """
rule_files: [rules.yml]
tests:
- input_series: [{series: x, values: '1 2 3 _ stale'}, {series: y, values: '1 _ 3'}]
  promql_expr_test:
  - {expr: future, eval_time: 2m, exp_samples: [{labels: future, value: 3}]}
  - {expr: future, eval_time: 1m, exp_samples: [{labels: future, value: 2}]}
  - {expr: timestamp(y), eval_time: 1m, exp_samples: [{value: 0}]}
  - {expr: x, eval_time: 3m, exp_samples: [{labels: x, value: 3}]}
  - {expr: x, eval_time: 4m, exp_samples: []}
  - {expr: y, eval_time: 6m59s, exp_samples: [{labels: y, value: 3}]}
  - {expr: y, eval_time: 7m, exp_samples: []}
""",
        )
        == 0
    )


def test_a_test_may_start_at_any_time(folder: Path) -> None:
    text = """
tests:
- start_timestamp: START
  input_series: [{series: x, values: '1 2'}]
  promql_expr_test:
  - {expr: time(), eval_time: 1m, exp_samples: [{value: 1704067260}]}
  - {expr: x, eval_time: 1m, exp_samples: [{labels: x, value: 2}]}
"""
    assert run(folder, text.replace("START", "2024-01-01T00:00:00Z")) == 0
    assert run(folder, text.replace("START", "1704067200")) == 0
    assert run(folder, text.replace("START", "yesterday")) == 1


def test_subqueries_step_with_the_evaluation_interval(folder: Path) -> None:
    text = """
evaluation_interval: 20s
tests:
- promql_expr_test:
  - {expr: 'count_over_time(vector(1)[2m:])', eval_time: 4m, exp_samples: [{value: 6}]}
"""
    assert run(folder, text) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tests: [{input_series: [{series: x, values: '{{schema:1}}'}]}]", "native histograms are not supported"),
        ("tests: [{promql_expr_test: [{exp_samples: [{histogram: '{{}}'}]}]}]", "native histograms are not supported"),
        ("evaluation_interval: 1ms\ntests: [{alert_rule_test: [{alertname: a, eval_time: 1y}]}]", "more than 500000 eval"),
        ("tests: [{input_series: [{series: '{}', values: 1}]}]", "has no labels, not even a name"),
        ("fuzzy_compare: 3", 'expected true or false, got "3"'),
        ("a: 1\n---\nb: 2", "more than one YAML document"),
        ("tests: 5", 'tests is "5", expected a list'),
        ("tests: &a [*a]", "test 1 is a list, expected a mapping"),
        ("[" * 100, "nested deeper than 32 levels"),
        ("\ud800", "not UTF-8"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_test_file_is_told(text: str, message: str) -> None:
    with pytest.raises(RuleTestFileError, match=message):
        load_tests(text, "file")


PIECES = st.sampled_from(
    (
        *TESTS.splitlines(keepends=True),
        "- ",
        "  ",
        "{",
        "}",
        "[",
        "*a",
        "&a ",
        "'",
        "<<: *a\n",
        "x: ",
        "|\n",
        "\0",
        "é",
    )
)


@settings(max_examples=200)
@given(st.lists(PIECES, max_size=30).map("".join))
def test_no_text_raises_anything_but_its_error(text: str) -> None:
    try:
        load_tests(text, "file")
    except RuleTestFileError as error:
        assert all(problem.startswith("file") for problem in error.problems)
