"""Templates of labels and annotations: what they give, and what is refused; templates.yml has what Prometheus gives."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.alerting.template import QuerySample, Template, TemplateError
from exporter.alerting.template.floats import format_float

CASES = yaml.safe_load(Path(__file__).with_name("templates.yml").read_text())


def query(expression: str) -> list[QuerySample]:
    match expression:
        case "sort(up)":
            return [
                QuerySample({"__name__": "up", "instance": "a.b.c:90"}, 1.0),
                QuerySample({"__name__": "up", "instance": "c"}, 3.0),
            ]
        case "none":
            return []
    raise ValueError(f"no answer to {expression}")


def expanded(text: str, value: float = 1234.5678, labels: Mapping[str, str] | None = None) -> str:
    return Template(text).expand(
        labels={"foo": "bar baz"} if labels is None else labels,
        external_labels={"box": "b1"},
        external_url="http://box:9108/prefix",
        value=value,
        query=query,
        now=1700000000.0,
        name="__alert_A",
    )


@pytest.mark.parametrize("case", CASES, ids=[case["template"] for case in CASES])
def test_a_template_gives_what_prometheus_gives(case: dict[str, str]) -> None:
    assert expanded(case["template"]) == case["text"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n {{ $value", "2:11: unclosed action"),
        ("{{ foo }}", '1:4: function "foo" not defined'),
        ("{{ $nope }}", '1:4: undefined variable "$nope"'),
        ("{{ if }}a{{ end }}", "1:7: missing value for if"),
        ("{{ if true }}a", "1:15: unexpected EOF"),
        ("{{ end }}", "1:8: unexpected {{end}}"),
        ("{{ else }}", "1:4: unexpected {{else}}"),
        ('{{ "a }}', "1:4: unterminated quoted string"),
        ("{{ 'a }}", "1:4: unterminated character constant"),
        ("{{ `a }}", "1:4: unterminated raw quoted string"),
        ("{{ 1 | 2 }}", "1:8: non executable command in pipeline stage 2"),
        ("{{ if true }}{{ $y := 1 }}{{ end }}{{ $y }}", '1:39: undefined variable "$y"'),
        ("{{/* c }}", "1:1: unclosed comment"),
        ("{{- /* c */ }}", "1:1: comment ends before closing delimiter"),
        ("{{ break }}", "1:4: {{break}} outside {{range}}"),
        ('{{ define "x" }}a{{ end }}{{ define "x" }}b{{ end }}', '1:51: multiple definition of template "x"'),
        ('{{ define "x" }}{{ $value }}{{ end }}', '1:20: undefined variable "$value"'),
        ("{{ range $a, $b, $c := .Labels }}{{ end }}", "1:16: too many declarations in range"),
        ("{{ (1 }}", "1:7: unclosed left paren"),
        ("{{ 1) }}", "1:5: unexpected right paren"),
        ("{{ () }}", "1:5: missing value for parenthesized pipeline"),
        ('{{ "a".b }}', '1:7: unexpected . after term "\\"a\\""'),
        ("{{}}", "1:3: missing value for command"),
        ("{{ 1a }}", '1:4: bad number syntax: "1a"'),
        ("{{ 08 }}", '1:4: illegal number syntax: "08"'),
        ("{{ 1i }}", "1:4: complex numbers are not supported: 1i"),
        ('{{ "\\q" }}', "1:4: invalid syntax"),
        ("{{ $labels.a-b }}", "1:11: bad character U+002D '-'"),
        ("{{ if true }}a{{ else }}b{{ else }}c{{ end }}", "1:29: expected end; found {{else}}"),
        ("{{ " + "(" * 60 + "1" + ")" * 60 + " }}", "1:53: nested deeper than 50 levels"),
    ],
)
def test_what_is_no_template_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        '{{ define "x" }}{{ end }}{{ define "x" }}{{ end }}',
        "{{ with 1 }}a{{ else with 2 }}c{{ end }}",
        "{{ if true }}a{{ else if false }}c{{ else }}d{{ end }}",
        "{{\n$value\n}}",
        "{{ `}}` }}",
        "{{ $value}}}",
        "{{ range $value = .Labels }}{{ end }}",
        "{{ .Foo.Bar }}",
        "} }} {",
    ],
)
def test_what_is_a_template_is_taken(text: str) -> None:
    Template(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ externalURL }} {{ pathPrefix }}", "http://box:9108/prefix /prefix"),
        ("{{ now }} {{ now | humanizeTimestamp }}", "1.7e+09 2023-11-14 22:13:20 +0000 UTC"),
        ('{{ title "it\'s a.b foo_bar x-y 3rd éa" }}', "It's A.b Foo_bar X-Y 3Rd Éa"),
        ("{{ toDuration 90.5 }} {{ toDuration 0.0015 }} {{ toDuration 0 }}", "1m30.5s 1.5ms 0s"),
        ("{{ (toDuration 90).Minutes }}", "1.5"),
        ('{{ urlQueryEscape "a b/é" }}', "a+b%2F%C3%A9"),
        ("{{ range 3 }}{{ . }}{{ end }}", "012"),
        ('{{ $x := 1 }}{{ range $x = query "sort(up)" }}{{ end }}{{ $x.Value }}', "3"),
    ],
)
def test_what_only_prometheus_3_has(text: str, expected: str) -> None:
    assert expanded(text) == expected


def test_a_failing_query_becomes_the_error_in_the_text() -> None:
    assert expanded('{{ query "rate(" }}') == (
        "<error expanding template: error executing template __alert_A: template: __alert_A:1:115: executing "
        '"__alert_A" at <query "rate(">: error calling query: no answer to rate(>'
    )


def test_columns_of_errors_count_bytes_and_only_the_first_line_has_what_prometheus_puts_before_it() -> None:
    assert "__alert_A:2:6:" in expanded("a\né {{ .Foo }}")
    assert "__alert_A:1:117:" in expanded("é{{ .Foo }}")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (math.nan, "NaN NaN NaN NaN%"),
        (math.inf, "+Inf +Inf +Inf +Inf%"),
        (-math.inf, "-Inf -Inf -Inf -Inf%"),
        (-0.0, "-0 -0 -0s -0%"),
        (5e-324, "5e-324 4.941e-300y 4.941e-300ys 4.941e-322%"),
        (1.7976931348623157e308, "1.7976931348623157e+308 1.798e+284Y 106751991167300d 15h 30m 7s +Inf%"),
    ],
)
def test_the_odd_numbers_are_shown_as_go_shows_them(value: float, shown: str) -> None:
    text = "{{ $value }} {{ humanize $value }} {{ humanizeDuration $value }} {{ humanizePercentage $value }}"
    assert expanded(text, value) == shown


@pytest.mark.parametrize(
    "text",
    [
        '{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}',
        '{{ define "a" }}{{ template "b" }}{{ end }}{{ define "b" }}x{{ template "a" }}{{ end }}{{ template "a" }}',
        '{{ printf "%1000000d%1000000d" 1 1 }}',
        '{{ printf "%.999999f" 1.0 }}',
        '{{ $x := "aaaaaaaa" }}' + "{{ $x = print $x $x $x $x }}" * 20,
        '{{ $x := "aaaaaaaa" }}' + '{{ $x = reReplaceAll "a" $x $x }}' * 20,
        "{{ range 1000000000 }}{{ range 1000000000 }}{{ end }}{{ end }}",
        '{{ range 9999999 }}{{ query "none" }}{{ end }}',
        "{{ range 9999999 }}aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa{{ end }}",
        '{{ range 9999999 }}{{ $x := printf "%100000d" 1 }}{{ end }}',
        '{{ reReplaceAll "(((a{100}){100}){100})" "" "a" }}',
    ],
)
def test_a_template_that_would_not_end_is_ended(text: str) -> None:
    assert expanded(text).startswith("<error expanding template: error executing template __alert_A: ")


@given(st.floats(allow_nan=False))
def test_a_number_is_shown_with_the_digits_that_give_it_back(value: float) -> None:
    assert float(format_float(value)) == value


WORDS = st.sampled_from(
    [
        "{{",
        "}}",
        "{{-",
        "-}}",
        "(",
        ")",
        "|",
        ".",
        ",",
        ":=",
        "=",
        "$",
        "$x",
        "$value",
        "$labels",
        ".Labels",
        ".Labels.foo",
        ".Value",
        "if",
        "else",
        "end",
        "range",
        "with",
        "define",
        "template",
        "block",
        "break",
        "continue",
        "nil",
        "true",
        "1",
        "-2.5",
        "1e9",
        "0x1f",
        "'c'",
        '"a"',
        "`b`",
        '"%v"',
        '"%5.2f"',
        '"sort(up)"',
        "printf",
        "print",
        "query",
        "first",
        "value",
        "label",
        "index",
        "len",
        "slice",
        "eq",
        "lt",
        "and",
        "or",
        "not",
        "humanize",
        "humanizeDuration",
        "toTime",
        "title",
        "reReplaceAll",
        "match",
        "args",
        "stripDomain",
        "html",
        "js",
        "/*",
        "*/",
        "x",
        "é",
        "\n",
    ]
)


@settings(max_examples=300)
@given(st.lists(WORDS, max_size=25), st.floats())
def test_no_template_of_any_words_raises_anything_but_its_error(words: list[str], value: float) -> None:
    text = " ".join(words)
    try:
        template = Template(text)
    except TemplateError as error:
        assert not error.line or error.line <= text.count("\n") + 1
        return
    result = template.expand(
        labels={"foo": "x"}, external_labels={}, external_url="http://[", value=value, query=query
    )
    assert isinstance(result, str)


@settings(max_examples=200)
@given(
    st.text(max_size=60),
    st.lists(st.one_of(st.floats(), st.text(max_size=5), st.integers(), st.none()), max_size=4),
)
def test_no_format_raises_anything_but_its_error(form: str, values: list[object]) -> None:
    from exporter.alerting.template.errors import FunctionError
    from exporter.alerting.template.printing import sprintf

    with contextlib.suppress(FunctionError):
        assert isinstance(sprintf(form, values), str)


@settings(max_examples=200)
@given(st.text(max_size=40))
def test_no_text_in_an_action_raises_anything_but_its_error(inner: str) -> None:
    with contextlib.suppress(TemplateError):
        expanded("{{" + inner + "}}")
