"""Sums and means along rows that lose nothing to rounding, as Prometheus takes them, over whole matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from exporter.storage.model import F64, Bool


def sums(values: F64) -> F64:
    """The sum of each row of [k, T], shape [k]; an infinite one stays infinite."""
    total, lost, _ = _summed(values)
    return np.where(np.isinf(total), total, total + lost)


def means(values: F64) -> F64:
    """The mean of each row of [k, T], shape [k], also where the sum is more than a float can hold."""
    count = values.shape[1]
    total, lost, overflown = _summed(values)
    mean: F64 = total / count + lost / count
    if overflown is not None:
        finite = np.isfinite(values)
        infinite = ~finite.all(axis=1)
        mean[infinite] = np.where(finite[infinite], 0.0, values[infinite]).sum(axis=1)
        large = overflown & ~infinite
        mean[large] = np.sum(values[large] / count, axis=1)
    return mean


def _summed(values: F64) -> tuple[F64, F64, Bool | None]:
    """Each row's plain sum, what its roundings lost, and which rows became infinite on the way (None: none).

    This is Neumaier's compensated sum (https://en.wikipedia.org/wiki/Kahan_summation_algorithm): it adds from left to
    right, so the loss of each addition can be found for all of them at once.
    """
    running = np.cumsum(values, axis=1)
    total = running[:, -1]
    before, added, after = running[:, :-1], values[:, 1:], running[:, 1:]
    swapped = np.abs(before) < np.abs(added)
    larger = np.where(swapped, added, before)
    smaller = np.where(swapped, before, added)
    lost: F64 = np.sum((larger - after) + smaller, axis=1)
    if np.isfinite(total).all():
        return total, lost, None
    return total, lost, ~np.all(np.isfinite(running), axis=1)
