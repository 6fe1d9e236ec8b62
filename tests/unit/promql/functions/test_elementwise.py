"""Functions of single values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from listed_series import Site, assert_same, call, labels, steps, table, vector

from exporter.promql.model import Scalar

NOW = steps(1_700_000_000_000)
X = labels(name="x", a="b")
A = labels(a="b")
NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("name", "given", "result"),
    [
        ("abs", -2.5, 2.5),
        ("ceil", 1.1, 2.0),
        ("ceil", -1.1, -1.0),
        ("floor", -1.1, -2.0),
        ("exp", 1.0, math.e),
        ("exp", 1000.0, INF),
        ("sqrt", 9.0, 3.0),
        ("sqrt", -1.0, NAN),
        ("ln", 0.0, -INF),
        ("ln", -1.0, NAN),
        ("ln", math.e, 1.0),
        ("log2", 8.0, 3.0),
        ("log10", 1000.0, 3.0),
        ("sgn", -3.0, -1.0),
        ("sgn", 0.0, 0.0),
        ("sgn", INF, 1.0),
        ("sgn", NAN, NAN),
        ("deg", math.pi, 180.0),
        ("rad", 180.0, math.pi),
        ("sin", 1.0, math.sin(1.0)),
        ("cos", 1.0, math.cos(1.0)),
        ("tan", 1.0, math.tan(1.0)),
        ("asin", 0.5, math.asin(0.5)),
        ("asin", 2.0, NAN),
        ("acos", 0.5, math.acos(0.5)),
        ("atan", INF, math.pi / 2),
        ("sinh", 1.0, math.sinh(1.0)),
        ("cosh", 1.0, math.cosh(1.0)),
        ("tanh", 1.0, math.tanh(1.0)),
        ("asinh", 1.0, math.asinh(1.0)),
        ("acosh", 0.5, NAN),
        ("acosh", 2.0, math.acosh(2.0)),
        ("atanh", 1.0, INF),
        ("sin", INF, NAN),
        ("round", 0.5, 1.0),
        ("round", -0.5, 0.0),
        ("round", 2.4, 2.0),
        ("abs", NAN, NAN),
    ],
)
def test_each_value_becomes_what_the_function_says(name: str, given: float, result: float) -> None:
    assert_same(table(call(name, NOW, vector({X: [given]}))), {A: [result]}, relative=1e-15)


@pytest.mark.parametrize(
    ("given", "nearest", "result"),
    [
        (1.26, 0.1, 1.3),
        (7.0, 5.0, 5.0),
        (7.5, 5.0, 10.0),
        (-7.5, 5.0, -5.0),
        (3.0, 0.0, NAN),
        (3.0, NAN, NAN),
    ],
)
def test_round_goes_to_the_nearest_multiple(given: float, nearest: float, result: float) -> None:
    assert_same(table(call("round", NOW, vector({X: [given]}), nearest)), {A: [result]})


def test_clamp_keeps_values_between_bounds_and_nan_as_it_is() -> None:
    at = steps(0, 1000, 2000, 3000)
    given = vector({X: [1.0, 5.0, 9.0, NAN]})
    assert_same(table(call("clamp", at, given, 2, 6)), {A: [2.0, 5.0, 6.0, NAN]})
    assert_same(table(call("clamp_min", at, given, 2)), {A: [2.0, 5.0, 9.0, NAN]})
    assert_same(table(call("clamp_max", at, given, 6)), {A: [1.0, 5.0, 6.0, NAN]})


def test_nothing_passes_an_infinite_bound_not_even_nan() -> None:
    at = steps(0, 1000)
    given = vector({X: [1.0, NAN]})
    assert_same(table(call("clamp_min", at, given, INF)), {A: [INF, INF]})
    assert_same(table(call("clamp_max", at, given, -INF)), {A: [-INF, -INF]})
    assert_same(table(call("clamp_min", at, given, -INF)), {A: [1.0, NAN]})


def test_clamp_between_crossed_bounds_is_nothing() -> None:
    at = steps(0, 1000, 2000)
    given = vector({X: [1.0, 5.0, None]})
    assert table(call("clamp", at, given, 6, 2)) == {}
    assert table(call("clamp", at, given, Scalar(np.array([6.0, 0.0, 0.0])), 2)) == {A: [None, 2.0, None]}


def test_what_is_absent_stays_absent() -> None:
    at = steps(0, 1000)
    assert table(call("abs", at, vector({X: [None, -1.0]}))) == {A: [None, 1.0]}


def test_names_are_dropped_once_per_set_of_series() -> None:
    given = vector({X: [1.0]})
    site = Site("abs")
    first = site(NOW, given).labels
    assert site(NOW, given).labels is first
    assert list(first) == [A]
