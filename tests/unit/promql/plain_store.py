"""A store of plain lists that looks at every sample for every question, written as promtool's unit tests write series."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np

from exporter.promql.model import Budget, Matrix, Scalar, String, Value, Vector
from exporter.storage.model import Edges, Labels, Latest, Matcher, Samples

Points = list[tuple[int, float | None]]
"""Times in milliseconds, rising; None is a staleness marker."""

_SERIES = re.compile(r"([A-Za-z_:][\w:]*)?(?:\{([^}]*)\})?\s+(.*)")
_LABEL = re.compile(r'([A-Za-z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"')
_STEP = re.compile(
    r"(?P<first>_|stale|[-+]?[\w.]+?(?:e[-+]?\d+)?)(?P<add>[-+][\d.]+(?:e[-+]?\d+)?)?(?:x(?P<times>\d+))?"
)


def labels_of(text: str) -> Labels:
    """`name{a="b"}` as a label set."""
    matched = _SERIES.fullmatch(text + " ")
    assert matched is not None, text
    pairs = {
        name: value.replace('\\"', '"').replace("\\\\", "\\")
        for name, value in _LABEL.findall(matched.group(2) or "")
    }
    if matched.group(1):
        pairs["__name__"] = matched.group(1)
    return tuple(sorted((name, value) for name, value in pairs.items() if value))


def numbers(text: str) -> list[float | str]:
    """`1+2x3 _ stale` as values, "_" for a gap and "stale" for a marker."""
    found: list[float | str] = []
    for word in text.split():
        matched = _STEP.fullmatch(word)
        assert matched is not None, word
        first, add, times = matched.group("first", "add", "times")
        if first in ("_", "stale"):
            found += [first] * int(times or 1)
        elif times is None:
            found.append(float(word))
        else:
            found += [float(first) + float(add or 0) * step for step in range(int(times) + 1)]
    return found


class PlainSelection:
    """Some series, asked one sample at a time."""

    def __init__(self, series: dict[Labels, Points]) -> None:
        self.labels = list(series)
        self._points = list(series.values())

    def _window(self, row: int, lo: int, hi: int) -> list[tuple[int, float]]:
        return [(time, value) for time, value in self._points[row] if lo < time <= hi and value is not None]

    def latest(self, times: np.ndarray, lookback: int) -> Latest:
        shape = (len(self.labels), len(times))
        values, taken, present = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, bool)
        for row, points in enumerate(self._points):
            for step, now in enumerate(times.tolist()):
                newest = [point for point in points if now - lookback < point[0] <= now][-1:]
                if newest and newest[0][1] is not None:
                    taken[row, step], values[row, step], present[row, step] = *newest[0], True
        return Latest(values, taken, present)

    def edges(self, lo: np.ndarray, hi: np.ndarray) -> Edges:
        shape = (len(self.labels), len(lo))
        counts, first_time, last_time = (np.zeros(shape, np.int64) for _ in range(3))
        first, last, rise = (np.zeros(shape) for _ in range(3))
        for row in range(shape[0]):
            for step in range(shape[1]):
                window = self._window(row, int(lo[step]), int(hi[step]))
                if window:
                    counts[row, step] = len(window)
                    first_time[row, step], first[row, step] = window[0]
                    last_time[row, step], last[row, step] = window[-1]
                    rise[row, step] = window[-1][1] - window[0][1]
                    rise[row, step] += sum(
                        before for (_, before), (_, now) in pairwise(window) if now < before
                    )
        return Edges(counts, first_time, first, last_time, last, rise)

    def samples(self, lo: int, hi: int) -> list[Samples]:
        found = []
        for row in range(len(self.labels)):
            window = self._window(row, lo, hi)
            if window:
                times, values = zip(*window, strict=True)
                found.append(Samples([row], np.array(times), np.array([values], dtype=float)))
        return found


class PlainStore:
    """Series by their labels; a selection is kept for each set of matchers, as the real store keeps it."""

    def __init__(self, *lines: str, every: int = 60_000) -> None:
        self.series: dict[Labels, Points] = {}
        self._selections: dict[tuple[Matcher, ...], PlainSelection] = {}
        self.load(*lines, every=every)

    def load(self, *lines: str, every: int = 60_000) -> None:
        """Series in promtool's notation, one sample every so many milliseconds from 0 on."""
        for line in lines:
            text, values = re.fullmatch(r"\s*(\S*?\{[^}]*\}|\S+)\s+(.*?)\s*", line).groups()
            points = self.series.setdefault(labels_of(text), [])
            known = dict(points)
            for place, value in enumerate(numbers(values)):
                if value != "_":
                    known[place * every] = None if value == "stale" else float(value)
            points[:] = sorted(known.items())
        self._selections.clear()

    def select(self, matchers: tuple[Matcher, ...]) -> PlainSelection:
        key = tuple(matchers)
        if key not in self._selections:
            self._selections[key] = PlainSelection(
                {
                    labels: points
                    for labels, points in self.series.items()
                    if all(fits(one, labels) for one in key)
                }
            )
        return self._selections[key]


def fits(matcher: Matcher, labels: Labels) -> bool:
    value = dict(labels).get(matcher.name, "")
    if matcher.op in ("=", "!="):
        return (value == matcher.value) == (matcher.op == "=")
    return bool(re.fullmatch(matcher.value, value, re.DOTALL)) == (matcher.op == "=~")


def budget(samples: int = 10**9, timeout: float = 60) -> Budget:
    return Budget(samples=samples, timeout=timeout)


def table(value: Value | Matrix, step: int = 0) -> dict[Labels, float]:
    """An instant vector as a mapping, in its order; of a range, one step of it."""
    assert isinstance(value, Vector), value
    assert value.values.shape[0] == len(value.labels)
    assert len(set(value.labels)) == len(value.labels), "label sets are unique"
    return {
        labels: float(value.values[row, step])
        for row, labels in enumerate(value.labels)
        if value.present is None or value.present[row, step]
    }


def number(value: Value | Matrix) -> float:
    assert isinstance(value, Scalar)
    return float(value.values[0])


def text(value: Value | Matrix) -> str:
    assert isinstance(value, String)
    return value.value
