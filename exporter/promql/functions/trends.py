"""Where a series is heading: deriv, predict_linear, double_exponential_smoothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.promql.functions.arguments import scalar, window
from exporter.promql.functions.summation import sums
from exporter.promql.functions.windows import over_windows
from exporter.promql.model import Argument, CallSite, QueryError, Vector
from exporter.storage.model import Samples

if TYPE_CHECKING:
    from exporter.storage.model import F64, I64


_LOOPED = 1 << 19
"""Samples smoothed at once: that goes from time to time in Python, so the more series at each the better."""


def deriv(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """The slope, per second, of the line through the window's samples."""

    def slope(_step: int, group: Samples) -> F64:
        return line(group.times, group.values, int(group.times[0]))[0]

    return over_windows(call, window(arguments), slope, least=2)


def predict_linear(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """What the line through the window's samples reaches so many seconds after the evaluation's time."""
    ahead = scalar(arguments, 1).tolist()
    now = call.steps.times.tolist()

    def predicted(step: int, group: Samples) -> F64:
        slope, here = line(group.times, group.values, now[step])
        reached: F64 = slope * ahead[step] + here
        return reached

    return over_windows(call, window(arguments), predicted, least=2)


def line(times: I64, values: F64, at: int) -> tuple[F64, F64]:
    """The least-squares line through each row of [k, T]: its slope per second, and its height at `at`.

    Of equal values the slope is exactly 0, of equal infinities it is NaN.
    """
    count = len(times)
    seconds = (times - at) / 1000.0
    x, xx = sums(np.stack((seconds, seconds * seconds))).tolist()
    y, xy = sums(values), sums(values * seconds)
    with np.errstate(all="ignore"):
        slope = (xy - x * y / count) / (xx - x * x / count)
        height = y / count - slope * x / count
    first = values[:, 0]
    level = (values == first[:, np.newaxis]).all(axis=1)
    if level.any():
        endless = np.isinf(first)
        slope = np.where(level, np.where(endless, np.nan, 0.0), slope)
        height = np.where(level, np.where(endless, np.nan, first), height)
    return slope, height


def double_exponential_smoothing(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """Holt's smoothing: a level that follows the values and a trend that follows the level, from the oldest on.

    The second and third argument, both between 0 and 1, say how fast each follows
    (https://en.wikipedia.org/wiki/Exponential_smoothing#Double_exponential_smoothing_(Holt_linear)).
    """
    smoothing, trend = scalar(arguments, 1).tolist(), scalar(arguments, 2).tolist()

    def smoothed(step: int, group: Samples) -> F64:
        _check("smoothing", smoothing[step])
        _check("trend", trend[step])
        return _holt(group.values, smoothing[step], trend[step])

    return over_windows(call, window(arguments), smoothed, least=2, at_once=_LOOPED)


def _holt(values: F64, smoothing: float, trend: float) -> F64:
    columns = np.ascontiguousarray(values.T)
    slope = columns[1] - columns[0]
    before = columns[0]
    level: F64 = smoothing * columns[1] + (1.0 - smoothing) * (before + slope)
    for column in columns[2:]:
        slope = trend * (level - before) + (1.0 - trend) * slope
        before, level = level, smoothing * column + (1.0 - smoothing) * (level + slope)
    return level


def _check(which: str, factor: float) -> None:
    if factor <= 0 or factor >= 1:
        raise QueryError(
            "execution", f"invalid {which} factor. Expected: 0 < {which[0]}f < 1, got: {factor:f}"
        )
