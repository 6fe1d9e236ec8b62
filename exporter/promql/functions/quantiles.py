"""The quantile of a set of values, as `quantile` and `quantile_over_time` take it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from exporter.storage.model import F64, I64


def quantiles(q: float, values: F64) -> F64:
    """The q-quantile of each row of [k, T], T > 0, shape [k]; between two values it is their weighted average.

    NaN counts as the smallest value. q below 0 gives -Inf, above 1 +Inf, NaN gives NaN.
    """
    rows, count = values.shape
    if math.isnan(q):
        return np.full(rows, np.nan)
    if q < 0 or q > 1:
        return np.full(rows, -np.inf if q < 0 else np.inf)
    rank = q * (count - 1)
    lower = math.floor(rank)
    upper = min(count - 1, lower + 1)
    weight = rank - lower
    unknown = np.isnan(values).sum(axis=1)
    if unknown.any():
        ordered = np.sort(values, axis=1)  # NaN last
        low = _at(ordered, unknown, lower)
        high = _at(ordered, unknown, upper)
    else:
        ordered = np.partition(values, (lower, upper), axis=1)
        low, high = ordered[:, lower], ordered[:, upper]
    between: F64 = low * (1.0 - weight) + high * weight
    return between


def _at(ordered: F64, unknown: I64, place: int) -> F64:
    """What stands at a place if each row's NaNs stood before its numbers."""
    known = ordered[np.arange(len(ordered)), np.maximum(place - unknown, 0)]
    return np.where(place < unknown, np.nan, known)
