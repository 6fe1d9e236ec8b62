"""time, pi, vector, scalar, timestamp, absent, absent_over_time, sort, and the parts of a date."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from listed_series import ListedSeries, Site, assert_same, call, labels, steps, table, vector, window

from exporter.promql.functions.simple import asked_labels
from exporter.promql.model import RangeVector, Scalar, Vector
from exporter.storage.model import Matcher

TWO = steps(1000, 2500)
X = labels(name="x", a="b")
A = labels(a="b")
Y = labels(name="y", a="c")


def numbers(result: Vector | Scalar) -> list[float]:
    assert isinstance(result, Scalar)
    return result.values.tolist()


def test_time_is_the_evaluations_own() -> None:
    assert numbers(call("time", TWO)) == [1.0, 2.5]
    assert numbers(call("pi", TWO)) == [math.pi] * 2


def test_a_scalar_becomes_a_series_without_labels() -> None:
    assert table(call("vector", TWO, Scalar(np.array([3.0, 4.0])))) == {(): [3.0, 4.0]}


def test_a_scalar_is_the_only_value_there_is() -> None:
    assert numbers(call("scalar", TWO, vector({X: [1.0, 2.0]}))) == [1.0, 2.0]
    got = numbers(
        call(
            "scalar",
            steps(0, 1000, 2000, 3000),
            vector({X: [1.0, None, 5.0, None], Y: [1.0, 7.0, None, None]}),
        )
    )
    assert math.isnan(got[0])
    assert got[1:3] == [7.0, 5.0]
    assert math.isnan(got[3])


def test_a_scalar_of_nothing_is_nan() -> None:
    assert all(map(math.isnan, numbers(call("scalar", TWO, Vector([], np.zeros((0, 2)))))))
    assert all(map(math.isnan, numbers(call("scalar", TWO, vector({X: [1.0, 2.0], Y: [1.0, 2.0]})))))


def test_a_timestamp_of_a_selector_is_when_the_sample_was_taken() -> None:
    taken = vector({X: [0.5, 2.5]})
    assert table(Site("timestamp", matchers=(Matcher("__name__", "=", "x"),))(TWO, taken)) == {A: [0.5, 2.5]}


def test_a_timestamp_of_anything_else_is_the_evaluations_time() -> None:
    assert table(call("timestamp", TWO, vector({X: [7.0, None]}))) == {A: [1.0, None]}


ASKED = (
    Matcher("__name__", "=", "x"),
    Matcher("job", "=", "vllm"),
    Matcher("twice", "=", "a"),
    Matcher("twice", "=", "b"),
    Matcher("other", "!=", "a"),
    Matcher("any", "=~", "a.*"),
    Matcher("none", "=", ""),
)


def test_absence_is_told_under_the_labels_that_were_asked_for() -> None:
    assert asked_labels(ASKED) == (("job", "vllm"),)
    assert asked_labels((Matcher("a", "!=", "b"), Matcher("a", "=", "c"))) == (("a", "c"),)
    at = steps(0, 1000)
    site = Site("absent", matchers=ASKED)
    assert table(site(at, vector({X: [1.0, None], Y: [None, None]}))) == {labels(job="vllm"): [None, 1.0]}
    assert table(site(at, vector({X: [1.0, 1.0]}))) == {}
    first = site(at, Vector([], np.zeros((0, 2))))
    assert table(first) == {labels(job="vllm"): [1.0, 1.0]}
    assert site(at, Vector([], np.zeros((0, 2)))).labels is first.labels


def test_absence_of_an_expression_has_no_labels() -> None:
    assert table(call("absent", TWO, Vector([], np.zeros((0, 2))))) == {(): [1.0, 1.0]}


def test_absence_over_time_is_that_of_samples_in_the_window() -> None:
    at = steps(10_000, 20_000, 30_000)
    series = {X: [(5_000, 1.0)], Y: [(10_000, math.nan)]}
    site = Site("absent_over_time", matchers=(Matcher("a", "=", "b"),))
    assert table(site(at, window(series, at, 10_000))) == {A: [None, 1.0, 1.0]}
    assert table(site(at, window({}, at, 10_000))) == {A: [1.0, 1.0, 1.0]}


def test_sorting_puts_nan_last_either_way() -> None:
    rows = {labels(name="x", i=str(i)): [value] for i, value in enumerate([2.0, math.nan, -1.0, math.inf])}
    rows[labels(name="x", i="none")] = [None]
    now = steps(1000)

    def order(name: str) -> list[str]:
        got = call(name, now, vector(rows))
        assert got.present is not None
        return [dict(one)["i"] for one, here in zip(got.labels, got.present[:, 0], strict=True) if here]

    assert order("sort") == ["2", "0", "3", "1"]
    assert order("sort_desc") == ["3", "0", "2", "1"]


def test_sorting_twice_alike_gives_the_same_labels() -> None:
    given_rows = vector({X: [2.0], Y: [1.0]})
    site = Site("sort")
    first = site(steps(1000), given_rows)
    assert list(first.labels) == [Y, X]
    assert site(steps(2000), given_rows).labels is first.labels


def test_series_over_a_range_have_no_order() -> None:
    given_rows = vector({X: [2.0, 2.0], Y: [1.0, 1.0]})
    assert call("sort", TWO, given_rows) is given_rows


PARTS = {
    "minute": lambda at: at.minute,
    "hour": lambda at: at.hour,
    "day_of_week": lambda at: at.isoweekday() % 7,
    "day_of_month": lambda at: at.day,
    "day_of_year": lambda at: at.timetuple().tm_yday,
    "days_in_month": lambda at: (
        ((at.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)).day
    ),
    "month": lambda at: at.month,
    "year": lambda at: at.year,
}


@pytest.mark.parametrize("name", PARTS)
@given(seconds=st.floats(-6e10, 2.5e11))
def test_a_date_is_taken_apart_in_utc(name: str, seconds: float) -> None:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))  # towards zero
    assert table(call(name, steps(0), vector({X: [seconds]}))) == {A: [float(PARTS[name](at))]}


@pytest.mark.parametrize("name", PARTS)
def test_without_an_argument_it_is_the_evaluations_date(name: str) -> None:
    at = datetime(2024, 2, 29, 23, 59, 59, 999_000, tzinfo=UTC)
    assert table(call(name, steps(int(at.timestamp() * 1000)))) == {(): [float(PARTS[name](at))]}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e300])
def test_what_is_no_date_has_no_parts(name: str, value: float) -> None:
    assert_same(table(call(name, steps(0), vector({X: [value]}))), {A: [math.nan]})


@pytest.mark.parametrize("name", PARTS)
def test_a_date_beyond_all_calendars_breaks_nothing(name: str) -> None:
    call(name, steps(0), vector({X: [2.0**61], Y: [-(2.0**61)]}))


def test_the_window_of_a_subquery_is_a_window_like_any_other() -> None:
    asked = RangeVector(ListedSeries({X: [(5_000, 1.0)]}), np.array([0, 5_000]), np.array([5_000, 10_000]))
    assert table(call("count_over_time", steps(6_000, 11_000), asked)) == {A: [1.0, None]}
