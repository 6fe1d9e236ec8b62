from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.promql.numbers import plain_float
from exporter.web.api.numbers import (
    NEVER,
    exponent_float,
    json_float,
    json_floats,
    json_time,
    rfc3339,
)


@pytest.mark.parametrize(
    ("value", "sample", "plain", "exponent"),
    [
        (0.0, "0", "0", "0e+00"),
        (-0.0, "-0", "-0", "-0e+00"),
        (1.0, "1", "1", "1e+00"),
        (0.1, "0.1", "0.1", "1e-01"),
        (-1234.5, "-1234.5", "-1234.5", "-1.2345e+03"),
        (100.0, "100", "100", "1e+02"),
        (1e16, "10000000000000000", "10000000000000000", "1e+16"),
        (float(2**60), "1152921504606847000", "1152921504606847000", "1.152921504606847e+18"),
        (1e20, "100000000000000000000", "100000000000000000000", "1e+20"),
        (1e21, "1e+21", "1000000000000000000000", "1e+21"),
        (-1.5e300, "-1.5e+300", "-15" + "0" * 299, "-1.5e+300"),
        (1e-5, "0.00001", "0.00001", "1e-05"),
        (1e-6, "0.000001", "0.000001", "1e-06"),
        (1.25e-7, "1.25e-07", "0.000000125", "1.25e-07"),
        (5e-324, "5e-324", "0." + "0" * 323 + "5", "5e-324"),
        (math.inf, "+Inf", "+Inf", "+Inf"),
        (-math.inf, "-Inf", "-Inf", "-Inf"),
        (math.nan, "NaN", "NaN", "NaN"),
    ],
)
def test_numbers_are_printed_as_go_prints_them(value: float, sample: str, plain: str, exponent: str) -> None:
    assert json_float(value) == sample
    assert plain_float(value) == plain
    assert exponent_float(value) == exponent


@given(st.floats())
def test_what_is_printed_reads_back_as_the_same_number(value: float) -> None:
    for text in (json_float(value), plain_float(value), exponent_float(value)):
        assert struct.pack("d", float(text)) == struct.pack("d", value) or value != value


@given(
    st.lists(
        st.one_of(
            st.floats(),
            st.integers(-(10**17), 10**17).map(float),
            st.sampled_from([0.0, -0.0, 1e15, 1e16, 1e21]),
        )
    )
)
@example([1.5] * 100 + [math.nan] * 50 + [-0.0, 0.0])
def test_many_numbers_are_printed_like_one(values: list[float]) -> None:
    assert json_floats(np.array(values, np.float64)) == list(map(json_float, values))


def test_long_arrays_are_printed_whole() -> None:
    values = np.linspace(0, 1, 10_001)
    assert json_floats(values) == list(map(json_float, values.tolist()))
    assert json_floats(np.full(20_000, 0.25)) == ["0.25"] * 20_000


def test_a_staleness_marker_among_values_is_a_nan() -> None:
    bits = np.array([0x7FF0000000000002, 0x7FF8000000000001], np.int64)
    assert json_floats(bits.view(np.float64)) == ["NaN", "NaN"]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (1435781451781, "1435781451.781"),
        (1435781451000, "1435781451"),
        (1500, "1.500"),
        (7, "0.007"),
        (-1007, "-1.007"),
        (0, "0"),
    ],
)
def test_times_of_samples_have_three_decimals_or_none(milliseconds: int, text: str) -> None:
    assert json_time(milliseconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, NEVER),
        (0.0, "1970-01-01T00:00:00Z"),
        (1435781451.781, "2015-07-01T20:10:51.781Z"),
        (1435781451.5, "2015-07-01T20:10:51.5Z"),
        (-1.0, "1969-12-31T23:59:59Z"),
        (1e300, NEVER),
        (math.nan, NEVER),
        (-60_000_000_000.0, "0068-09-03T13:20:00Z"),
    ],
)
def test_moments_are_printed_as_gos_json_does(seconds: float | None, text: str) -> None:
    assert rfc3339(seconds) == text
