"""The set operators: `and`, `or`, `unless`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from exporter.promql.matching import Matching, everywhere
from exporter.promql.model import Memo, Vector
from exporter.promql.plan import Evaluation, Kind, Node
from exporter.promql.unique import unique
from exporter.storage.model import Labels

if TYPE_CHECKING:
    from exporter.storage.model import I64, Bool


@dataclass(frozen=True, slots=True)
class Partners:
    """The signatures of both sides, numbered: k in all."""

    left: I64  # [n]
    right: I64  # [m]
    count: int
    labels: tuple[Labels, ...]  # n + m, both sides


def partners(left: Sequence[Labels], right: Sequence[Labels], matching: Matching) -> Partners:
    """Numbers for the signatures of both sides' series."""
    places: dict[Labels, int] = {}
    numbered = [
        np.array([places.setdefault(matching.signature(one), len(places)) for one in side], np.int64)
        for side in (left, right)
    ]
    return Partners(numbered[0], numbered[1], len(places), (*left, *right))


def seen(vector: Vector, signatures: I64, count: int) -> Bool:
    """At which steps [k, s] any series of a signature has a sample."""
    result = np.zeros((count, vector.values.shape[1]), np.bool_)
    if vector.present is None:
        result[signatures] = True
    else:
        np.logical_or.at(result, signatures, vector.present)
    return result


@dataclass(slots=True)
class SetOperation:
    """Samples of the left side that have (`and`) or lack (`unless`) a partner, or those of both (`or`).

    `lazy`: the right side cannot fail, so where the left one has no sample `and` and `unless` leave it alone.
    """

    operator: str
    left: Node
    right: Node
    matching: Matching
    lazy: bool = False
    memo: Memo = field(default_factory=Memo)
    kind: Kind = "vector"
    invariant: bool = field(init=False)

    def __post_init__(self) -> None:
        self.invariant = self.left.invariant and self.right.invariant

    def evaluate(self, run: Evaluation) -> Vector:
        left = self.left.evaluate(run)
        assert isinstance(left, Vector)
        if self.lazy and self.operator != "or" and left.empty:
            return left
        right = self.right.evaluate(run)
        assert isinstance(right, Vector)
        if self.operator != "or" and not left.labels:
            return left
        sides = self.memo.of(
            "partners",
            (left.labels, right.labels),
            lambda: partners(left.labels, right.labels, self.matching),
        )
        if self.operator == "or":
            taken = seen(left, sides.left, sides.count)[sides.right]
            rest = ~taken if right.present is None else right.present & ~taken
            values = np.concatenate((left.values, right.values))
            return unique(Vector(sides.labels, values, np.concatenate((everywhere(left), rest))), self.memo)
        met = seen(right, sides.right, sides.count)[sides.left]
        wanted = met if self.operator == "and" else ~met
        return Vector(left.labels, left.values, wanted if left.present is None else left.present & wanted)
