"""histogram_quantile and histogram_fraction, against Prometheus' arithmetic for one histogram at a time."""

from __future__ import annotations

import math
from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from listed_series import Site, assert_same, call, labels, steps, table, vector

from exporter.promql.functions.buckets import bound, monotonic
from exporter.promql.model import Scalar
from exporter.storage.model import Labels

Buckets = list[tuple[float, float]]
"""Bounds with cumulative counts."""


def merged(buckets: Buckets) -> Buckets:
    out: Buckets = []
    for at, count in sorted(buckets, key=lambda bucket: bucket[0]):
        if out and out[-1][0] == at:
            out[-1] = (at, out[-1][1] + count)
        else:
            out.append((at, count))
    return out


def almost_equal(a: float, b: float) -> bool:
    if a == b:
        return True
    if a == 0 or b == 0 or abs(a) + abs(b) < 2.0**-1022:
        return abs(a - b) < 1e-12 * 2.0**-1022
    return abs(a - b) / (abs(a) + abs(b)) < 1e-12


def raised(buckets: Buckets) -> Buckets:
    out, highest = [], buckets[0][1]
    for at, count in buckets:
        if not (count == highest or almost_equal(count, highest) or count < highest):
            highest = count
        out.append((at, highest))
    return out


def quantile(q: float, buckets: Buckets) -> float:
    if math.isnan(q):
        return math.nan
    if q < 0 or q > 1:
        return math.copysign(math.inf, q)
    buckets = merged(buckets)
    if buckets[-1][0] != math.inf:
        return math.nan
    buckets = raised(buckets)
    if len(buckets) < 2 or buckets[-1][1] == 0:
        return math.nan
    bounds, counts = [at for at, _ in buckets], [count for _, count in buckets]
    rank = q * counts[-1]
    place = bisect_left(counts[:-1], rank)
    if place == len(buckets) - 1:
        return bounds[-2]
    if place == 0 and bounds[0] <= 0:
        return bounds[0]
    start, below = (bounds[place - 1], counts[place - 1]) if place else (0.0, 0.0)
    inside = counts[place] - below
    return start + (bounds[place] - start) * ((rank - below) / inside) if inside else math.nan


def observed_up_to(value: float, buckets: Buckets) -> float:
    start, below = (0.0 if buckets[0][0] > 0 else -math.inf), 0.0
    for at, count in buckets:
        if start >= value:
            return below
        if value < at:
            return count if start == -math.inf else below + (count - below) * (value - start) / (at - start)
        start, below = at, count
    return below


def fraction(lower: float, upper: float, buckets: Buckets) -> float:
    buckets = merged(buckets)
    total = buckets[-1][1]
    if buckets[-1][0] != math.inf or total == 0 or math.isnan(lower) or math.isnan(upper):
        return math.nan
    if lower >= upper:
        return 0.0
    return (min(observed_up_to(upper, buckets), total) - min(observed_up_to(lower, buckets), total)) / total


BOUNDS = ["-1", "0", "0.1", "0.25", "0.5", "1", "1.0", "2", "10", "+Inf", "Inf"]
COUNTS = st.one_of(st.integers(0, 50).map(float), st.floats(0, 1e6).filter(lambda x: x == 0 or x > 1e-6))
Q = st.one_of(st.floats(-0.2, 1.2), st.sampled_from([0.0, 0.5, 0.99, 1.0, math.nan, math.inf, -math.inf]))


@st.composite
def counted(draw: st.DrawFn) -> tuple[dict[Labels, list[float | None]], int]:
    """Histograms whose buckets come and go between the steps; counts may fall."""
    count = draw(st.integers(1, 4))
    series: dict[Labels, list[float | None]] = {}
    for number in range(draw(st.integers(0, 3))):
        bounds = draw(st.lists(st.sampled_from(BOUNDS), unique=True, max_size=8))
        whole = draw(st.booleans())
        for at in bounds:
            cell = COUNTS if whole else st.one_of(st.none(), COUNTS)
            row = draw(st.lists(cell, min_size=count, max_size=count))
            series[labels(name="h_bucket", i=str(number), le=at)] = row
    if draw(st.booleans()):
        for row in series.values():  # so that counts mostly rise
            row[:] = [value if value is None else value + 100.0 * index for index, value in enumerate(row)]
    return series, count


def by_hand(series: dict, count: int, of) -> dict:
    grouped: dict[Labels, list[Buckets]] = {}
    for one, row in series.items():
        own = labels(**{key: value for key, value in one if key not in ("le", "__name__")})
        steps_of = grouped.setdefault(own, [[] for _ in range(count)])
        at = float(dict(one)["le"])
        for step, value in enumerate(row):
            if value is not None:
                steps_of[step].append((at, value))
    return {
        own: [of(buckets) if buckets else None for buckets in steps_of] for own, steps_of in grouped.items()
    }


@given(histograms=counted(), q=Q)
def test_a_quantile_is_found_in_its_bucket(histograms: tuple[dict, int], q: float) -> None:
    series, count = histograms
    at = steps(*range(1000, 1000 + count * 1000, 1000))
    got = table(call("histogram_quantile", at, q, vector(series)))
    assert_same(got, by_hand(series, count, lambda buckets: quantile(q, buckets)))


EDGES = st.one_of(st.floats(-3, 12), st.sampled_from([-math.inf, math.inf, math.nan, 0.0, 0.1, 1.0, -1.0]))


@given(histograms=counted(), lower=EDGES, upper=EDGES)
def test_a_fraction_is_what_lies_between(histograms: tuple[dict, int], lower: float, upper: float) -> None:
    series, count = histograms
    at = steps(*range(1000, 1000 + count * 1000, 1000))
    got = table(call("histogram_fraction", at, lower, upper, vector(series)))
    assert_same(got, by_hand(series, count, lambda buckets: fraction(lower, upper, buckets)), absolute=1e-12)


NOW = steps(1000)


def one(**counts: float) -> dict[Labels, list[float | None]]:
    return {labels(name="h", le=at): [count] for at, count in counts.items()}


def quantile_of(q: float, buckets: dict[str, float]) -> float:
    return table(call("histogram_quantile", NOW, q, vector(one(**buckets))))[()][0]


def test_the_tail_is_the_highest_finite_bound() -> None:
    assert quantile_of(0.99, {"1": 10, "2": 20, "+Inf": 100}) == 2.0


def test_the_first_bucket_begins_at_zero_unless_its_bound_is_not_above_it() -> None:
    assert quantile_of(0.5, {"1": 10, "+Inf": 10}) == 0.5
    assert quantile_of(0.5, {"-1": 10, "+Inf": 10}) == -1.0
    assert quantile_of(0.5, {"0": 10, "+Inf": 10}) == 0.0


@pytest.mark.parametrize(
    "buckets",
    [{"1": 1.0, "2": 2.0}, {"+Inf": 3.0}, {"1": 0.0, "+Inf": 0.0}],
    ids=["no +Inf", "only +Inf", "empty"],
)
def test_there_is_no_quantile_without_observations_and_bounds(buckets: dict[str, float]) -> None:
    assert math.isnan(quantile_of(0.5, buckets))
    assert quantile_of(-1, buckets) == -math.inf
    assert quantile_of(2, buckets) == math.inf


def test_a_bound_written_in_two_ways_is_one_bucket() -> None:
    assert quantile_of(0.5, {"1": 5, "1.0": 5, "2": 20, "+Inf": 20}) == 1.0


def test_a_count_that_falls_is_raised_to_the_one_before() -> None:
    counts = np.array([[1.0, 10.0], [5.0, 10.0], [4.0, 10.0 * (1 + 1e-14)], [6.0, 11.0]])
    assert monotonic(counts).tolist() == [[1, 10], [5, 10], [5, 10], [6, 11]]


def test_the_counts_given_are_not_changed() -> None:
    given_counts = vector(one(**{"1": 5, "2": 4, "+Inf": 6}))
    before = given_counts.values.copy()
    call("histogram_quantile", NOW, 0.5, given_counts)
    assert (given_counts.values == before).all()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("+Inf", math.inf),
        ("inf", math.inf),
        ("-Infinity", -math.inf),
        (".5", 0.5),
        ("1e-3", 0.001),
    ],
)
def test_a_bound_is_read_as_prometheus_reads_it(text: str, value: float) -> None:
    assert bound(text) == value


@pytest.mark.parametrize("text", [None, "", "x", " 1", "1_000", "NaN", "1e999", "١"])
def test_what_is_no_bound_is_left_out(text: str | None) -> None:
    assert bound(text) is None


def test_a_series_without_a_bound_is_of_no_histogram() -> None:
    series = {labels(name="h_count"): [3.0], labels(name="h", le="many"): [1.0]}
    assert table(call("histogram_quantile", NOW, 0.5, vector(series))) == {}


def test_the_quantile_may_be_another_one_at_each_step() -> None:
    at = steps(1000, 2000, 3000)
    series = {labels(le="1"): [10.0] * 3, labels(le="2"): [20.0] * 3, labels(le="+Inf"): [20.0] * 3}
    got = table(call("histogram_quantile", at, Scalar(np.array([0.25, 0.75, 2.0])), vector(series)))
    assert got == {(): [0.5, 1.5, math.inf]}


def test_histograms_with_other_bounds_stand_beside_each_other() -> None:
    series = {
        labels(i="a", le="1"): [5.0],
        labels(i="b", le="4"): [5.0],
        labels(i="a", le="+Inf"): [5.0],
        labels(i="b", le="+Inf"): [5.0],
    }
    got = table(call("histogram_quantile", NOW, 0.5, vector(series)))
    assert got == {labels(i="a"): [0.5], labels(i="b"): [2.0]}


def test_histograms_are_found_once_per_set_of_series() -> None:
    given_counts = vector(one(**{"1": 5, "+Inf": 6}))
    site = Site("histogram_quantile")
    assert site(NOW, 0.5, given_counts).labels is site(NOW, 0.5, given_counts).labels
