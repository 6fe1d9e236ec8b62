"""Label sets stay unique: rows that an operation gave the same labels become one, or an error where they overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from exporter.promql.model import Memo, QueryError, Vector
from exporter.storage.model import Labels

SAME_LABELS = "vector cannot contain metrics with the same labelset"

_Plan = tuple[tuple[Labels, ...], list[int], list[tuple[int, int]]] | None


def _plan(labels: Sequence[Labels]) -> _Plan:
    """None where all sets differ; else the sets, the rows that come first, and (row, its place) of the others."""
    places: dict[Labels, int] = {}
    first: list[int] = []
    others: list[tuple[int, int]] = []
    for row, one in enumerate(labels):
        place = places.setdefault(one, len(first))
        if place == len(first):
            first.append(row)
        else:
            others.append((row, place))
    return (tuple(places), first, others) if others else None


def unique(vector: Vector, memo: Memo, *, apart: bool = True) -> Vector:
    """The vector with one row for each label set, as each step must have.

    `apart` says that rows of the same labels may take turns, step by step; without it they are an error wherever both
    have any value, as in Prometheus for functions over ranges. QueryError where two meet.
    """
    labels = vector.labels
    plan = memo.of("unique", (labels,), lambda: _plan(labels))
    if plan is None:
        return vector
    names, first, others = plan
    present = np.ones(vector.values.shape, np.bool_) if vector.present is None else vector.present
    values, held = vector.values[first], present[first]
    for row, place in others:
        mine = present[row]
        if (held[place] & mine).any() or (not apart and held[place].any() and mine.any()):
            raise QueryError("execution", SAME_LABELS)
        np.copyto(values[place], vector.values[row], where=mine)
        held[place] |= mine
    return Vector(names, values, held)
