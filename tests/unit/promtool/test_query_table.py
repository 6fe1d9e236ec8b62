from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.promtool.shown import result_lines, short
from exporter.promtool.table import printable, table, width


def vector(*samples: tuple[dict[str, str], str]) -> dict[str, Any]:
    return {
        "resultType": "vector",
        "result": [{"metric": metric, "value": [1435781451.781, value]} for metric, value in samples],
    }


def matrix(*series: tuple[dict[str, str], dict[float, str]]) -> dict[str, Any]:
    result = [
        {"metric": metric, "values": [list(one) for one in values.items()]} for metric, values in series
    ]
    return {"resultType": "matrix", "result": result}


def lines(data: dict[str, Any], columns: int = 80) -> list[str]:
    return result_lines(data, columns=columns, zone=UTC)


def test_an_instant_vector_has_a_column_for_each_label() -> None:
    data = vector(
        ({"__name__": "up", "job": "a", "instance": "box:8000"}, "1"),
        ({"__name__": "up", "job": "机器"}, "0.123456789"),
    )
    assert lines(data) == [
        "metric  instance  job      value",
        "up      box:8000  a            1",
        "up                机器  0.123457",
    ]


def test_scalars_strings_and_nothing() -> None:
    assert lines({"resultType": "scalar", "result": [0, "2.5"]}) == ["2.5"]
    assert lines({"resultType": "string", "result": [0, "a\x1b[31m"]}) == ["a\\x1b[31m"]
    assert lines(vector()) == []
    assert lines(matrix()) == []
    assert lines(vector(({}, "3"))) == ["value", "    3"]


def test_a_range_has_a_row_for_each_time_and_a_column_for_each_series() -> None:
    data = matrix(
        ({"__name__": "up", "job": "a", "box": "x"}, {0: "1", 60: "10.5"}),
        ({"__name__": "up", "job": "b", "box": "x"}, {60: "2", 120: "NaN"}),
    )
    assert lines(data) == [
        'all: up{box="x"}',
        "",
        'time (UTC)           {job="a"}  {job="b"}',
        "1970-01-01 00:00:00          1",
        "1970-01-01 00:01:00       10.5          2",
        "1970-01-01 00:02:00                   NaN",
    ]


def test_a_single_series_is_named_whole() -> None:
    assert lines(matrix(({"__name__": "up", "job": "a"}, {0.5: "1"}))) == [
        'time (UTC)               up{job="a"}',
        "1970-01-01 00:00:00.500            1",
    ]
    assert lines(matrix(({}, {0: "1"})))[0].split() == ["time", "(UTC)", "value"]


def test_series_that_do_not_fit_have_further_tables() -> None:
    data = matrix(*(({"job": f"number-{n}"}, {0: "1"}) for n in range(5)))
    found = lines(data, columns=70)
    assert max(map(len, found)) <= 70
    assert sum(line.startswith("time (UTC)") for line in found) == 3
    assert len(lines(data, columns=10)) == 3 * 5 - 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("1", "1"),
        ("123456789012", "123456789012"),
        ("0.1", "0.1"),
        ("24.811249624813275", "24.8112"),
        ("1234567.891", "1234568"),
        ("-0.333333333333", "-0.333333"),
        ("0.0000123456789", "1.23457e-05"),
        ("1e-20", "1e-20"),
        ("+Inf", "+Inf"),
        ("-Inf", "-Inf"),
        ("NaN", "NaN"),
        ("1.5e+300", "1.5e+300"),
        ("-0", "-0"),
    ],
)
def test_values_have_six_digits_where_they_are_no_whole_numbers(value: str, shown: str) -> None:
    assert short(value) == shown


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_shortened_value_is_about_the_same(value: float) -> None:
    assert float(short(repr(value))) == pytest.approx(value, rel=1e-4, abs=1e-12)


def test_wide_and_joined_characters_are_counted_as_a_terminal_shows_them() -> None:
    assert width("abc") == 3
    assert width("机器") == 4
    assert width("e\u0301") == 1
    assert width("ﾊﾛｰ") == 3


@given(st.text())
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    shown = printable(text)
    assert shown == printable(shown)
    assert not any(ord(character) < 32 or character in "\x7f\x9b\u2028\u202e" for character in shown)


def test_columns_are_aligned_on_either_side() -> None:
    assert table(["name", "value"], [["机", "1"], ["abcdef", "22"]], right={1}) == [
        "name    value",
        "机          1",
        "abcdef     22",
    ]
    assert table(["a"], []) == ["a"]
