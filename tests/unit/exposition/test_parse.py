from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from exporter.errors import ExpositionError
from exporter.exposition.parse import Sample, parse

CAPTURE = Path(__file__).parents[2] / "data" / "vllm-0.32.0-metrics.txt"


def only(body: str, *, openmetrics: bool = False) -> Sample:
    (sample,) = parse(body.encode(), openmetrics=openmetrics).samples
    return sample


def ours(body: bytes, *, openmetrics: bool = False) -> list[tuple[object, ...]]:
    return [
        (s.series.name, s.series.labels, repr(float(s.value)), s.timestamp)
        for s in parse(body, openmetrics=openmetrics).samples
    ]


def theirs(body: bytes, *, openmetrics: bool = False) -> list[tuple[object, ...]]:
    read = openmetrics_families if openmetrics else text_families
    return [
        (
            s.name,
            tuple(sorted(s.labels.items())),
            repr(float(s.value)),
            None if s.timestamp is None else float(s.timestamp),
        )
        for family in read(body.decode())
        for s in family.samples
    ]


def test_the_real_capture_reads_as_prometheus_client_reads_it() -> None:
    body = CAPTURE.read_bytes()
    assert len(ours(body)) == 427
    assert sorted(ours(body)) == sorted(theirs(body))


def test_a_histogram_whose_name_ends_in_total_keeps_its_type() -> None:
    series = {s.series.name: s.series for s in parse(CAPTURE.read_bytes()).samples}
    bucket = series["vllm:iteration_tokens_total_bucket"]
    assert (bucket.family, bucket.type) == ("vllm:iteration_tokens_total", "histogram")
    assert series["vllm:iteration_tokens_total_created"].type == "gauge"
    assert series["vllm:request_success_total"].type == "counter"


def test_commas_braces_and_escapes_stand_inside_label_values() -> None:
    series = only(
        r'vllm:lora_requests_info{running_lora_adapters="a,b} 2,{c=\"d\"",path="C:\\x\n\z"} 1'
    ).series
    assert series.label("running_lora_adapters") == 'a,b} 2,{c="d"'
    assert series.label("path") == "C:\\x\n\\z"
    assert series.label("missing", "none") == "none"


def test_labels_come_sorted_by_name() -> None:
    assert only('a{z="1",b="2"} 1').series.labels == (("b", "2"), ("z", "1"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("+Inf", math.inf),
        ("-Inf", -math.inf),
        ("inf", math.inf),
        ("Infinity", math.inf),
        ("1e3", 1000.0),
        ("+1.5E-3", 0.0015),
        (".5", 0.5),
        ("-0", 0.0),
        ("12", 12.0),
    ],
)
def test_numbers_read_as_prometheus_reads_them(text: str, value: float) -> None:
    assert only(f"a {text}").value == value


def test_nan_is_a_value() -> None:
    assert math.isnan(only("a NaN").value)


@pytest.mark.parametrize(
    "text", ["1_000", "0x1p3", "0x10", "١", "1.5.2", "+NaN", "abc", "1e", "--1", "e", "1,5"]
)
def test_what_is_no_number_is_an_error(text: str) -> None:
    with pytest.raises(ExpositionError, match=r"line 2: .*number") as caught:
        parse(f"a 1\nb {text}\n".encode())
    assert (caught.value.line, caught.value.reason) == (2, "parse")


def test_timestamps_are_milliseconds_in_text_and_seconds_in_openmetrics() -> None:
    assert only("a 1 1500").timestamp == 1.5
    assert only("a 1 -1500").timestamp == -1.5
    assert only("a 1 1500.25\n# EOF\n", openmetrics=True).timestamp == 1500.25
    assert only("a 1").timestamp is None


@pytest.mark.parametrize(
    "page",
    [
        'a{b="c"} 1\r\nd 2\r\n',
        'a{b="c"} 1\nd 2',
        '\n  \n\ta{b="c"}\t1\n\n d  2 \n',
        'a { b = "c" , } 1\nd 2\n',
        'a{b="c"}1\nd{} 2\n',
        '# a comment\n#\n#HELP\n# HELPER a b\na{b="c"} 1\nd 2\n',
    ],
)
def test_white_space_comments_and_line_ends_are_forgiven_in_text(page: str) -> None:
    assert ours(page.encode()) == [("a", (("b", "c"),), "1.0", None), ("d", (), "2.0", None)]


def test_a_carriage_return_inside_a_label_value_stays() -> None:
    assert only('a{b="c\rd"} 1').series.label("b") == "c\rd"


def test_utf8_names_stand_quoted_in_the_braces() -> None:
    page = '# TYPE "my.metric" gauge\n{"my.metric","a.b"="c",d="🦙"} 1\n'
    (sample,) = parse(page.encode()).samples
    assert (sample.series.name, sample.series.type) == ("my.metric", "gauge")
    assert sample.series.labels == (("a.b", "c"), ("d", "🦙"))
    assert ours(page.encode())[0][:2] == theirs(page.encode())[0][:2]


def test_exemplars_are_read_over() -> None:
    page = (
        "# TYPE a histogram\n"
        'a_bucket{le="+Inf"} 3 # {trace_id="x # {y} "} 0.5 1700000000.5\n'
        "# TYPE b counter\n"
        "b_total 4 1700000001 # {} 1\n"
        "# EOF\n"
    )
    assert ours(page.encode(), openmetrics=True) == [
        ("a_bucket", (("le", "+Inf"),), "3.0", None),
        ("b_total", (), "4.0", 1700000001.0),
    ]


def test_openmetrics_families_get_the_names_of_text() -> None:
    page = (
        "# TYPE jobs counter\n# HELP jobs Jobs.\njobs_total 1\njobs_created 5\n"
        '# TYPE build info\nbuild_info{v="1"} 1\n# TYPE x unknown\nx 1\nloose 2\n# EOF'
    )
    found = [
        (s.series.name, s.series.family, s.series.type)
        for s in parse(page.encode(), openmetrics=True).samples
    ]
    assert found == [
        ("jobs_total", "jobs_total", "counter"),
        ("jobs_created", "jobs_total", "counter"),
        ("build_info", "build_info", "info"),
        ("x", "x", "unknown"),
        ("loose", "loose", "unknown"),
    ]


def test_an_exact_type_wins_over_a_suffix() -> None:
    page = b'# TYPE a histogram\na_bucket{le="+Inf"} 1\n# TYPE a_count gauge\na_count 7\n'
    assert [s.series.type for s in parse(page).samples] == ["histogram", "gauge"]


def test_metadata_may_come_after_the_samples() -> None:
    assert parse(b"a_total 1\n# TYPE a_total counter\n").samples[0].series.type == "counter"


def test_duplicates_stay_in_the_samples() -> None:
    samples = parse(b'a{b="1",c="2"} 1\na{c="2",b="1"} 2\n').samples
    assert samples[0].series is samples[1].series


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("<!DOCTYPE html>\n<html></html>\n", 1),
        ("a 1\n<html>\n", 2),
        ("a 1\nb\n", 2),
        ("a 1\nb \n", 2),
        ('a{b="c} 1\n', 1),
        ("a{b=c} 1\n", 1),
        ('a{b="c" d="e"} 1\n', 1),
        ('a{,b="c"} 1\n', 1),
        ('a{b="c",,} 1\n', 1),
        ('a{b="c",b="d"} 1\n', 1),
        ('a{__name__="c"} 1\n', 1),
        ('a{"b"} 1\n', 1),
        ('{"a","b"} 1\n', 1),
        ('{b="c"} 1\n', 1),
        ("{} 1\n", 1),
        ('{""} 1\n', 1),
        ("a{b} 1\n", 1),
        ("9a 1\n", 1),
        ("a-b 1\n", 1),
        ("a 1 2 3\n", 1),
        ("a 1 1.5\n", 1),
        ('a 1 # {b="c"} 1\n', 1),
        ("# TYPE a\n", 1),
        ("x 1\n# TYPE a nonsense\n", 2),
        ("# TYPE a info\n", 1),
        ("# TYPE 9a gauge\n", 1),
        ('{"message": "not found"}\n', 1),
        ("\x00\x01\x02\n", 1),
    ],
)
def test_malformed_text_names_its_line(page: str, line: int) -> None:
    with pytest.raises(ExpositionError) as caught:
        parse(page.encode())
    assert (caught.value.line, caught.value.reason) == (line, "parse")
    assert str(caught.value).startswith(f"line {line}: ")


@pytest.mark.parametrize(
    ("page", "line"),
    [
        ("a 1\n", 1),
        ("", 1),
        ("a 1\n# EOF\nb 2\n", 3),
        ("a 1\n\n# EOF\n", 2),
        ("a 1\n# a comment\n# EOF\n", 2),
        ("# TYPE a untyped\n# EOF\n", 1),
        (" a 1\n# EOF\n", 1),
        ("a  1\n# EOF\n", 1),
        ("a 1 \n# EOF\n", 1),
        ("a 1 NaN\n# EOF\n", 1),
        ('a 1 # {b="c"}\n# EOF\n', 1),
        ('a 1 # {b="c"} x\n# EOF\n', 1),
        ("a 1 # {b=c} 1\n# EOF\n", 1),
        ('a 1 # {b="c"} 1 2 3\n# EOF\n', 1),
        ('a 1 # {b="c"} 1 inf\n# EOF\n', 1),
    ],
)
def test_malformed_openmetrics_names_its_line(page: str, line: int) -> None:
    with pytest.raises(ExpositionError) as caught:
        parse(page.encode(), openmetrics=True)
    assert (caught.value.line, caught.value.reason) == (line, "parse")


@pytest.mark.parametrize("page", [b'a 1\nb{c="\xff"} 1\n', b"a 1\n# HELP b \xff\n", b"a 1\n\xff\xfe\n"])
def test_invalid_utf8_names_its_line(page: bytes) -> None:
    with pytest.raises(ExpositionError) as caught:
        parse(page)
    assert (caught.value.line, caught.value.reason) == (2, "encoding")


def test_limits_name_the_line_and_the_setting() -> None:
    with pytest.raises(ExpositionError, match=r"scrape\.sample_limit") as caught:
        parse(b"# c\na 1\nb 2\nc 3\n", sample_limit=2)
    assert (caught.value.line, caught.value.reason) == (4, "sample_limit")
    with pytest.raises(ExpositionError, match=r"scrape\.label_limit") as caught:
        parse(b'a 1\nb{c="1",d="2",e="3"} 2\n', label_limit=2)
    assert (caught.value.line, caught.value.reason) == (2, "label_limit")


def test_a_very_long_malformed_line_fails_at_once() -> None:
    for line in (b'a{b="' + b"x" * 500_000, b"a{" + b'b="c",' * 50_000 + b"!", b"<" + b"\\" * 500_000):
        with pytest.raises(ExpositionError) as caught:
            parse(line)
        assert len(str(caught.value)) < 400


NAMES = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", fullmatch=True)
LABELS = st.dictionaries(
    st.from_regex(r"[a-zA-Z][a-zA-Z0-9_]{0,5}", fullmatch=True),
    st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8),
    max_size=3,
)
VALUES = st.one_of(st.floats(), st.integers(-(10**20), 10**20))


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@given(st.lists(st.tuples(NAMES, LABELS, VALUES, st.none() | st.integers(0, 2**50)), max_size=8))
def test_what_is_written_reads_back_the_same_as_with_prometheus_client(
    rows: list[tuple[str, dict[str, str], float, int | None]],
) -> None:
    lines = []
    for name, labels, value, timestamp in rows:
        inner = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
        lines.append(f"{name}{{{inner}}} {value}" + ("" if timestamp is None else f" {timestamp}"))
    body = "\n".join([*lines, ""]).encode()
    assert ours(body) == theirs(body)
    assert ours(body) == [
        (
            name,
            tuple(sorted(labels.items())),
            repr(float(value)),
            None if timestamp is None else timestamp / 1000,
        )
        for name, labels, value, timestamp in rows
    ]


PIECES = st.sampled_from(
    [
        *'a{}",=\\ \t\n#1.',
        "le",
        "+Inf",
        "NaN",
        "# TYPE a ",
        "counter",
        "# HELP a ",
        "# EOF",
        "\r\n",
        "ä",
        '{b="c"}',
        " 1\n",
    ]
)


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=24).map("".join), st.booleans())
def test_garbage_is_read_or_refused_but_never_worse(text: str, openmetrics: bool) -> None:
    try:
        page = parse(text.encode(), openmetrics=openmetrics)
    except ExpositionError as error:
        assert error.line is not None
        assert 1 <= error.line <= text.count("\n") + 1
    else:
        assert all(sample.series.name for sample in page.samples)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        parse(body)
    except ExpositionError as error:
        assert error.line is not None


@pytest.mark.parametrize("digits", ["9" * 19, "9" * 25, "9" * 400, "9" * 5000, "-" + "9" * 400])
def test_a_timestamp_beyond_64_bits_is_an_error_of_its_line_and_nothing_worse(digits: str) -> None:
    """It raised OverflowError, which nobody catches: one bad page ended the daemon."""
    with pytest.raises(ExpositionError) as caught:
        parse(f"a 1\nb 1 {digits}\n".encode())
    assert caught.value.line == 2
    with pytest.raises(ExpositionError) as caught:
        parse(f"a 1\nb 1 {digits}.5\n# EOF\n".encode(), openmetrics=True)
    assert caught.value.line == 2
