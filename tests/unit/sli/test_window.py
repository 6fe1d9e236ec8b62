from __future__ import annotations

from statistics import fmean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.sli.window import SlidingSamples, SlidingWindow


def test_a_window_gains_what_came_within_its_length_and_a_step():
    window = SlidingWindow(60.0, steps=60)
    for second in range(200):
        elapsed, gains = window.advance(1000.0 + second, [float(second), 2.0 * second])
    assert 60.0 <= elapsed <= 61.0
    assert gains == [elapsed, 2 * elapsed]


def test_a_young_window_covers_what_there_is():
    window = SlidingWindow(60.0)
    assert window.advance(0.0, [5.0]) == (0.0, [0.0])
    assert window.advance(10.0, [7.0]) == (10.0, [2.0])


def test_a_restarted_window_begins_empty():
    window = SlidingWindow(60.0)
    window.advance(0.0, [5.0])
    window.restart(10.0, [100.0])
    assert window.advance(11.0, [101.0]) == (1.0, [1.0])


def test_a_clock_set_back_begins_the_window_again():
    window = SlidingWindow(60.0)
    window.advance(1000.0, [5.0])
    assert window.advance(500.0, [9.0]) == (0.0, [0.0])
    assert window.advance(501.0, [10.0]) == (1.0, [1.0])


def test_a_window_keeps_a_bounded_number_of_vectors():
    window = SlidingWindow(60.0, steps=10)
    for tick in range(10_000):
        window.advance(tick * 0.1, [0.0])
    assert len(window._kept) <= 12


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=100), st.floats(0.5, 50.0))
def test_samples_have_the_mean_and_median_of_the_last_seconds(values, length):
    samples = SlidingSamples(length)
    for second, value in enumerate(values):
        samples.add(float(second), value)
    now = float(len(values) - 1)
    samples.expire(now)
    kept = [value for second, value in enumerate(values) if now - second <= length]
    assert samples.mean() == pytest.approx(fmean(kept))
    assert samples.median() == pytest.approx(median(kept))


def test_no_samples_have_no_mean():
    samples = SlidingSamples(10.0)
    samples.add(0.0, 1.0)
    samples.expire(11.0)
    assert samples.mean() is None
    assert samples.median() is None


def test_more_samples_than_the_limit_push_the_oldest_out():
    samples = SlidingSamples(1e9, limit=3)
    for value in (100.0, 1.0, 2.0, 3.0):
        samples.add(0.0, value)
    assert samples.mean() == 2.0
