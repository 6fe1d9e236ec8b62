"""Label sets stay unique: rows that an operation gave the same labels become one, or an error where they overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from exporter.promql.model import Memo, QueryError, Vector
from exporter.storage.model import Labels

if TYPE_CHECKING:
    from exporter.storage.model import I64

SAME_LABELS = "vector cannot contain metrics with the same labelset"


class _Plan(NamedTuple):
    labels: tuple[Labels, ...]  # g sets that differ
    first: I64  # [g] the first row of each
    layers: tuple[tuple[I64, I64], ...]
    """Further rows and their places among the g: the second rows of all sets, then the third, and so on."""


def _plan(labels: Sequence[Labels]) -> _Plan | None:
    """None where all sets differ."""
    rows: dict[Labels, list[int]] = {}
    for row, one in enumerate(labels):
        rows.setdefault(one, []).append(row)
    if len(rows) == len(labels):
        return None
    depth = max(map(len, rows.values()))
    layers = []
    for layer in range(1, depth):
        pairs = [(mine[layer], place) for place, mine in enumerate(rows.values()) if len(mine) > layer]
        layers.append((np.array([row for row, _ in pairs]), np.array([place for _, place in pairs])))
    return _Plan(tuple(rows), np.array([mine[0] for mine in rows.values()]), tuple(layers))


def unique(vector: Vector, memo: Memo, *, apart: bool = True) -> Vector:
    """The vector with one row for each label set, as each step must have.

    `apart` says that rows of the same labels may take turns, step by step; without it they are an error wherever both
    have any value, as in Prometheus for functions over ranges. QueryError where two meet.
    """
    labels = vector.labels
    plan = memo.of("unique", (labels,), lambda: _plan(labels))
    if plan is None:
        return vector
    present = np.ones(vector.values.shape, np.bool_) if vector.present is None else vector.present
    values, held = vector.values[plan.first], present[plan.first]
    for rows, places in plan.layers:
        more, there = present[rows], held[places]
        meet = more & there if apart else more.any(axis=1) & there.any(axis=1)
        if meet.any():
            raise QueryError("execution", SAME_LABELS)
        values[places] = np.where(more, vector.values[rows], values[places])
        held[places] = there | more
    return Vector(plan.labels, values, None if held.all() else held)
