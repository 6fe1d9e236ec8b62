"""The head against a slow, obvious reference: a list of entries per series."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.storage.bits import STALE
from exporter.storage.head import Head, Layout
from exporter.storage.model import Labels, Matcher
from exporter.storage.retention import Retention

HOUR = 3_600_000
STREAMS = ("a", "b")
EVERYTHING = [Matcher("__name__", "=~", ".+")]


def label_set(name: str, number: int) -> Labels:
    return (("__name__", name), ("n", str(number)))


SERIES = {
    "a": [label_set("c" if i % 2 else "g", i) for i in range(6)],
    "b": [label_set("c" if i % 2 else "g", i) for i in range(5, 9)],  # number 5 stands in both
}


@dataclass
class Reference:
    """What was appended: per stream and series a list of (time, value), the value None where the series ended."""

    entries: dict[str, dict[Labels, list[tuple[int, float | None]]]] = field(
        default_factory=lambda: {name: {} for name in STREAMS}
    )
    live: dict[str, set[Labels]] = field(default_factory=lambda: {name: set() for name in STREAMS})
    last: dict[str, int] = field(default_factory=dict)

    def append(self, stream: str, t: int, row: dict[Labels, float]) -> None:
        if t <= self.last.get(stream, -1):
            return
        self.last[stream] = t
        sampled = {series: value for series, value in row.items() if not is_stale(value)}
        for series in self.live[stream] - set(sampled):
            self.entries[stream][series].append((t, None))
        for series, value in sampled.items():
            self.entries[stream].setdefault(series, []).append((t, value))
        self.live[stream] = set(sampled)

    def truncate(self, t: int) -> None:
        for stream in STREAMS:
            self.live[stream] = set()
            for series, entries in self.entries[stream].items():
                entries[:] = [entry for entry in entries if entry[0] <= t]
                if entries and entries[-1][1] is not None:
                    self.live[stream].add(series)
        self.forget_empty_rows([stream for stream, last in self.last.items() if last > t])

    def forget_empty_rows(self, streams: Iterable[str] = STREAMS) -> None:
        """A row without anything leaves no trace behind a restart or a clock step."""
        for stream in streams:
            entries = self.entries[stream]
            self.last[stream] = max((found[-1][0] for found in entries.values() if found), default=0)

    def merged(self, series: Labels) -> list[tuple[int, float | None]]:
        found: dict[int, float | None] = {}
        for stream in STREAMS:
            for t, value in self.entries[stream].get(series, ()):
                if t not in found or (found[t] is None and value is not None):
                    found[t] = value
        return sorted(found.items())

    def samples(self, series: Labels, lo: int, hi: int) -> list[tuple[int, float]]:
        return [(t, value) for t, value in self.merged(series) if lo < t <= hi and value is not None]

    def latest(self, series: Labels, t: int, lookback: int) -> tuple[int, float] | None:
        entries = [entry for entry in self.merged(series) if t - lookback < entry[0] <= t]
        if not entries or entries[-1][1] is None:
            return None
        return entries[-1][0], entries[-1][1]

    def known(self) -> set[Labels]:
        return {series for stream in STREAMS for series, found in self.entries[stream].items() if found}


def is_stale(value: float) -> bool:
    return np.array(value).view(np.uint64) == np.array(STALE).view(np.uint64)


def rise_of(values: list[float]) -> float:
    with np.errstate(invalid="ignore"):
        rise = np.float64(values[-1]) - np.float64(values[0])
        for before, after in pairwise(values):
            if after < before:
                rise += before
    return float(rise)


def same(one: float, two: float) -> bool:
    return one == two or (math.isnan(one) and math.isnan(two))


def check(head: Head, reference: Reference, windows: list[tuple[int, int]], lookback: int) -> None:
    """Every question about every series, at these windows, has the reference's answer."""
    selection = head.select(EVERYTHING)
    assert selection is head.select(EVERYTHING)
    labels = list(selection.labels)
    assert len(labels) == len(set(labels))
    assert set(labels) >= reference.known()
    times = np.array(sorted(hi for _, hi in windows), np.int64)
    los, his = (np.array(sorted(column), np.int64) for column in zip(*windows, strict=True))
    latest = selection.latest(times, lookback)
    edges = selection.edges(los, his)
    stamps = np.broadcast_to(latest.times, latest.values.shape)
    for i, series in enumerate(labels):
        for k, t in enumerate(times.tolist()):
            expected = reference.latest(series, t, lookback)
            assert bool(latest.present[i, k]) == (expected is not None), (series, t)
            if expected is not None:
                assert stamps[i, k] == expected[0]
                assert same(latest.values[i, k], expected[1])
        for k, (lo, hi) in enumerate(zip(los.tolist(), his.tolist(), strict=True)):
            found = reference.samples(series, lo, hi)
            assert edges.counts[i, k] == len(found), (series, lo, hi)
            if found:
                assert (edges.first_time[i, k], edges.last_time[i, k]) == (found[0][0], found[-1][0])
                assert same(edges.first[i, k], found[0][1])
                assert same(edges.last[i, k], found[-1][1])
                assert same(edges.rise[i, k], rise_of([value for _, value in found])), (series, lo, hi)
    for lo, hi in windows:
        alone = selection.edges(np.array([lo]), np.array([hi]))
        seen: dict[Labels, list[tuple[int, float]]] = {}
        for group in selection.samples(lo, hi):
            assert group.values.shape == (len(group.rows), len(group.times))
            for row, values in zip(group.rows, group.values, strict=True):
                assert labels[row] not in seen
                seen[labels[row]] = list(zip(group.times.tolist(), values.tolist(), strict=True))
        for i, series in enumerate(labels):
            found = reference.samples(series, lo, hi)
            got = seen.get(series, [])
            assert [t for t, _ in got] == [t for t, _ in found], (series, lo, hi)
            assert all(same(a, b) for (_, a), (_, b) in zip(got, found, strict=True))
            assert (series in seen) == bool(found)
            assert alone.counts[i, 0] == len(found)
            if found:
                assert same(alone.rise[i, 0], rise_of([value for _, value in found]))
        with_samples = [series for series in labels if reference.samples(series, lo, hi)]
        assert head.series((), lo, hi) == with_samples
        numbers = sorted({dict(series)["n"] for series in with_samples})
        assert head.label_values("n", EVERYTHING, lo, hi) == numbers


VALUES = st.one_of(
    st.integers(0, 9).map(float), st.sampled_from([math.nan, math.inf, -math.inf, -3.0, 0.5, STALE])
)


@st.composite
def rows(draw: st.DrawFn) -> tuple[Any, ...]:
    stream = draw(st.sampled_from(STREAMS))
    step = draw(st.sampled_from([1, 1, 1, 2, 5, 40, 0, -3]))
    if draw(st.integers(0, 9)) == 0:
        return ("end", stream, step)
    n = len(SERIES[stream])
    if draw(st.booleans()):
        chosen = list(range(n))
    else:
        chosen = draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n))
    if draw(st.booleans()):
        values = [float(draw(st.integers(0, 9))) for _ in chosen]
    else:
        values = [draw(VALUES) for _ in chosen]
    present = draw(st.none() | st.lists(st.booleans(), min_size=len(chosen), max_size=len(chosen)))
    repeat = draw(st.integers(1, 6))
    return ("append", stream, step, tuple(chosen), values, present, repeat)


STEPS = st.lists(
    st.one_of(
        rows(),
        rows(),
        rows(),
        st.tuples(st.just("truncate"), st.integers(0, 30)),
        st.just(("save",)),
        st.just(("restart",)),
    ),
    max_size=14,
)
WINDOWS = st.lists(
    st.tuples(st.integers(-5, 300), st.integers(0, 120)).map(lambda one: (one[0], one[0] + one[1])),
    min_size=1,
    max_size=5,
)


class Driver:
    """Carries the steps out on the head and on the reference alike."""

    def __init__(self, segment_rows: tuple[int, int], retention: Retention | None = None) -> None:
        self.retention = retention or Retention(HOUR)
        self.segment_rows = segment_rows
        self.head = self.new_head()
        self.reference = Reference()
        self.layouts: dict[Any, Layout] = {}
        self.saved: list[Any] = []
        self.now = 1

    def new_head(self) -> Head:
        head = Head(retention=self.retention, memory_limit=1 << 30, segment_rows=self.segment_rows)
        for name in STREAMS:  # of two samples at one time the older stream's counts
            head.stream(name)
        return head

    def do(self, step: tuple[Any, ...]) -> None:
        match step:
            case ("end", stream, dt):
                self.now = max(1, self.now + dt)
                self.head.stream(stream).end(self.now)
                self.reference.append(stream, self.now, {})
            case ("append", stream, dt, chosen, values, present, repeat):
                for i in range(repeat):
                    self.now = max(1, self.now + dt)
                    self.append(stream, chosen, [value + i % 3 for value in values] if i else values, present)
            case ("truncate", back):
                self.now = max(1, self.now - back)
                self.head.truncate_after(self.now)
                for stream in STREAMS:  # here no row is on its way meanwhile; test_churn.py has that
                    self.head.stream(stream).set_back = None
                self.reference.truncate(self.now)
            case ("save",):
                self.save()
            case ("restart",):
                self.save()
                self.head = self.new_head()
                for batch in self.saved:
                    self.head.load(batch)
                self.reference.forget_empty_rows()

    def save(self) -> None:
        self.saved += self.head.unsaved()

    def append(
        self, stream: str, chosen: tuple[int, ...], values: list[float], present: list[bool] | None
    ) -> None:
        series = [SERIES[stream][i] for i in chosen]
        layout = self.layouts.get((stream, chosen))
        if layout is None:
            counters = [dict(one)["__name__"] == "c" and len(chosen) != 2 for one in series]
            layout = self.layouts[stream, chosen] = Layout(series, counters)
        mask = None if present is None else np.array(present, np.bool_)
        self.head.stream(stream).append(self.now, layout, values, mask)
        there = [True] * len(series) if present is None else present
        row = {one: value for one, value, ok in zip(series, values, there, strict=True) if ok}
        self.reference.append(stream, self.now, row)


@pytest.mark.parametrize("segment_rows", [(1, 1), (2, 3), (7, 7), (64, 1024)])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS.map(lambda steps: [s for s in steps if s[0] != "truncate"]), windows=WINDOWS)
def test_whatever_is_appended_the_answers_are_those_of_the_reference(
    segment_rows: tuple[int, int], steps: list[tuple[Any, ...]], windows: list[tuple[int, int]]
) -> None:
    driver = Driver(segment_rows)
    for step in steps:
        driver.do(step)
    check(driver.head, driver.reference, windows, lookback=20)


@pytest.mark.parametrize("segment_rows", [(2, 3), (64, 1024)])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS.map(lambda steps: [s for s in steps if s[0] not in ("save", "restart")]), windows=WINDOWS)
def test_after_the_clock_was_set_back_nothing_of_the_future_is_left(
    segment_rows: tuple[int, int], steps: list[tuple[Any, ...]], windows: list[tuple[int, int]]
) -> None:
    driver = Driver(segment_rows)
    for step in steps:
        driver.do(step)
    check(driver.head, driver.reference, windows, lookback=20)


RETENTIONS = st.sampled_from(
    [
        Retention(30),
        Retention(30, [([Matcher("__name__", "=", "c")], 90)]),
        Retention(30, [([Matcher("n", "=~", "[123]")], 60), ([Matcher("__name__", "=", "g")], 150)]),
        Retention(30, streams=[("b", 120)]),
    ]
)


@pytest.mark.parametrize("segment_rows", [(1, 2), (3, 5)])
@pytest.mark.parametrize("memory_limit", [1 << 30, 6000])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=STEPS.map(lambda steps: [s for s in steps if s[0] not in ("truncate", "save", "restart")]),
    retentions=st.lists(RETENTIONS, min_size=1, max_size=4),
)
def test_what_is_taken_away_is_the_oldest_and_never_what_must_be_kept(
    segment_rows: tuple[int, int],
    memory_limit: int,
    steps: list[tuple[Any, ...]],
    retentions: list[Retention],
) -> None:
    driver = Driver(segment_rows)
    driver.head = Head(retention=retentions[0], memory_limit=memory_limit, segment_rows=segment_rows)
    shortest: dict[tuple[str, Labels], int] = {}
    for i, step in enumerate(steps):
        retention = retentions[i % len(retentions)]
        driver.head.set_retention(retention)
        driver.do(step)
        driver.head.expire(driver.now)
        for stream in STREAMS:
            for series in SERIES[stream]:
                begin = driver.now - retention.keep(series, stream)
                key = stream, series
                shortest[key] = max(shortest.get(key, begin), begin)
    reference, selection = driver.reference, driver.head.select(EVERYTHING)
    labels = list(selection.labels)
    got: dict[Labels, list[tuple[int, float]]] = {}
    for group in selection.samples(-1, 10**6):
        for row, values in zip(group.rows, group.values, strict=True):
            got[labels[row]] = list(zip(group.times.tolist(), values.tolist(), strict=True))
    for series in reference.known():
        places = [stream for stream in STREAMS if series in reference.entries[stream]]
        expected = reference.samples(series, -1, 10**6)
        found = got.get(series, [])
        if len(places) == 1:
            assert [t for t, _ in found] == [t for t, _ in expected][len(expected) - len(found) :]
            assert all(
                same(a, b)
                for (_, a), (_, b) in zip(found, expected[len(expected) - len(found) :], strict=True)
            )
        if memory_limit > 10**6:
            begin = max(shortest[stream, series] for stream in places)
            assert {t for t, _ in expected if t > begin} <= {t for t, _ in found}
    for lo in range(-1, driver.now, 7):
        edges = selection.edges(np.array([lo]), np.array([driver.now - 3]))
        for i, series in enumerate(labels):
            inside = [one for one in got.get(series, []) if lo < one[0] <= driver.now - 3]
            assert edges.counts[i, 0] == len(inside), (series, lo)
            if inside:
                assert (edges.first_time[i, 0], edges.last_time[i, 0]) == (inside[0][0], inside[-1][0])
                assert same(edges.rise[i, 0], rise_of([value for _, value in inside]))
