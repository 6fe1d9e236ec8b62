"""Functions give of the store what they give of plain lists."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from listed_series import WIDTHS, ListedSeries, Points, assert_same, call, evaluations, labels, table

from exporter.promql.model import RangeVector, Steps
from exporter.storage.head import Head, Layout
from exporter.storage.model import Labels, Matcher
from exporter.storage.retention import Retention

CELLS = st.one_of(st.none(), st.integers(0, 9).map(float), st.sampled_from([0.5, math.nan, math.inf]))
MATCHERS = (Matcher("__name__", "=", "x"),)


@st.composite
def stored(draw: st.DrawFn) -> tuple[Head, dict[Labels, Points]]:
    """A head with series in streams of their own times, and the same series as lists."""
    head = Head(retention=Retention(3_600_000), memory_limit=1 << 26, segment_rows=(2, 5))
    series: dict[Labels, Points] = {}
    for stream in range(draw(st.integers(1, 2))):
        width = draw(st.integers(1, 4))
        names = [labels(name="x", stream=str(stream), i=str(number)) for number in range(width)]
        layout = Layout(names, draw(st.lists(st.booleans(), min_size=width, max_size=width)))
        time = 100_000
        for gap in draw(st.lists(st.sampled_from([1, 500, 1000, 1000, 3000]), max_size=12)):
            row = draw(st.lists(CELLS, min_size=width, max_size=width))
            head.stream(str(stream)).append(
                time,
                layout,
                [0.0 if value is None else value for value in row],
                np.array([value is not None for value in row]),
            )
            for one, value in zip(names, row, strict=True):
                if value is not None:
                    series.setdefault(one, []).append((time, value))
            time += gap
    return head, series


@pytest.mark.parametrize(
    "name",
    [
        "rate",
        "delta",
        "irate",
        "changes",
        "resets",
        "deriv",
        "count_over_time",
        "last_over_time",
        "sum_over_time",
        "max_over_time",
        "stddev_over_time",
        "absent_over_time",
    ],
)
@given(data=stored(), at=evaluations(), width=WIDTHS)
def test_the_store_is_read_as_lists_are(
    name: str, data: tuple[Head, dict[Labels, Points]], at: Steps, width: int
) -> None:
    head, series = data
    lo = at.times - width
    got = table(call(name, at, RangeVector(head.select(MATCHERS), lo, at.times)))
    expected = table(call(name, at, RangeVector(ListedSeries(series), lo, at.times)))
    assert_same(got, expected, relative=1e-9, absolute=1e-9)
