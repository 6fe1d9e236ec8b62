"""The notation of test series."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.promtool.series import NotationError, parse_labels, parse_values
from exporter.storage.model import STALE_BITS


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", []),
        ("1 2 3", [1, 2, 3]),
        ("  1\t2  ", [1, 2]),
        ("1x3", [1, 1, 1, 1]),
        ("1+2x3", [1, 3, 5, 7]),
        ("1-2x2", [1, -1, -3]),
        ("-5+5x2", [-5, 0, 5]),
        ("+5", [5]),
        ("0x2", [0, 0, 0]),
        ("1x0", [1]),
        ("_", [None]),
        ("1 _ 2", [1, None, 2]),
        ("_x3 4", [None, None, None, 4]),
        ("_x0 4", [4]),
        (".5 5. 1e3 1E-2", [0.5, 5, 1000, 0.01]),
        ("1e-1+1e-1x2", [0.1, 0.2, 0.30000000000000004]),
        ("Inf -Inf +inf", [math.inf, -math.inf, math.inf]),
        ("Inf+1x1", [math.inf, math.inf]),
        ("010 08", [8, 8]),
    ],
)
def test_values_are_expanded(text: str, values: list[float | None]) -> None:
    assert parse_values(text) == values


def test_steps_are_added_one_by_one_as_promtool_does_it() -> None:
    total, expected = 0.1, [0.1]
    for _ in range(1000):
        total += 0.1
        expected.append(total)
    assert parse_values("0.1+0.1x1000") == expected


def test_stale_is_the_marker_and_nan_is_not() -> None:
    stale, nan = parse_values("stale NaN")
    assert struct.pack("<d", stale) == struct.pack("<Q", STALE_BITS)
    assert nan is not None
    assert math.isnan(nan)
    assert struct.pack("<d", nan) != struct.pack("<Q", STALE_BITS)


@pytest.mark.parametrize(
    "text",
    [
        "1x",
        "x3",
        "__",
        "_1",
        "1+x3",
        "1++1x2",
        "1 + 1x2",
        "a",
        "1a",
        "1x-3",
        "1x1.5",
        "1+1",
        "0x10a",
        "1,2",
        "1.5.2",
    ],
)
def test_other_values_are_refused(text: str) -> None:
    with pytest.raises(NotationError, match="expected a number"):
        parse_values(text)


@pytest.mark.parametrize("text", ["stalex3", "NaNx3", "1+NaNx3", "infx2"])
def test_words_are_not_repeated(text: str) -> None:
    with pytest.raises(NotationError):
        parse_values(text)


def test_native_histograms_are_refused_by_name() -> None:
    with pytest.raises(NotationError, match="native histograms are not supported"):
        parse_values("{{schema:1 sum:3}} {{sum:3}}x2")


def test_no_series_becomes_too_long() -> None:
    with pytest.raises(NotationError, match="more than 2000000 values"):
        parse_values("1+1x99999999999999999999999")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("", ()),
        ("{}", ()),
        ("up", (("__name__", "up"),)),
        ("up{}", (("__name__", "up"),)),
        ("a:b_c", (("__name__", "a:b_c"),)),
        ('up{b="2", a="1",}', (("__name__", "up"), ("a", "1"), ("b", "2"))),
        ('{a="1"}', (("a", "1"),)),
        ("{__name__='x', a = `\\d`}", (("__name__", "x"), ("a", "\\d"))),
        ('up{a="x\\"y\\n"}', (("__name__", "up"), ("a", 'x"y\n'))),
        ('up{a=""}', (("__name__", "up"),)),
        ('{"my.metric", "my.label"="é"}', (("__name__", "my.metric"), ("my.label", "é"))),
    ],
)
def test_a_series_is_read(text: str, labels: object) -> None:
    assert parse_labels(text) == labels


@pytest.mark.parametrize(
    "text",
    ["1up", "up{a=b}", 'up{a!="b"}', 'up{a=~"b"}', 'up{a="b"}}', 'up{a="b" c="d"}', 'up{a="b",,}', "up{,}", "up{", "up x",
     'up{a="b",a="c"}', 'up{a="\\q"}', 'up{1a="x"}', "nan", 'up{a="b"', 'up{"x"}'],
)  # fmt: skip
def test_what_is_no_series_is_refused(text: str) -> None:
    with pytest.raises(NotationError):
        parse_labels(text)


@given(st.text(alphabet="up{}=\"a,1x+-_ \\`'stalenfi.é\n\0", max_size=30))
def test_no_text_raises_anything_else(text: str) -> None:
    for parse in (parse_labels, parse_values):
        try:
            parse(text)
        except NotationError:
            continue
