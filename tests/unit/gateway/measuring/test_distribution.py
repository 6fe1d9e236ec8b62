"""Many observations counted at once are what they are one by one."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.gateway.measuring.distribution import Distribution

BOUNDS = (0.01, 0.1, 1.0)


@given(st.lists(st.sampled_from([*BOUNDS, 0.0, 0.05, 2.0]) | st.floats(0, 10), max_size=50))
def test_counted_at_once_or_one_by_one(values: list[float]) -> None:
    single, together = Distribution(BOUNDS), Distribution(BOUNDS)
    for value in values:
        single.observe(value)
    together.observe_all(array("d", values))
    told, other = single.state(), together.state()
    assert other.pop("total") == pytest.approx(told.pop("total"))
    assert other == told
    assert together.count == single.count
