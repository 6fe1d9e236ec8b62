"""sort and sort_desc: the order in which an instant query's series are given back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.promql.functions.arguments import vector
from exporter.promql.model import Argument, CallSite, Vector


def sort(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """Smallest first, NaN last; over a range of steps, where series have no order, nothing changes."""
    return _sorted(call, vector(arguments), sign=1.0)


def sort_desc(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """Largest first, NaN last; over a range of steps, where series have no order, nothing changes."""
    return _sorted(call, vector(arguments), sign=-1.0)


def _sorted(call: CallSite, given: Vector, *, sign: float) -> Vector:
    if given.values.shape[1] != 1 or call.steps.interval:
        return given
    order = np.argsort(given.values[:, 0] * sign, kind="stable")  # NaN last
    places = tuple(order.tolist())
    known: dict[tuple[int, ...], list[tuple[tuple[str, str], ...]]] = call.memo.of(
        "sort", (given.labels,), dict
    )
    labels = known.get(places)
    if labels is None:
        known.clear()
        labels = known[places] = [given.labels[place] for place in places]
    return Vector(labels, given.values[order], None if given.present is None else given.present[order])
