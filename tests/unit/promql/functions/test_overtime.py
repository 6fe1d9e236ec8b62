"""The functions that look at every sample of a window, against plain Python for one series at a time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from listed_series import (
    EVEN_GAPS,
    NUMBERS,
    VALUES,
    WIDTHS,
    Points,
    Site,
    assert_same,
    call,
    evaluations,
    inside,
    labels,
    several,
    steps,
    table,
    window,
)

from exporter.promql.functions import windows
from exporter.promql.functions.quantiles import quantiles
from exporter.promql.functions.summation import means, sums
from exporter.promql.labels import drop_name
from exporter.promql.model import QueryError, Scalar, Steps

X = labels(name="x", a="b")
A = labels(a="b")


def exact_sum(values: list[float]) -> float:
    if all(map(math.isfinite, values)):
        return float(sum(map(Fraction, values)))
    return sum(value for value in values if not math.isfinite(value))


def highest(values: list[float]) -> float:
    known = [value for value in values if value == value]
    return max(known) if known else math.nan


def lowest(values: list[float]) -> float:
    return -highest([-value for value in values])


def variance(values: list[float]) -> float:
    if not all(map(math.isfinite, values)):
        return math.nan
    return float(statistics.pvariance([Fraction(value) for value in values]))


def changes(values: list[float]) -> float:
    return float(sum(a != b and not (math.isnan(a) and math.isnan(b)) for a, b in pairwise(values)))


def irate(found: Points) -> float:
    (before, was), (after, now) = found[-2:]
    return (now if now < was else now - was) / ((after - before) / 1000)


def slope_and_height(found: Points, at: int) -> tuple[float, float]:
    """The least-squares line, in exact arithmetic."""
    values = [value for _, value in found]
    if all(value == values[0] for value in values):
        return (math.nan, math.nan) if math.isinf(values[0]) else (0.0, values[0])
    if not all(map(math.isfinite, values)):
        return math.nan, math.nan
    xs = [Fraction(time - at, 1000) for time, _ in found]
    ys = [Fraction(value) for value in values]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    covariance = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    slope = covariance / sum((x - mean_x) ** 2 for x in xs)
    return float(slope), float(mean_y - slope * mean_x)


def holt(values: list[float], smoothing: float, trend: float) -> float:
    before = level = values[0]
    slope = values[1] - values[0]
    for place, value in enumerate(values[1:]):
        if place:
            slope = trend * (level - before) + (1 - trend) * slope
        before, level = level, smoothing * value + (1 - smoothing) * (level + slope)
    return level


Reference = Callable[[Points, int], float | None]


def of_values(of: Callable[[list[float]], float], least: int = 1) -> Reference:
    return lambda found, _at: of([value for _, value in found]) if len(found) >= least else None


EXACT: dict[str, Reference] = {
    "count_over_time": of_values(lambda values: float(len(values))),
    "present_over_time": of_values(lambda values: 1.0),
    "last_over_time": of_values(lambda values: values[-1]),
    "max_over_time": of_values(highest),
    "min_over_time": of_values(lowest),
    "sum_over_time": of_values(exact_sum),
    "avg_over_time": of_values(lambda values: exact_sum(values) / len(values)),
    "changes": of_values(changes),
    "resets": of_values(lambda values: float(sum(b < a for a, b in pairwise(values)))),
    "idelta": of_values(lambda values: values[-1] - values[-2], 2),
    "irate": lambda found, _at: irate(found) if len(found) > 1 else None,
}
CLOSE: dict[str, Reference] = {
    "stdvar_over_time": of_values(variance),
    "deriv": lambda found, at: slope_and_height(found, at)[0] if len(found) > 1 else None,
}


def by_reference(
    name: str, of: Reference, series: dict, at: Steps, width: int
) -> dict[tuple, list[float | None]]:
    named = (lambda one: one) if name == "last_over_time" else drop_name
    return {
        named(one): [
            of(found, time) if (found := inside(points, time - width, time)) else None
            for time in at.times.tolist()
        ]
        for one, points in series.items()
    }


@pytest.mark.parametrize("name", EXACT)
@given(series=several(), at=evaluations(), width=WIDTHS)
def test_each_window_comes_to_what_its_samples_say(name: str, series: dict, at: Steps, width: int) -> None:
    expected = by_reference(name, EXACT[name], series, at, width)
    assert_same(table(call(name, at, window(series, at, width))), expected, relative=1e-14, absolute=1e-300)


@pytest.mark.parametrize("name", CLOSE)
@given(series=several(NUMBERS), at=evaluations(), width=WIDTHS)
def test_sums_of_products_are_close_to_exact(name: str, series: dict, at: Steps, width: int) -> None:
    expected = by_reference(name, CLOSE[name], series, at, width)
    assert_same(table(call(name, at, window(series, at, width))), expected, relative=1e-6, absolute=1e-3)


@pytest.mark.parametrize("name", CLOSE)
@given(series=several(VALUES), at=evaluations(), width=WIDTHS)
def test_what_is_not_finite_spoils_a_fit_in_its_own_series_only(
    name: str, series: dict, at: Steps, width: int
) -> None:
    expected = by_reference(name, CLOSE[name], series, at, width)
    assert_same(table(call(name, at, window(series, at, width))), expected, relative=1e-6, absolute=1e-3)


@given(series=several(NUMBERS, EVEN_GAPS), at=evaluations(), width=WIDTHS, ahead=st.integers(-100, 4000))
def test_predict_linear_goes_on_from_the_evaluations_time(
    series: dict, at: Steps, width: int, ahead: int
) -> None:
    def predicted(found: Points, now: int) -> float | None:
        if len(found) < 2:
            return None
        slope, height = slope_and_height(found, now)
        return slope * ahead + height

    expected = by_reference("", predicted, series, at, width)
    got = table(call("predict_linear", at, window(series, at, width), ahead))
    assert_same(got, expected, relative=1e-6, absolute=1.0)


@given(
    series=several(NUMBERS),
    at=evaluations(),
    width=WIDTHS,
    smoothing=st.floats(0.01, 0.99),
    trend=st.floats(0.01, 0.99),
)
def test_smoothing_follows_level_and_trend(
    series: dict, at: Steps, width: int, smoothing: float, trend: float
) -> None:
    expected = by_reference(
        "", of_values(lambda values: holt(values, smoothing, trend), 2), series, at, width
    )
    for name in ("holt_winters", "double_exponential_smoothing"):
        got = table(call(name, at, window(series, at, width), smoothing, trend))
        assert_same(got, expected, relative=1e-9, absolute=1e-6)


@pytest.mark.parametrize(
    ("smoothing", "trend", "message"),
    [
        (0, 0.5, "invalid smoothing factor. Expected: 0 < sf < 1, got: 0.000000"),
        (0.5, 1, "invalid trend factor. Expected: 0 < tf < 1, got: 1.000000"),
    ],
)
def test_a_smoothing_factor_out_of_bounds_is_told(smoothing: float, trend: float, message: str) -> None:
    at = steps(20_000)
    series = window({X: [(10_000, 1.0), (20_000, 2.0)]}, at, 60_000)
    with pytest.raises(QueryError) as told:
        call("double_exponential_smoothing", at, series, smoothing, trend)
    assert str(told.value) == message


def quantile(q: float, values: list[float]) -> float:
    if math.isnan(q):
        return math.nan
    if q < 0 or q > 1:
        return math.copysign(math.inf, q)
    ordered = sorted(values, key=lambda value: (value == value, value if value == value else 0))
    rank = q * (len(values) - 1)
    low = math.floor(rank)
    high = min(len(values) - 1, low + 1)
    return ordered[low] * (1 - (rank - low)) + ordered[high] * (rank - low)


QUANTILES = st.one_of(st.floats(-0.1, 1.1), st.sampled_from([0.0, 0.5, 0.9, 1.0, math.nan, math.inf]))


@given(series=several(), at=evaluations(), width=WIDTHS, q=QUANTILES)
def test_a_quantile_lies_between_the_samples_around_its_rank(
    series: dict, at: Steps, width: int, q: float
) -> None:
    expected = by_reference("", of_values(lambda values: quantile(q, values)), series, at, width)
    got = table(call("quantile_over_time", at, q, window(series, at, width)))
    assert_same(got, expected, relative=1e-12, absolute=1e-12)


def test_nan_is_the_smallest_value_of_a_quantile() -> None:
    row = np.array([[3.0, math.nan, 1.0]])
    assert math.isnan(quantiles(0.0, row)[0])
    assert quantiles(0.5, row)[0] == 1.0
    assert quantiles(1.0, row)[0] == 3.0


def test_the_quantile_may_be_another_one_at_each_step() -> None:
    at = steps(20_000, 30_000)
    series = window({X: [(10_000, 1.0), (20_000, 2.0), (30_000, 3.0)]}, at, 60_000)
    got = table(call("quantile_over_time", at, Scalar(np.array([0.0, 1.0])), series))
    assert got == {A: [1.0, 3.0]}


def test_small_values_are_not_lost_beside_large_ones() -> None:
    assert sums(np.array([[1.0, 1e100, 1.0, -1e100]])).tolist() == [2.0]
    assert means(np.array([[1.0, 1e100, 1.0, -1e100]])).tolist() == [0.5]


def test_a_mean_may_be_taken_of_values_whose_sum_is_no_float() -> None:
    largest = np.finfo(np.float64).max
    rows = np.array(
        [[largest] * 4, [-largest] * 4, [1.0, 2.0, 3.0, math.inf], [math.inf, 1.0, -math.inf, 1.0]]
    )
    with np.errstate(all="ignore"):
        mean = means(rows)
    assert mean[:3].tolist() == [pytest.approx(largest), pytest.approx(-largest), math.inf]
    assert math.isnan(mean[3])


def test_equal_values_have_no_variance_at_all() -> None:
    at = steps(40_000)
    series = window({X: [(time, 1.0 / 3.0) for time in range(10_000, 41_000, 1000)]}, at, 60_000)
    assert table(call("stdvar_over_time", at, series)) == {A: [0.0]}
    assert table(call("stddev_over_time", at, series)) == {A: [0.0]}


def test_a_deviation_is_the_root_of_the_variance() -> None:
    at = steps(40_000)
    series = window({X: [(10_000, 2.0), (20_000, 4.0), (30_000, 6.0), (40_000, 8.0)]}, at, 60_000)
    assert table(call("stddev_over_time", at, series)) == {A: [math.sqrt(5.0)]}


def test_a_growing_queue_is_seen_coming() -> None:
    at = steps(600_000)
    series = window({X: [(time, time / 1000) for time in range(0, 601_000, 15_000)]}, at, 600_000)
    assert_same(table(call("predict_linear", at, series, 3600)), {A: [4200.0]})
    assert_same(table(call("deriv", at, series)), {A: [1.0]})


def test_the_last_sample_keeps_its_name() -> None:
    at = steps(20_000)
    got = call("last_over_time", at, window({X: [(10_000, 7.0)]}, at, 60_000))
    assert table(got) == {X: [7.0]}


def test_a_large_window_is_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    at = steps(40_000)
    series = {
        labels(name="x", i=str(number)): [
            (time, float(number * time)) for time in range(10_000, 41_000, 1000)
        ]
        for number in range(20)
    }
    whole = table(call("sum_over_time", at, window(series, at, 60_000)))
    monkeypatch.setattr(windows, "AT_ONCE", 100)
    assert table(call("sum_over_time", at, window(series, at, 60_000))) == whole


def test_every_sample_is_counted() -> None:
    at = steps(40_000, 50_000)
    series = {X: [(time, 1.0) for time in range(10_000, 51_000, 10_000)]}
    Site("sum_over_time", samples=9)(at, window(series, at, 60_000))
    with pytest.raises(QueryError, match="too many samples"):
        Site("sum_over_time", samples=8)(at, window(series, at, 60_000))
