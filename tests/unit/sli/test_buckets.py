from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.sli.buckets import BucketMap, edges, quantile

BOUNDS = st.lists(st.floats(0.001, 1000), min_size=1, max_size=30, unique=True).map(sorted)
OBSERVED = st.lists(st.floats(0, 2000), min_size=1, max_size=200)


def counted(values: list[float], bounds: list[float]) -> list[float]:
    return [float(sum(value <= bound for value in values)) for bound in bounds]


@given(BOUNDS, OBSERVED)
def test_the_same_bounds_map_to_the_same_counts(bounds, values):
    mapping = BucketMap(bounds, bounds)
    assert mapping.exact
    assert mapping.map(counted(values, bounds)) == counted(values, bounds)


@given(BOUNDS, BOUNDS, OBSERVED)
def test_mapped_counts_lie_between_those_of_the_neighbouring_source_bounds(source, bounds, values):
    mapped = BucketMap(source, bounds).map(counted(values, source))
    assert all(low <= high + 1e-9 for low, high in pairwise(mapped))
    for bound, count in zip(bounds, mapped, strict=True):
        below = max((s for s in source if s <= bound), default=0.0)
        above = min((s for s in source if s >= bound), default=None)
        low = sum(value <= below for value in values) if below else 0
        high = sum(value <= above for value in values) if above is not None else low
        assert low - 1e-9 <= count <= high + 1e-9


def test_inside_a_bucket_observations_count_as_spread_evenly():
    assert BucketMap([1.0, 2.0], [0.5, 1.25, 2.0]).map([8.0, 12.0]) == [4.0, 9.0, 12.0]


def test_what_lies_above_the_last_source_bound_counts_in_inf_alone():
    assert BucketMap([1.0], [1.0, 5.0, 10.0]).map([3.0]) == [3.0, 3.0, 3.0]


def test_a_source_without_finite_buckets_says_nothing_below_inf():
    assert BucketMap([], [1.0, 2.0]).map([]) == [0.0, 0.0]


def test_a_first_bound_that_is_not_positive_has_nothing_to_spread():
    assert BucketMap([0.0, 1.0], [-1.0, 0.0, 0.5]).map([2.0, 4.0]) == [0.0, 2.0, 3.0]


@given(BOUNDS, OBSERVED, st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_exact_one(bounds, values, q):
    exact = sorted(values)[max(0, math.ceil(q * len(values)) - 1)]
    found = quantile(q, bounds, counted(values, bounds), len(values))
    if exact > bounds[-1]:
        assert found == bounds[-1]
        return
    upper = min(bound for bound in bounds if bound >= exact)
    lower = max((bound for bound in bounds if bound < exact), default=0.0)
    assert lower - 1e-9 <= found <= upper + 1e-9


@given(st.integers(1, 400), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_of_evenly_spread_values_is_exact_to_one_step(count, q):
    bounds = [0.1 * step for step in range(1, 101)]
    values = [10.0 * (index + 0.5) / count for index in range(count)]
    found = quantile(q, bounds, counted(values, bounds), count)
    assert found == pytest.approx(q * 10.0, abs=10.0 / count + 0.1)


@pytest.mark.parametrize("q", [0.0, 0.5, 1.0])
def test_no_observations_have_no_quantile(q):
    assert quantile(q, [1.0, 2.0], [0.0, 0.0], 0.0) is None


def test_a_first_bound_below_zero_is_its_own_quantile():
    assert quantile(0.5, [-1.0, 1.0], [4.0, 4.0], 4.0) == -1.0


@given(BOUNDS, OBSERVED)
def test_every_observation_lies_between_the_edges(bounds, values):
    low, high = edges(bounds, counted(values, bounds), len(values))
    assert low <= min(min(values), bounds[-1])
    assert high >= min(max(values), bounds[-1])


def test_no_observations_have_no_edges():
    assert edges([1.0], [0.0], 0.0) is None
