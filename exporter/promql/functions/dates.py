"""Parts of the date and the time of day in UTC: of each value, in seconds since 1970, or of the evaluation's time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exporter.promql.functions.arguments import vector
from exporter.promql.functions.naming import NO_LABELS, without_name
from exporter.promql.model import Argument, CallSite, Function, Vector

if TYPE_CHECKING:
    from exporter.storage.model import F64, I64

Dates = NDArray[np.datetime64]

DAY = 86_400
_REPRESENTABLE = 2.0**62
"""Seconds beyond this have no date; NaN has none either."""


def part(of: Callable[[I64], I64]) -> Function:
    """The PromQL function that gives `of(seconds since 1970)`; it is NaN of what has no date."""

    def function(call: CallSite, arguments: Sequence[Argument]) -> Vector:
        if not arguments:
            seconds = call.steps.times // 1000
            return Vector(NO_LABELS, of(seconds).astype(np.float64)[np.newaxis, :])
        given = vector(arguments)
        dated = np.abs(given.values) < _REPRESENTABLE
        seconds = np.where(dated, given.values, 0.0).astype(np.int64)  # towards zero
        values: F64 = np.where(dated, of(seconds), np.nan)
        return without_name(call, given.labels, values, given.present)

    return function


def _days(seconds: I64) -> Dates:
    return (seconds // DAY).astype("datetime64[D]")


def _since(dates: Dates, earlier: Dates) -> I64:
    days: I64 = (dates - earlier.astype("datetime64[D]")).astype(np.int64)
    return days


def _month_of(seconds: I64) -> Dates:
    return _days(seconds).astype("datetime64[M]")


def _year_of(seconds: I64) -> Dates:
    return _days(seconds).astype("datetime64[Y]")


DATES: Mapping[str, Function] = {
    "minute": part(lambda seconds: seconds // 60 % 60),
    "hour": part(lambda seconds: seconds // 3600 % 24),
    "day_of_week": part(lambda seconds: (seconds // DAY + 4) % 7),  # 1970 began on a Thursday; Sunday is 0
    "day_of_month": part(lambda seconds: _since(_days(seconds), _month_of(seconds)) + 1),
    "day_of_year": part(lambda seconds: _since(_days(seconds), _year_of(seconds)) + 1),
    "days_in_month": part(
        lambda seconds: _since((_month_of(seconds) + 1).astype("datetime64[D]"), _month_of(seconds))
    ),
    "month": part(lambda seconds: _month_of(seconds).astype(np.int64) % 12 + 1),
    "year": part(lambda seconds: _year_of(seconds).astype(np.int64) + 1970),
}
