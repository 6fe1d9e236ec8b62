"""The grid of what need not be done at a time of its own."""

from __future__ import annotations

import pytest

from exporter.ticks import next_tick


@pytest.mark.parametrize(
    ("now", "interval", "expected"),
    [(0.0, 0.5, 0.5), (0.49, 0.5, 0.5), (0.5, 0.5, 1.0), (1234.2, 1.0, 1235.0), (1234.2, 0.25, 1234.25)],
)
def test_a_tick_is_the_next_multiple_of_the_interval(now: float, interval: float, expected: float) -> None:
    assert next_tick(now, interval) == expected


def test_ticks_of_intervals_that_divide_each_other_fall_together() -> None:
    assert next_tick(77.3, 1.0) in {next_tick(77.3, 0.5), next_tick(77.5, 0.5)}
