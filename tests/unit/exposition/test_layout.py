from __future__ import annotations

import math
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from exporter.errors import ExpositionError
from exporter.exposition.layout import PageReader, Row

CAPTURE = (Path(__file__).parents[2] / "data" / "vllm-0.32.0-metrics.txt").read_bytes()
SMALL = b"".join(
    line + b"\n"
    for line in CAPTURE.split(b"\n")
    if b"time_to_first_token" in line or b"request_success" in line or b"process_" in line
)


def _as_openmetrics() -> bytes:
    reader = PageReader()
    reader.read(SMALL)
    page = reader.passthrough().render(openmetrics=True) + b"# EOF\n"
    stopped = b'finished_reason="stop",model_name="tiny-qwen"} '
    return page.replace(stopped, stopped + b'7 # {id="a b"} ')


AS_OPENMETRICS = _as_openmetrics()


def fresh(body: bytes, *, openmetrics: bool = False) -> tuple[PageReader, Row]:
    reader = PageReader(reserved_prefixes=("vllm_slo_",))
    return reader, reader.read(body, openmetrics=openmetrics)


def same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def assert_equal(reader: PageReader, row: Row, body: bytes, *, openmetrics: bool = False) -> None:
    other, wanted = fresh(body, openmetrics=openmetrics)
    assert list(row.layout.series) == list(wanted.layout.series)
    assert all(map(same, row.values, wanted.values))
    for out in (False, True):
        assert reader.passthrough().render(openmetrics=out) == other.passthrough().render(openmetrics=out)
    assert (reader.duplicates, reader.reserved) == (other.duplicates, other.reserved)


def test_the_first_page_changes_every_column() -> None:
    _, row = fresh(CAPTURE)
    assert len(row.values) == 427
    assert list(row.changed) == list(range(427))


def test_the_same_page_changes_nothing_and_prints_from_the_same_object() -> None:
    reader, first = fresh(CAPTURE)
    printed = reader.passthrough()
    again = reader.read(CAPTURE)
    assert again.layout is first.layout
    assert list(again.changed) == []
    assert reader.passthrough() is printed


def test_a_changed_value_is_one_changed_column() -> None:
    reader, first = fresh(b"a 1\nb 2\nc 3\n")
    row = reader.read(b"a 1\nb 2.5\nc 3.0\n")
    assert row.layout is first.layout
    assert list(row.changed) == [1]
    assert row.values == [1, 2.5, 3]


def test_nan_that_stays_nan_has_not_changed() -> None:
    reader, _ = fresh(b"a NaN\nb 1\n")
    assert list(reader.read(b"a nan\nb 1\n").changed) == []
    assert list(reader.read(b"a nan\nb NaN\n").changed) == [1]
    assert list(reader.read(b"a 1\nb NaN\n").changed) == [0]
    assert list(reader.read(b"# x\na 1\nb nan\n").changed) == []


def test_new_help_keeps_the_layout_and_a_new_type_does_not() -> None:
    reader, first = fresh(b"# HELP a x\n# TYPE a gauge\na 1\n")
    second = reader.read(b"# HELP a y\n# TYPE a gauge\na 2\n")
    assert second.layout is first.layout
    assert list(second.changed) == [0]
    third = reader.read(b"# HELP a y\n# TYPE a untyped\na 2\n")
    assert third.layout is not first.layout
    assert third.layout.series[0].type == "unknown"


def test_a_series_more_or_less_or_elsewhere_is_a_new_layout() -> None:
    reader, first = fresh(b"a 1\nb 2\n")
    for body in (b"a 1\nb 2\nc 3\n", b"a 1\nb 2\n", b"b 2\na 1\n"):
        row = reader.read(body)
        assert row.layout is not first.layout
        assert list(row.changed) == list(range(len(row.values)))
        first = row


def test_a_duplicate_series_counts_once_with_its_first_value() -> None:
    reader, row = fresh(b'a{x="1",y="2"} 1\na{y="2",x="1"} 7\nb 2\nb 2\n')
    assert (row.values, reader.duplicates) == ([1, 2], 2)
    assert reader.passthrough().render(openmetrics=False) == b'a{x="1",y="2"} 1\nb 2\n'
    row = reader.read(b'a{x="1",y="2"} 1\na{y="2",x="1"} 8\nb 3\nb 2\n')
    assert (row.values, list(row.changed)) == ([1, 3], [1])


def test_a_reader_forgets_after_an_error() -> None:
    reader, first = fresh(b"a 1\nb 2\n")
    for bad in (b"a 1\nb x\n", b"a 1\n123\n", b"a 1\nb \n", b"<html>"):
        with pytest.raises(ExpositionError) as caught:
            reader.read(bad)
        assert caught.value.line == min(2, bad.count(b"\n") + 1)
        with pytest.raises(LookupError):
            reader.passthrough()
        row = reader.read(b"a 1\nb 2\n")
        assert row.layout is not first.layout
        assert list(row.changed) == [0, 1]


def test_a_known_line_that_is_damaged_is_refused_in_the_words_of_a_fresh_reader() -> None:
    for damaged in (b"a 1\nb 2\xff\n", b"a 1\nb 2_0\n", b'a 1\nb 2 "\n'):
        reader, _ = fresh(b"a 1\nb 2\n")
        with pytest.raises(ExpositionError) as wanted:
            fresh(damaged)
        with pytest.raises(ExpositionError) as caught:
            reader.read(damaged)
        assert (str(caught.value), caught.value.reason) == (str(wanted.value), wanted.value.reason)


def test_a_line_of_digits_is_not_taken_for_the_value_of_the_line_before() -> None:
    reader, _ = fresh(b"a 1\n")
    with pytest.raises(ExpositionError):
        reader.read(b"2\n")


def test_crlf_a_missing_last_newline_and_timestamps_read_the_same() -> None:
    reader, _ = fresh(SMALL)
    for body in (
        SMALL.replace(b"\n", b"\r\n"),
        SMALL[:-1],
        SMALL.replace(b".0\n", b".0 1700000000000\n"),
        SMALL,
    ):
        assert_equal(reader, reader.read(body), body)


def test_a_source_may_switch_to_openmetrics_and_back() -> None:
    reader, _ = fresh(SMALL)
    converted = reader.passthrough().render(openmetrics=True) + b"# EOF\n"
    assert_equal(reader, reader.read(converted, openmetrics=True), converted, openmetrics=True)
    changed = converted.replace(b" 8.46\n", b" 9.5\n")
    row = reader.read(changed, openmetrics=True)
    assert len(row.changed) == 1
    assert_equal(reader, row, changed, openmetrics=True)
    assert_equal(reader, reader.read(SMALL), SMALL)


def test_what_earlier_pages_taught_stays_bounded() -> None:
    reader, _ = fresh(b"a 0\n")
    for number in range(500):
        reader.read(f'a{{request="{number}"}} 1\n'.encode())
        reader.read(f'a{{request="{number}"}} 1 {number}\n'.encode())
    assert len(reader._memory.heads) < 10
    assert len(reader._memory.series) < 10


def test_limits_hold_for_a_page_that_grows() -> None:
    reader = PageReader(sample_limit=2)
    reader.read(b"a 1\nb 2\n")
    with pytest.raises(ExpositionError) as caught:
        reader.read(b"a 1\nb 2\nc 3\n")
    assert caught.value.reason == "sample_limit"


def test_a_flood_of_lines_is_refused_before_it_takes_memory() -> None:
    for body in (b"\n" * 2000, b"# comment\n" * 2000):
        with pytest.raises(ExpositionError) as caught:
            PageReader(sample_limit=10).read(body)
        assert (caught.value.line, caught.value.reason) == (1041, "sample_limit")


Mutation = Callable[[list[bytes], random.Random], None]


def change_values(lines: list[bytes], rng: random.Random) -> None:
    for i in rng.sample(range(len(lines)), len(lines) // 3):
        if lines[i] and not lines[i].startswith(b"#"):
            head, _, _ = lines[i].rpartition(b" ")
            value = rng.choice([b"1", b"NaN", b"nan", b"+Inf", b"12.5", b"1.8e+09", b"0.0", b"-3"])
            lines[i] = head + b" " + value


def insert_a_line(lines: list[bytes], rng: random.Random) -> None:
    new = [
        b"new 1",
        b'new{a="b,c}"} 2',
        b"# a comment",
        b"",
        b"# HELP new x",
        b"late 3 1700",
        b'vllm_slo_x{le="1"} 2',
    ]
    lines.insert(rng.randrange(len(lines)), rng.choice(new))


def remove_a_line(lines: list[bytes], rng: random.Random) -> None:
    if len(lines) > 2:
        del lines[rng.randrange(len(lines) - 1)]


def repeat_a_line(lines: list[bytes], rng: random.Random) -> None:
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))


def move_a_line(lines: list[bytes], rng: random.Random) -> None:
    lines.insert(rng.randrange(len(lines)), lines.pop(rng.randrange(len(lines) - 1)))


def change_help(lines: list[bytes], rng: random.Random) -> None:
    comments = [i for i, line in enumerate(lines) if line.startswith(b"# HELP")]
    if comments:
        lines[rng.choice(comments)] += rng.choice([b" more", b' "quoted"', b" back\\\\slash"])


def change_a_type(lines: list[bytes], rng: random.Random) -> None:
    types = [i for i, line in enumerate(lines) if line.startswith(b"# TYPE")]
    if types:
        i = rng.choice(types)
        lines[i] = (
            lines[i].rpartition(b" ")[0] + b" " + rng.choice([b"gauge", b"counter", b"untyped", b"histogram"])
        )


def damage_a_line(lines: list[bytes], rng: random.Random) -> None:
    i = rng.randrange(len(lines))
    at = rng.randrange(len(lines[i]) + 1)
    lines[i] = (
        lines[i][:at] + rng.choice([b"x", b" ", b'"', b"1", b"_", b"\xff", b"}", b"\r"]) + lines[i][at + 1 :]
    )


def widen_a_line(lines: list[bytes], rng: random.Random) -> None:
    i = rng.randrange(len(lines))
    lines[i] = rng.choice(
        [lines[i] + b" ", lines[i].replace(b" ", b"  "), b" " + lines[i], lines[i] + b" 1700"]
    )


MUTATIONS: list[Mutation] = [
    change_values,
    change_values,
    insert_a_line,
    remove_a_line,
    repeat_a_line,
    move_a_line,
    change_help,
    change_a_type,
    damage_a_line,
    widen_a_line,
]


@settings(max_examples=60, deadline=None, phases=set(Phase) - {Phase.shrink})
@given(
    st.lists(st.lists(st.sampled_from(MUTATIONS), max_size=3), max_size=8),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_after_any_change_the_fast_path_reads_what_a_fresh_reader_reads(
    steps: list[list[Mutation]], rng: random.Random, openmetrics: bool
) -> None:
    source = AS_OPENMETRICS if openmetrics else SMALL
    lines = source.split(b"\n")
    reader, row = fresh(source, openmetrics=openmetrics)
    before: tuple[object, list[float]] | None = (row.layout, list(row.values))
    for step in steps:
        for mutate in step:
            mutate(lines, rng)
        body = b"\n".join(lines)
        try:
            _, wanted = fresh(body, openmetrics=openmetrics)
        except ExpositionError as error:
            with pytest.raises(ExpositionError) as caught:
                reader.read(body, openmetrics=openmetrics)
            assert (caught.value.line, caught.value.reason) == (error.line, error.reason)
            before = None
            lines = source.split(b"\n")
            continue
        row = reader.read(body, openmetrics=openmetrics)
        assert_equal(reader, row, body, openmetrics=openmetrics)
        if before is None or row.layout is not before[0]:
            assert list(row.changed) == list(range(len(wanted.values)))
        else:
            moved = [i for i, (a, b) in enumerate(zip(before[1], row.values, strict=True)) if not same(a, b)]
            assert list(row.changed) == moved
        before = (row.layout, list(row.values))


def test_a_series_of_a_page_takes_few_bytes_besides_its_line() -> None:
    size = 5000
    page = "".join(
        f'requests{{round="0",cluster="c{number % 100:02}",host="host-{number:05}"}} 0\n'
        for number in range(size)
    ).encode()
    fresh(SMALL)
    tracemalloc.start()
    try:
        reader = PageReader()
        reader.read(page)
        reader.passthrough().render(openmetrics=False)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 1000 * size, taken / size


def test_a_label_that_many_series_have_is_one_object() -> None:
    _, row = fresh(b'a{model="m",x="1"} 1\na{model="m",x="2"} 1\nb{model="m"} 1\n')
    assert len({id(series.labels[0]) for series in row.layout.series}) == 1
