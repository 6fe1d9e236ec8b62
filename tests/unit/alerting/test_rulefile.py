"""Rule files: what is read, and what is refused with its place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.alerting.document import parse_document
from exporter.alerting.fields import Reader
from exporter.alerting.rulefile import Group, Rule, RuleFileError, load_rule_file, load_rules

GOOD = """
groups:
- name: g
  interval: 1m30s
  query_offset: 5s
  limit: 10
  labels: {team: a, severity: none}
  rules:
  - alert: A
    expr: up == 0
    for: 5m
    keep_firing_for: 1h
    labels: {severity: page, empty: }
    annotations:
      summary: "{{ $labels.instance }} is {{ $value }}"
  - record: a:b
    expr: |
      sum(up)
- name: h
"""


def problems(text: str) -> list[str]:
    with pytest.raises(RuleFileError) as caught:
        load_rules(text, "f.yml")
    return caught.value.problems


def rule(text: str) -> str:
    """A file with one alerting rule and what else is given."""
    return f"groups:\n- name: g\n  rules:\n  - alert: A\n    expr: up\n    {text}\n"


def test_a_file_is_read() -> None:
    assert load_rules(GOOD, "f.yml") == (
        Group(
            name="g",
            file="f.yml",
            interval=90.0,
            limit=10,
            query_offset=5.0,
            labels={"team": "a", "severity": "none"},
            rules=(
                Rule(
                    kind="alerting",
                    name="A",
                    expr="up == 0",
                    for_seconds=300.0,
                    keep_firing_for=3600.0,
                    labels={"team": "a", "severity": "page", "empty": ""},
                    annotations={"summary": "{{ $labels.instance }} is {{ $value }}"},
                    line=9,
                ),
                Rule(
                    kind="recording",
                    name="a:b",
                    expr="sum(up)\n",
                    labels={"team": "a", "severity": "none"},
                    line=16,
                ),
            ),
        ),
        Group(name="h", file="f.yml"),
    )


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "groups: [null]", "groups:\n", "groups: []", "---\n", "{}", "null"]
)
def test_a_file_may_have_no_groups(text: str) -> None:
    assert load_rules(text, "f") == ()


def test_only_the_first_document_counts() -> None:
    assert [group.name for group in load_rules("groups: [{name: a}]\n---\ngroups: [{name: b}]\n", "f")] == [
        "a"
    ]


def test_any_scalar_is_a_string_and_aliases_and_merges_are_followed() -> None:
    text = """
groups:
- name: 1
  interval: 0
  limit: 3.0
  rules:
  - &rule {alert: yes, expr: 1, labels: &l {n: 1.50, on: off}, annotations: {"a": 2024-01-01}}
  - {<<: *rule, alert: no, for: ~}
  - {alert: no, expr: 1, labels: {<<: [*l, {n: 2, m: 3}], on: "x"}}
"""
    (group,) = load_rules(text, "f")
    assert (group.name, group.interval, group.limit) == ("1", None, 3)
    assert [one.name for one in group.rules] == ["yes", "no", "no"]
    assert group.rules[1].labels == {"n": "1.50", "on": "off"}
    assert group.rules[1].annotations == {"a": "2024-01-01"}
    assert group.rules[2].labels == {"n": "1.50", "m": "3", "on": "x"}


def test_names_may_be_any_utf_8_as_in_prometheus_3() -> None:
    (group,) = load_rules(rule("labels: {a.b-c: x, é: y}\n    annotations: {a b: z}"), "f")
    assert group.rules[0].labels == {"a.b-c": "x", "é": "y"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("groups: [{name: a}, {name: a}]", '1:21: group "a" is repeated in the same file'),
        ("groups: [{rules: []}]", "1:10: the group has no name"),
        ("groups: [{name: a, intervall: 1m}]", '1:20: a group: unknown field "intervall"; known are interval, labels, limit, name, query_offset, rules'),
        ("groups: [{name: a, name: b}]", '1:20: a group: key "name" is already set in line 1'),
        ("groups: [{name: a, interval: 5}]", '1:30: group "a": interval: not a valid duration string: "5"'),
        ("groups: [{name: a, limit: many}]", '1:27: group "a": limit: expected a number, got "many"'),
        ("groups: [{name: a, limit: 1.5}]", '1:27: group "a": limit: expected a whole number, got "1.5"'),
        ("groups: [{name: a, rules: {}}]", '1:27: group "a": rules is a mapping, expected a list'),
        ("groups: [{name: a, labels: {__name__: b}}]", '1:39: group "a": invalid label name: __name__'),
        ("groups: [{name: a, rules: [5]}]", '1:28: group "a", rule 1 is "5", expected a mapping'),
        ("groups: 5", '1:9: groups is "5", expected a list'),
        ("[]", "1:1: the file is a list, expected a mapping"),
        ("a: 1", '1:1: the file: unknown field "a"; known are groups'),
        ("groups: [{name: a}\n", "2:1: while parsing a flow sequence"),
        ("groups: *x", '1:9: unknown anchor "x" referenced'),
        ("groups: [{name: a, rules: [{expr: up}]}]", '''1:28: group "a", rule 1, "": one of 'record' or 'alert' must be set'''),
        ("groups: [{name: a, rules: [{alert: b, record: c, expr: up}]}]", '''1:36: group "a", rule 1, "b": only one of 'record' and 'alert' must be set'''),
        ("groups: [{name: a, rules: [{alert: b}]}]", '''1:28: group "a", rule 1, "b": field 'expr' must be set in rule'''),
        ("groups: [{name: a, rules: [{alert: b, expr: ''}]}]", '''1:45: group "a", rule 1, "b": field 'expr' must be set in rule'''),
        ("groups: [{name: a, rules: [{alert: b, expr: 'sum('}]}]", '1:45: group "a", rule 1, "b": could not parse expression: 1:5: parse error: unclosed left parenthesis'),
        ("groups: [{name: a, rules: [{record: b, expr: up, for: 1m}]}]", '''1:55: group "a", rule 1, "b": invalid field 'for' in recording rule'''),
        ("groups: [{name: a, rules: [{record: b, expr: up, keep_firing_for: 1m}]}]", '''1:67: group "a", rule 1, "b": invalid field 'keep_firing_for' in recording rule'''),
        ("groups: [{name: a, rules: [{record: b, expr: up, annotations: {c: d}}]}]", '''1:63: group "a", rule 1, "b": invalid field 'annotations' in recording rule'''),
        ("groups: [{name: a, rules: [{record: 'b{}', expr: up}]}]", '1:37: group "a", rule 1, "b{}": braces in the name of a recording rule; do they belong to expr?'),
        (rule("labels: {__name__: x}"), '6:24: group "g", rule 1, "A": invalid label name: __name__'),
        (rule("labels: {'': x}"), '6:18: group "g", rule 1, "A": invalid label name: '),
        (rule("labels: [x]"), '6:13: group "g", rule 1, "A": labels is a list, expected a mapping'),
        (rule("annotations: {a: [b]}"), '6:22: group "g", rule 1, "A": annotations: a is a list, expected a string'),
        (rule("annotations: {'': b}"), '6:23: group "g", rule 1, "A": invalid annotation name: '),
        (rule("annotations: {s: '{{ nope }}'}"), '6:22: group "g", rule 1, "A": annotation "s": 1:4: function "nope" not defined'),
        (rule("labels: {s: '{{ if }}'}"), '6:17: group "g", rule 1, "A": label "s": 1:7: missing value for if'),
        (rule("fro: 5m"), '6:5: group "g", rule 1: unknown field "fro"; known are alert, annotations, expr, for, keep_firing_for, labels, record'),
        ("groups: [{name: a, labels: {s: '{{ x }}'}, rules: [{alert: b, expr: up}]}]", '1:32: group "a": label "s": 1:4: function "x" not defined'),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(text: str, expected: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(f"f.yml:{expected}")


def test_templates_of_recording_rules_are_plain_text() -> None:
    load_rules(
        "groups: [{name: g, labels: {a: '{{ x }}'}, rules: [{record: b, expr: up, labels: {c: '{{'}}]}]", "f"
    )


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    text = "groups:\n" + "".join(
        f"- name: g{number}\n  rules: [{{alert: A, expr: 'sum(', for: x}}]\n" for number in range(60)
    )
    found = problems(text)
    assert len(found) == 101
    assert found[0].startswith('f.yml:3:28: group "g0"')
    assert found[1].startswith('f.yml:3:41: group "g0"')
    assert found[-1] == "f.yml: 20 more mistakes"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x" * ((4 << 20) + 1), "the file has 4194305 bytes, more than 4194304"),
        ("[" * 5000, "nested deeper than 32 levels"),
        ("- " * 5000, "nested deeper than 32 levels"),
        ("\ud800", "the text is not UTF-8 at character 0"),
        ("\x00", "characters are not allowed"),
        ("a: &a [" + "b," * 200_001 + "]", "more than 200000 values"),
        (
            "groups:\n- name: g\n  rules: &r\n" + "  - &x {alert: A}\n" + "  - *x\n" * 700 + "".join("- {name: h, rules: *r}\n" for _ in range(700)),
            "more than 200000 values once aliases are followed",
        ),
    ],
)  # fmt: skip
def test_too_much_is_refused(text: str, message: str) -> None:
    assert any(message in problem for problem in problems(text))


def test_a_long_text_that_is_used_again_and_again_is_refused() -> None:
    text = f"groups:\n- name: &n {'x' * 1_000_000}\n" + "- {name: *n}\n" * 20
    assert any("too much text once aliases are followed" in problem for problem in problems(text))


def test_a_file_that_contains_itself_is_refused() -> None:
    assert problems("&a {groups: [*a]}")
    assert problems("groups: &a [{name: g, rules: *a}]")


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    for name, raw in (("none", None), ("latin", b"\xff"), ("big", b"x" * ((4 << 20) + 1))):
        path = tmp_path / name
        if raw is not None:
            path.write_bytes(raw)
        with pytest.raises(RuleFileError) as caught:
            load_rule_file(path)
        assert caught.value.problems[0].startswith(f"{path}: ")
    with pytest.raises(RuleFileError):
        load_rule_file(tmp_path)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "f.yml").write_bytes(b"\xef\xbb\xbfgroups: [{name: g}]\n")
    assert [group.name for group in load_rule_file(tmp_path / "f.yml")] == ["g"]


def test_values_know_where_they_stand() -> None:
    root, more = parse_document("a:\n  - b: c\n")
    assert root is not None
    assert not more
    reader = Reader("f")
    (item,) = reader.items(reader.fields(root, "it", ("a",))["a"], "a")
    assert (item.line, item.column) == (2, 5)
    assert reader.texts(item, "it") == {"b": "c"}
    assert reader.problems == []


PIECES = st.sampled_from(
    (*GOOD.splitlines(keepends=True), "- ", "  ", "{", "}", "[", "]", "*a", "&a ", "'", '"', "<<: *a\n", "|\n", "\0", "é",
     "{{ $value", "}}", "!!binary ", "? ", ": ", "---\n", "...\n", "%YAML 9\n", "\t", "\ufeff", "\u2028", "for: 5\n")
)  # fmt: skip


@settings(max_examples=300)
@given(st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=60)))
def test_no_text_raises_anything_but_its_error(text: str) -> None:
    try:
        load_rules(text, "f.yml")
    except RuleFileError as error:
        assert error.problems
        assert all(problem.startswith("f.yml") for problem in error.problems)
