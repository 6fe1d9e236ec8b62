"""Many steps, evaluated some at a time, so that no matrix on the way grows with their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from exporter.promql.model import Budget, Scalar, Value, Vector
from exporter.promql.plan import Evaluation, Node
from exporter.storage.model import Labels, Matcher

if TYPE_CHECKING:
    from exporter.storage.model import I64

CELLS = 1_000_000
"""Series times steps of one piece: 8 MB for each matrix, and a few milliseconds for each operation on it."""
STEPS = 1000
"""Most steps of one piece; `FEWEST` are the fewest."""
FEWEST = 16


def evaluated(
    part: Node, run: Evaluation, times: I64, interval: int, selectors: Sequence[tuple[Matcher, ...]]
) -> Value:
    """The vector or scalar at all times; `selectors` are those of the part, whose width says how many go at once."""
    size = STEPS
    if len(times) > FEWEST:
        widest = max((len(run.storage.select(matchers).labels) for matchers in selectors), default=1)
        size = max(FEWEST, min(STEPS, CELLS // max(widest, 1)))
    pieces = [
        cast("Value", part.evaluate(run.at(times[first : first + size], interval)))
        for first in range(0, len(times), size)
    ]
    return pieces[0] if len(pieces) == 1 else joined(pieces, run.budget)


def joined(pieces: Sequence[Value], budget: Budget) -> Value:
    """Pieces side by side; series that a piece lacks are absent in it, and cost as much as if they were there."""
    if isinstance(pieces[0], Scalar):
        return Scalar(np.concatenate([piece.values for piece in cast("Sequence[Scalar]", pieces)]))
    vectors = cast("Sequence[Vector]", pieces)
    names = vectors[0].labels
    if all(vector.labels is names for vector in vectors):
        values = np.concatenate([vector.values for vector in vectors], axis=1)
        if all(vector.present is None for vector in vectors):
            return Vector(names, values)
        held = [
            np.ones(vector.values.shape, np.bool_) if vector.present is None else vector.present
            for vector in vectors
        ]
        return Vector(names, values, np.concatenate(held, axis=1))
    places: dict[Labels, int] = {}
    for vector in vectors:
        for labels in vector.labels:
            places.setdefault(labels, len(places))
    width = sum(vector.values.shape[1] for vector in vectors)
    budget.spend(len(places) * width)
    values, present = np.zeros((len(places), width)), np.zeros((len(places), width), np.bool_)
    column = 0
    for vector in vectors:
        rows = [places[labels] for labels in vector.labels]
        end = column + vector.values.shape[1]
        values[rows, column:end] = vector.values
        present[rows, column:end] = True if vector.present is None else vector.present
        column = end
    return Vector(tuple(places), values, present)
