"""Series as plain lists of samples, a selection over them, and calls of functions by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from exporter.promql.functions import FUNCTIONS
from exporter.promql.model import Budget, CallSite, Memo, RangeVector, Scalar, Steps, String, Vector
from exporter.storage.model import Edges, Labels, Latest, Matcher, Samples

Points = list[tuple[int, float]]
"""Times in milliseconds, rising, with values."""


def labels(**pairs: str) -> Labels:
    """A label set; `name` is the metric's name."""
    named = {"__name__" if key == "name" else key: value for key, value in pairs.items()}
    return tuple(sorted(named.items()))


def inside(points: Points, lo: int, hi: int) -> Points:
    """The samples in `(lo, hi]`."""
    return [(time, value) for time, value in points if lo < time <= hi]


def rise(points: Points) -> float:
    """What a counter grew by, its resets taken out."""
    grown = points[-1][1] - points[0][1]
    for (_, before), (_, now) in pairwise(points):
        if now < before:
            grown += before
    return grown


class ListedSeries:
    """A selection that looks at every sample for every question."""

    def __init__(self, series: Mapping[Labels, Points]) -> None:
        self.labels: Sequence[Labels] = list(series)
        self.points = list(series.values())

    def latest(self, times: np.ndarray, lookback: int) -> Latest:
        found = [[inside(points, time - lookback, time)[-1:] for time in times] for points in self.points]
        shape = (len(self.points), len(times))
        return Latest(
            np.array([[cell[0][1] if cell else 0.0 for cell in row] for row in found]).reshape(shape),
            np.array([[cell[0][0] if cell else 0 for cell in row] for row in found]).reshape(shape),
            np.array([[bool(cell) for cell in row] for row in found]).reshape(shape),
        )

    def edges(self, lo: np.ndarray, hi: np.ndarray) -> Edges:
        shape = (len(self.points), len(hi))
        counts, first_time, last_time = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        first, last, risen = (np.zeros(shape) for _ in range(3))
        for row, points in enumerate(self.points):
            for step, window in enumerate(zip(lo.tolist(), hi.tolist(), strict=True)):
                if found := inside(points, *window):
                    counts[row, step] = len(found)
                    first_time[row, step], first[row, step] = found[0]
                    last_time[row, step], last[row, step] = found[-1]
                    risen[row, step] = rise(found)
        return Edges(counts, first_time, first, last_time, last, risen)

    def samples(self, lo: int, hi: int) -> list[Samples]:
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, points in enumerate(self.points):
            if times := tuple(time for time, _ in inside(points, lo, hi)):
                groups.setdefault(times, []).append(row)
        return [
            Samples(
                rows,
                np.array(times),
                np.array([[v for _, v in inside(self.points[row], lo, hi)] for row in rows]),
            )
            for times, rows in groups.items()
        ]


def steps(*times: int) -> Steps:
    """An evaluation at these times, in milliseconds."""
    interval = times[1] - times[0] if len(times) > 1 else 0
    return Steps(np.array(times), times[0], times[-1], interval)


def window(series: Mapping[Labels, Points], at: Steps, width: int) -> RangeVector:
    """The series in the `width` milliseconds before each step."""
    return RangeVector(ListedSeries(series), at.times - width, at.times)


def vector(series: Mapping[Labels, Sequence[float | None]]) -> Vector:
    """A vector of a value per step; None is none."""
    if not series:
        return Vector([], np.zeros((0, 1)))
    rows = list(series.values())
    values = np.array([[0.0 if value is None else value for value in row] for row in rows], dtype=float)
    present = np.array([[value is not None for value in row] for row in rows], dtype=bool)
    return Vector(list(series), values, None if present.all() else present)


class Site:
    """A place in an expression where one function is called, again and again."""

    def __init__(
        self, name: str, *, matchers: tuple[Matcher, ...] | None = None, samples: int = 10**9
    ) -> None:
        self.name = name
        self.matchers = matchers
        self.memo = Memo()
        self.samples = samples

    def __call__(self, at: Steps, *arguments: object) -> Vector | Scalar:
        given = [
            String(one)
            if isinstance(one, str)
            else Scalar(np.broadcast_to(float(one), len(at.times)))
            if isinstance(one, int | float)
            else one
            for one in arguments
        ]
        budget = Budget(samples=self.samples, timeout=60.0)
        return FUNCTIONS[self.name](CallSite(self.name, at, self.memo, budget, self.matchers), given)


def call(name: str, at: Steps, *arguments: object) -> Vector | Scalar:
    return Site(name)(at, *arguments)


def table(result: Vector | Scalar) -> dict[Labels, list[float | None]]:
    """What came out, per series and step; series that have nothing anywhere are left out."""
    assert isinstance(result, Vector)
    present = np.ones(result.values.shape, bool) if result.present is None else result.present
    assert result.values.shape == present.shape == (len(result.labels), result.values.shape[1])
    rows = {
        one: [value if here else None for value, here in zip(*pair, strict=True)]
        for one, *pair in zip(result.labels, result.values.tolist(), present.tolist(), strict=True)
    }
    return {one: row for one, row in rows.items() if any(value is not None for value in row)}


def same(a: float | None, b: float | None, *, relative: float = 1e-9, absolute: float = 0.0) -> bool:
    if a is None or b is None:
        return a is b
    return (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=relative, abs_tol=absolute)


def assert_same(
    got: dict[Labels, list[float | None]],
    expected: dict[Labels, list[float | None]],
    *,
    relative: float = 1e-9,
    absolute: float = 0.0,
) -> None:
    expected = {one: row for one, row in expected.items() if any(value is not None for value in row)}
    assert got.keys() == expected.keys()
    for one, row in got.items():
        for mine, theirs in zip(row, expected[one], strict=True):
            assert same(mine, theirs, relative=relative, absolute=absolute), (one, row, expected[one])


VALUES = st.one_of(
    st.integers(0, 20).map(float),
    st.floats(-1e6, 1e6),
    st.sampled_from([0.0, -1.0, 1e-3, math.nan, math.inf, -math.inf]),
)
NUMBERS = st.one_of(
    st.integers(0, 20).map(float), st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6)
)

GAPS = [1, 500, 999, 1000, 1000, 1000, 1500, 2000, 7000]
EVEN_GAPS = [gap for gap in GAPS if gap > 1]
"""Without those in which a line through two samples is all rounding error a minute later."""


@st.composite
def points(draw: st.DrawFn, values: st.SearchStrategy[float], between: list[int]) -> Points:
    """A series with gaps; the values come as they will, so there are resets."""
    gaps = draw(st.lists(st.sampled_from(between), max_size=14))
    time, out = 100_000 + draw(st.integers(0, 2000)), []
    for gap in gaps:
        out.append((time, draw(values)))
        time += gap
    return out


@st.composite
def several(
    draw: st.DrawFn, values: st.SearchStrategy[float] = VALUES, between: list[int] = GAPS
) -> dict[Labels, Points]:
    """A few series, some of which share their times."""
    out: dict[Labels, Points] = {}
    for number in range(draw(st.integers(0, 3))):
        own = draw(points(values, between))
        out[labels(name="x", i=str(number))] = own
        if draw(st.booleans()):
            out[labels(name="x", i=str(number), twin="yes")] = [(time, draw(values)) for time, _ in own]
    return out


@st.composite
def evaluations(draw: st.DrawFn) -> Steps:
    start = 100_000 + draw(st.integers(-2, 20)) * 500
    count = draw(st.integers(1, 5))
    interval = draw(st.sampled_from([1, 500, 1000, 3000]))
    return steps(*range(start, start + count * interval, interval))


WIDTHS = st.sampled_from([1, 1000, 1100, 3000, 5000, 12_000, 60_000])
