"""rate, increase and delta against Prometheus' rules written out for one series at a time, and known answers."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from listed_series import (
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

from exporter.promql.model import QueryError, Steps


def growth(points: Points, lo: int, hi: int, *, counter: bool, per_second: bool) -> float | None:
    found = inside(points, lo, hi)
    if len(found) < 2:
        return None
    (first_time, first), (last_time, last) = found[0], found[-1]
    grown = last - first
    if counter:
        for (_, before), (_, now) in pairwise(found):
            if now < before:
                grown += before
    to_start, to_end = (first_time - lo) / 1000, (hi - last_time) / 1000
    sampled = (last_time - first_time) / 1000
    average = sampled / (len(found) - 1)
    threshold = average * 1.1
    if to_start >= threshold:
        to_start = average / 2
    if counter:
        to_zero = to_start
        if grown > 0 and first >= 0:
            to_zero = sampled * (first / grown)
        to_start = min(to_start, to_zero) if to_zero == to_zero else to_start
    if to_end >= threshold:
        to_end = average / 2
    factor = (sampled + to_start + to_end) / sampled
    if per_second:
        factor /= (hi - lo) / 1000
    return grown * factor


KINDS = {
    "rate": {"counter": True, "per_second": True},
    "increase": {"counter": True, "per_second": False},
    "delta": {"counter": False, "per_second": False},
}


@pytest.mark.parametrize("name", KINDS)
@given(series=several(VALUES) | several(NUMBERS), at=evaluations(), width=WIDTHS)
def test_growth_is_carried_on_to_the_ends_as_prometheus_does(
    name: str, series: dict, at: Steps, width: int
) -> None:
    expected = {
        labels(**{key: value for key, value in one if key != "__name__"}): [
            growth(points, time - width, time, **KINDS[name]) for time in at.times.tolist()
        ]
        for one, points in series.items()
    }
    assert_same(table(call(name, at, window(series, at, width))), expected)


X = labels(name="x", a="b")
A = labels(a="b")


def test_a_steady_counter_grows_by_its_slope_over_the_whole_window() -> None:
    at = steps(60_000)
    steady = {X: [(time, time / 1000 * 2 + 100) for time in range(5_000, 61_000, 5_000)]}
    assert_same(table(call("rate", at, window(steady, at, 50_000))), {A: [2.0]})
    assert_same(table(call("increase", at, window(steady, at, 50_000))), {A: [100.0]})
    assert_same(table(call("delta", at, window(steady, at, 50_000))), {A: [100.0]})


def test_a_reset_counts_what_came_after_it() -> None:
    at = steps(50_000)
    reset = {X: list(zip(range(10_000, 60_000, 10_000), [50.0, 60.0, 5.0, 15.0, 25.0], strict=True))}
    # 10 + 5 + 10 + 10 = 35 in 40 s, and 10 s more on the left
    assert_same(table(call("increase", at, window(reset, at, 50_000))), {A: [35.0 * 50 / 40]})


def test_a_counter_is_not_carried_on_below_zero() -> None:
    at = steps(50_000)
    young = {X: list(zip(range(10_000, 60_000, 10_000), [1.0, 11.0, 21.0, 31.0, 41.0], strict=True))}
    assert_same(table(call("increase", at, window(young, at, 50_000))), {A: [40.0 * (40 + 1) / 40]})
    assert_same(table(call("delta", at, window(young, at, 50_000))), {A: [40.0 * 50 / 40]})


def test_a_series_that_ends_within_the_window_is_carried_on_by_half_an_interval() -> None:
    at = steps(100_000)
    ended = {X: [(time, float(time)) for time in range(10_000, 60_000, 10_000)]}
    assert_same(table(call("delta", at, window(ended, at, 100_000))), {A: [40_000.0 * (40 + 10 + 5) / 40]})


def test_one_sample_is_no_growth() -> None:
    at = steps(10_000, 20_000)
    assert table(call("rate", at, window({X: [(10_000, 1.0)]}, at, 60_000))) == {}


def test_a_window_without_its_left_end_holds_one_sample_less() -> None:
    at = steps(20_000)
    assert table(call("rate", at, window({X: [(10_000, 1.0), (20_000, 2.0)]}, at, 10_000))) == {}


def test_no_series_at_all_is_an_empty_vector() -> None:
    at = steps(10_000, 20_000)
    assert table(call("rate", at, window({}, at, 60_000))) == {}


def test_the_labels_are_the_same_object_while_the_selection_is() -> None:
    at = steps(20_000)
    asked = window({X: [(10_000, 1.0), (20_000, 2.0)]}, at, 60_000)
    rate = Site("rate")
    assert rate(at, asked).labels is rate(at, asked).labels


def test_the_budget_is_asked() -> None:
    at = steps(20_000)
    series = {labels(name="x", i=str(number)): [(10_000, 1.0)] for number in range(5)}
    with pytest.raises(QueryError, match="too many samples"):
        Site("rate", samples=4)(at, window(series, at, 60_000))
