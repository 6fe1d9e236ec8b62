"""`check rules` and `test rules` beside the real promtool: the same files, the same verdict, the same texts.

Debian's promtool is 2.42: windows are closed on the left there, names are ASCII, and there is no `fuzzy_compare`; what is
asked here is the same in all versions.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from exporter.alerting.template.literals import unquote
from exporter.promtool import check, unittest

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")

TEMPLATES = yaml.safe_load(
    (Path(__file__).parents[1] / "unit" / "alerting" / "templates.yml").read_text(encoding="utf-8")
)


def theirs(*command: str) -> tuple[int, str]:
    done = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def our_check(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    return check.main(parser.parse_args(arguments))


def our_test(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    unittest.add_arguments(parser)
    return unittest.main(parser.parse_args(arguments))


# --- check rules

ALERT = "groups: [{name: g, rules: [{alert: A, expr: up, %s}]}]"
RECORD = "groups: [{name: g, rules: [{record: a, expr: up, %s}]}]"
RULE_FILES = [
    "",
    "groups:",
    "groups: []",
    "groups: 5",
    "groups: {}",
    "[]",
    "a: 1",
    "groups: [{name: g}",
    "groups: [{name: ''}]",
    "groups: [{rules: []}]",
    "groups: [{name: g}, {name: g}]",
    "groups: [{name: g, name: h}]",
    "groups: [{name: 5, interval: 0, limit: 3}]",
    "groups: [{name: g, interval: 5}]",
    "groups: [{name: g, interval: 1m30s}]",
    "groups: [{name: g, interval: ''}]",
    "groups: [{name: g, interval: null, limit: null, rules: null}]",
    "groups: [{name: g, limit: x}]",
    "groups: [{name: g, limit: -1}]",
    "groups: [{name: g, more: x}]",
    "groups: [{name: g, rules: {}}]",
    "groups: [{name: g, rules: [5]}]",
    "groups: [{name: g, rules: [null]}]",
    "groups: [{name: g, rules: [{expr: up}]}]",
    "groups: [{name: g, rules: [{alert: A}]}]",
    "groups: [{name: g, rules: [{alert: A, expr: ''}]}]",
    "groups: [{name: g, rules: [{alert: A, record: b, expr: up}]}]",
    "groups: [{name: g, rules: [{alert: A, expr: 'sum('}]}]",
    "groups: [{name: g, rules: [{alert: A, expr: 1}]}]",
    "groups: [{name: g, rules: [{alert: yes, expr: 1, labels: {a: 1.50, b: on, c: null}}]}]",
    "groups: [{name: g, rules: [{record: 'a{}', expr: up}]}]",
    "groups: [{name: g, rules: [{record: 'a b', expr: up, annotations: {x: y}}]}]",
    "groups: [{name: g, rules: [&r {alert: A, expr: up}, *r, {<<: *r, for: 1m}]}]",
    "groups: [{name: g, rules: [{record: a, expr: b}, {record: a, expr: c}]}]",
    ALERT % "for: 5m, keep_firing_for: 1h, labels: {a: b}, annotations: {c: d}",
    ALERT % "for: 5",
    ALERT % "for: 5x",
    ALERT % "for: -5m",
    ALERT % "for: 0",
    ALERT % "forr: 5m",
    ALERT % "labels: []",
    ALERT % "labels: {__name__: x}",
    ALERT % "labels: {'': x}",
    ALERT % "labels: {alertname: x}",
    ALERT % "annotations: {'': x}",
    ALERT % "annotations: {a: [b]}",
    ALERT % "annotations: {a: '{{ $value'}",
    ALERT % "annotations: {a: '{{ nope }}'}",
    ALERT % "labels: {a: '{{ $nope }}'}",
    ALERT % "annotations: {a: '{{ with query \"up\" }}{{ . | first | value }}{{ end }}'}",
    RECORD % "labels: {a: '{{ nope }}'}",
    RECORD % "for: 5m",
    RECORD % "for: 0s",
    RECORD % "keep_firing_for: 5m",
    RECORD % "annotations: {}",
    RECORD % "annotations: {a: b}",
]  # fmt: skip


@pytest.mark.parametrize("text", RULE_FILES)
def test_promtool_takes_and_refuses_the_same_rule_files(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_text(text + "\n")
    expected, shown = theirs("check", "rules", str(path))
    assert our_check(str(path)) == expected, shown


def test_rules_that_are_there_twice_exit_as_promtool_does(tmp_path: Path) -> None:
    path = tmp_path / "r.yml"
    path.write_text("groups: [{name: g, rules: [{record: a, expr: b}, {record: a, expr: c}]}]\n")
    for flags in ((), ("--lint=none", "--lint-fatal"), ("--lint-fatal",), ("--lint=all", "--lint-fatal")):
        expected, shown = theirs("check", "rules", *flags, str(path))
        assert our_check(*flags, str(path)) == expected, (flags, shown)


# --- templates

STATEMENTS = ("{%s}", "{- %s -}", "{ if %s }}yes{{ else }}no{{ end }", "{ with %s }}{{ . }}{{ end }")
WORDS = [
    "$value",
    "$labels",
    ".Labels",
    ".Labels.foo",
    "$labels.none",
    ".Value",
    ".",
    "1",
    "2",
    "0",
    "-3",
    "1.5",
    "1e9",
    "0.001",
    "true",
    "'c'",
    "0x1f",
    '"a"',
    '"a.b:90"',
    '"1h"',
    '"%v"',
    '"%5.1f|"',
    '"%d',
    '%s"',
    '"%-8v|"',
    '"%q"',
    '"%+.2e"',
    '"%x"',
    '"%08.3f"',
    "(args.one)",
]
FUNCTIONS = [
    "print",
    "printf",
    "println",
    "len",
    "index",
    "not",
    "and",
    "or",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "html",
    "urlquery",
    "humanize",
    "humanize1024",
    "humanizeDuration",
    "humanizePercentage",
    "humanizeTimestamp",
    "parseDuration",
    "toUpper",
    "toLower",
    "stripPort",
    "stripDomain",
    "reReplaceAll",
    "slice",
]


def random_template(rng: random.Random) -> str:
    def operand(depth: int) -> str:
        if depth < 2 and rng.random() < 0.2:
            return f"({pipeline(depth + 1)})"
        return rng.choice(WORDS[:-1])

    def command(depth: int) -> str:
        if rng.random() < 0.3:
            return operand(depth)
        return " ".join((rng.choice(FUNCTIONS), *(operand(depth) for _ in range(rng.randint(0, 3)))))

    def pipeline(depth: int) -> str:
        commands = [command(depth)]
        while rng.random() < 0.3:
            commands.append(
                " ".join((rng.choice(FUNCTIONS), *(operand(depth) for _ in range(rng.randint(0, 1)))))
            )
        return " | ".join(commands)

    return " x ".join(
        "{" + rng.choice(STATEMENTS) % f" {pipeline(0)} " + "}" for _ in range(rng.randint(1, 2))
    )


def told_by_promtool(templates: list[str], folder: Path) -> list[str]:
    """What promtool makes of templates as annotations of an alert that it shows because none was expected."""
    annotations = {f"a{number:04}": text for number, text in enumerate(templates)}
    alert = {
        "alert": "A",
        "expr": 'label_replace(vector(1234.5678), "foo", "bar baz", "", "")',
        "annotations": annotations,
    }
    (folder / "r.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [alert]}]}))
    test = {
        "interval": "1m",
        "external_labels": {"box": "b1"},
        "input_series": [
            {"series": 'up{instance="a.b.c:90"}', "values": "1 1"},
            {"series": 'up{instance="c"}', "values": "3 3"},
        ],
        "alert_rule_test": [{"eval_time": "1m", "alertname": "A", "exp_alerts": []}],
    }
    (folder / "t.yml").write_text(yaml.safe_dump({"rule_files": ["r.yml"], "tests": [test]}))
    _, shown = theirs("test", "rules", str(folder / "t.yml"))
    found = re.search(r"^ *Annotations:\{(.*)\}$", shown, re.MULTILINE)
    assert found, shown
    texts = dict(re.findall(r'(a\d+)=("(?:[^"\\]|\\.)*")', found[1]))
    return [unquote(texts[name]) if name in texts else "" for name in annotations]


def test_promtool_makes_the_same_of_templates(tmp_path: Path) -> None:
    cases = [case for case in TEMPLATES if "only" not in case]
    assert len(cases) > 100
    assert told_by_promtool([case["template"] for case in cases], tmp_path) == [
        case["text"] for case in cases
    ]


def test_promtool_makes_the_same_of_random_templates(tmp_path: Path) -> None:
    from exporter.alerting.template import Template, TemplateError

    rng = random.Random(20261121)
    templates: list[str] = []
    while len(templates) < 300:
        text = random_template(rng)
        try:
            Template(text)
        except TemplateError:
            continue
        templates.append(text)
    ours = [
        Template(text).expand(
            labels={"foo": "bar baz"}, external_labels={"box": "b1"}, external_url="", value=1234.5678, query=lambda _: [], name="__alert_A"
        )
        for text in templates
    ]  # fmt: skip
    different = [
        (text, expected, got)
        for text, expected, got in zip(templates, told_by_promtool(templates, tmp_path), ours, strict=True)
        # How Go names a struct, what it says of regular expressions, and its crashes are its own.
        if got != expected.replace("Value float64", "Value interface {}")
        and not re.search("regexp|reflect|runtime error|non-comparable", expected)
    ]
    assert not different


# --- test rules

RULES = """
groups:
- name: g
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
  - alert: Down
    expr: up == 0
    for: 2m
    labels: {severity: page, where: "{{ $labels.instance | toUpper }}"}
    annotations: {summary: "{{ $labels.instance }} of {{ $externalLabels.box }}, {{ printf \\"%.1f\\" $value }}"}
  - alert: Always
    expr: vector(1)
  - record: chained
    expr: job:up:sum * 2
- name: h
  rules:
  - alert: Pending
    expr: ALERTS{alertstate="pending"}
"""

SERIES = """
rule_files: [r*.yml]
tests:
- name: t
  interval: 1m
  external_labels: {box: b1}
  input_series:
  - {series: 'up{job="a", instance="x"}', values: '1 0x9'}
  - {series: 'up{job="a", instance="y"}', values: '1x3 _ _ stale'}
  - {series: 'n', values: '0+1.5x10'}
  - {series: 'odd', values: 'Inf -Inf 1e3 .5 08 010'}
"""
ASKED = [
    "alert_rule_test: [{eval_time: 2m, alertname: Down, exp_alerts: []}]",
    "alert_rule_test: [{eval_time: 2m, alertname: Down}]",
    "alert_rule_test: [{eval_time: 3m, alertname: Down, exp_alerts: []}]",
    "alert_rule_test: [{eval_time: 3m30s, alertname: Down, exp_alerts: [{exp_labels: {job: a, instance: x, severity: page, where: X}, exp_annotations: {summary: 'x of b1, 0.0'}}]}]",
    "alert_rule_test: [{eval_time: 3m, alertname: Down, exp_alerts: [{exp_labels: {job: a, instance: x, severity: page, where: X}, exp_annotations: {summary: 'x of b1, 0'}}]}]",
    "alert_rule_test: [{eval_time: 3m, alertname: Down, exp_alerts: [{exp_labels: {job: a, instance: x, severity: page, where: X}}]}]",
    "alert_rule_test: [{eval_time: 3m, alertname: Down, exp_alerts: [{exp_labels: {alertname: Else, job: a, instance: x, severity: page, where: X, none: ''}, exp_annotations: {summary: 'x of b1, 0.0'}}]}]",
    "alert_rule_test: [{eval_time: 0, alertname: Always, exp_alerts: [{}]}]",
    "alert_rule_test: [{eval_time: 0, alertname: Always, exp_alerts: [{}, {}]}]",
    "alert_rule_test: [{eval_time: 0, alertname: Nobody, exp_alerts: []}]",
    "alert_rule_test: [{eval_time: 0, alertname: Nobody, exp_alerts: [{}]}]",
    "alert_rule_test: [{eval_time: 0, exp_alerts: []}]",
    "alert_rule_test: [{eval_time: x, alertname: Down}]",
    "alert_rule_test: [{eval_time: 1m, alertname: Down, more: 1}]",
    "promql_expr_test: [{expr: job:up:sum, eval_time: 4m, exp_samples: [{labels: 'job:up:sum{job=\"a\"}', value: 1}]}]",
    "promql_expr_test: [{expr: job:up:sum, eval_time: 4m, exp_samples: [{labels: 'job:up:sum{job=\"b\"}', value: 1}]}]",
    "promql_expr_test: [{expr: job:up:sum, eval_time: 4m, exp_samples: [{labels: 'job:up:sum{job=\"a\"}', value: 1.0000001}]}]",
    "promql_expr_test: [{expr: job:up:sum, eval_time: 4m, exp_samples: []}]",
    "promql_expr_test: [{expr: chained, eval_time: 4m, exp_samples: [{labels: 'chained{job=\"a\"}', value: 2}]}]",
    "promql_expr_test: [{expr: 1 + 1, eval_time: 0, exp_samples: [{value: 2}]}]",
    "promql_expr_test: [{expr: 1 + 1, eval_time: 0, exp_samples: [{labels: '{}', value: 2}]}]",
    "promql_expr_test: [{expr: '\"a\"', eval_time: 0}]",
    "promql_expr_test: [{expr: 'n[5m]', eval_time: 0}]",
    "promql_expr_test: [{expr: 'sum(', eval_time: 0}]",
    "promql_expr_test: [{expr: none, eval_time: 1m}]",
    "promql_expr_test: [{expr: 'up{instance=\"y\"}', eval_time: 5m59s, exp_samples: [{labels: 'up{instance=\"y\",job=\"a\"}', value: 1}]}]",
    "promql_expr_test: [{expr: 'up{instance=\"y\"}', eval_time: 6m, exp_samples: []}]",
    "promql_expr_test: [{expr: n, eval_time: 7m30s, exp_samples: [{labels: n, value: 10.5}]}]",
    "promql_expr_test: [{expr: n, eval_time: 7m30s, exp_samples: [{labels: n, value: 12}]}]",
    "promql_expr_test: [{expr: n offset -2m, eval_time: 3m30s, exp_samples: [{labels: n, value: 4.5}]}]",
    "promql_expr_test: [{expr: timestamp(n), eval_time: 1h, exp_samples: []}]",
    "promql_expr_test: [{expr: odd, eval_time: 0, exp_samples: [{labels: odd, value: +Inf}]}]",
    "promql_expr_test: [{expr: odd, eval_time: 1m, exp_samples: [{labels: odd, value: -.inf}]}]",
    "promql_expr_test: [{expr: odd, eval_time: 2m, exp_samples: [{labels: odd, value: 1e3}]}]",
    "promql_expr_test: [{expr: odd, eval_time: 4m, exp_samples: [{labels: odd, value: 8}]}]",
    "promql_expr_test: [{expr: odd, eval_time: 5m, exp_samples: [{labels: odd, value: 8}]}]",
    "promql_expr_test: [{expr: 'count by (alertname, alertstate) (ALERTS)', eval_time: 2m, exp_samples: [{labels: '{alertname=\"Down\",alertstate=\"pending\"}', value: 1}, {labels: '{alertname=\"Always\",alertstate=\"firing\"}', value: 1}, {labels: '{alertname=\"Pending\",alertstate=\"firing\"}', value: 1}]}]",
    "promql_expr_test: [{expr: 'ALERTS_FOR_STATE{alertname=\"Down\"}', eval_time: 4m, exp_samples: [{labels: 'ALERTS_FOR_STATE{alertname=\"Down\",instance=\"x\",job=\"a\",severity=\"page\",where=\"X\"}', value: 60}]}]",
    "promql_expr_test: [{expr: n, eval_time: 0, exp_samples: [{labels: 'n{', value: 0}]}]",
]  # fmt: skip


def agree(folder: Path, text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """The exit code of both; and what they say without our own lines of differences."""
    (folder / "t.yml").write_text(text)
    code, shown = theirs("test", "rules", str(folder / "t.yml"))
    assert our_test(str(folder / "t.yml")) == code, shown
    return code, shown, capsys.readouterr().err


@pytest.mark.parametrize("asked", ASKED)
def test_promtool_gives_the_same_verdict(
    asked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yml").write_text(RULES)
    code, theirs_said, ours_said = agree(tmp_path, f"{SERIES}  {asked}\n", capsys)
    if code and "exp:" in theirs_said:
        told = [line.strip() for line in theirs_said.split("FAILED:")[1].splitlines() if line.strip()]
        for line in told:
            assert line in ours_said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tests: []",
        "tests: 5",
        "nothing: 1",
        "rule_files: [none.yml]\ntests: [{promql_expr_test: [{expr: 1, exp_samples: [{value: 1}]}]}]",
        "rule_files: [bad.yml]",
        "rule_files: [bad.yml]\ntests: [{}]",
        "rule_files: [r.yml, r.yml]\ntests: [{}]",
        "group_eval_order: [g, g]",
        "group_eval_order: [h, g, nobody]\nrule_files: [r.yml]\ntests: [{}]",
        "evaluation_interval: 5",
        "evaluation_interval: 30s\nrule_files: [r.yml]\ntests: [{promql_expr_test: [{expr: 'timestamp(job:up:sum)', eval_time: 59s, exp_samples: []}]}]",
        "tests: [{input_series: [{series: 'x{', values: 1}]}]",
        "tests: [{input_series: [{series: x, values: '1 a'}]}]",
        "tests: [{input_series: [{series: x, values: '1xx'}]}]",
        "tests: [{input_series: [{series: x, values: 1}, {series: x, values: 2}], promql_expr_test: [{expr: x, exp_samples: [{labels: x, value: 2}]}]}]",
        "rule_files: [r.yml]\ntests: [{input_series: [{series: 'up{a=\"1\"}', values: 1}, {series: 'up{a=\"2\"}', values: 1}]}]",
        "rule_files: [fails.yml]\ntests: [{input_series: [{series: 'a{x=\"1\"}', values: 1}, {series: 'a{x=\"2\"}', values: 1}]}]",
        "rule_files: [fails.yml]\ntests: [{interval: 5m, input_series: [{series: 'a{x=\"1\"}', values: 1}]}]",
    ],
)  # fmt: skip
def test_promtool_says_the_same_of_odd_test_files(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "r.yml").write_text(RULES)
    (tmp_path / "bad.yml").write_text("groups: [{name: ''}]\n")
    (tmp_path / "fails.yml").write_text("groups: [{name: g, rules: [{record: r, expr: a == on() a}]}]\n")
    agree(tmp_path, text + "\n", capsys)


def random_values(rng: random.Random) -> str:
    def number() -> str:
        return rng.choice(["0", "1", "-2", "3.25", ".5", "1e3", "7e-2", "+4", "12"])

    def item() -> str:
        kinds = [number, lambda: "_", lambda: f"_x{rng.randint(0, 8)}", lambda: "stale", lambda: rng.choice(["NaN", "-Inf"]),
                 lambda: f"{number()}x{rng.randint(0, 9)}",
                 lambda: f"{number()}{rng.choice('+-')}{rng.choice(['1', '0.1', '2e-1', '5'])}x{rng.randint(0, 9)}"]  # fmt: skip
        return rng.choice(kinds)()

    return " ".join(item() for _ in range(rng.randint(0, 12)))


def test_both_give_the_same_of_random_series(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(20261121)
    series = [f's{number}{{n="{rng.choice("abc")}"}}' for number in range(30)]
    asked = []
    for one in series:
        for shape in ("%s", "timestamp(%s)", "count_over_time(%s[7m30s])", "sum_over_time(%s[3m20s])", "-%s"):
            at = f"{rng.randint(0, 40)}m{rng.randint(1, 59)}s"
            asked.append({"expr": shape % one, "eval_time": at})
    inputs = [{"series": one, "values": random_values(rng)} for one in series]
    test = {"interval": "45s", "input_series": inputs, "promql_expr_test": asked}
    text = yaml.safe_dump({"rule_files": ["r.yml"], "evaluation_interval": "1m", "tests": [test]})
    (tmp_path / "r.yml").write_text(
        "groups: [{name: g, rules: [{record: n, expr: 'count by (n) ({n!=\"\"})'}]}]\n"
    )
    _, theirs_said, ours_said = agree(tmp_path, text, capsys)
    found = [
        re.findall(r'expr: "(.*)", time: (\w+),\n *exp: nil\n *got: (.*)', said)
        for said in (theirs_said, ours_said)
    ]
    assert len(found[0]) > 30
    assert found[1] == found[0]
