"""Unary minus, and binary operators where at least one side is a number."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from exporter.promql.arithmetic import ARITHMETIC, COMPARISONS, calculate
from exporter.promql.labels import drop_name
from exporter.promql.model import Memo, Scalar, Value, Vector
from exporter.promql.plan import Evaluation, Kind, Node
from exporter.promql.unique import unique
from exporter.storage.model import Labels


def nameless(vector: Vector, memo: Memo) -> tuple[Labels, ...]:
    """The vector's label sets without the metric name; the same object for the same labels."""
    labels = vector.labels
    return memo.of("nameless", (labels,), lambda: tuple(map(drop_name, labels)))


@dataclass(slots=True)
class Negative:
    """Unary minus, which drops the metric name of a vector."""

    part: Node
    memo: Memo = field(default_factory=Memo)
    invariant: bool = field(init=False)

    @property
    def kind(self) -> Kind:
        return self.part.kind

    def __post_init__(self) -> None:
        self.invariant = self.part.invariant

    def evaluate(self, run: Evaluation) -> Value:
        value = self.part.evaluate(run)
        if isinstance(value, Scalar):
            return Scalar(-value.values)
        assert isinstance(value, Vector)
        return unique(Vector(nameless(value, self.memo), -value.values, value.present), self.memo)


@dataclass(slots=True)
class ScalarOperation:
    """Two numbers; a comparison gives 0 or 1."""

    operator: str
    left: Node
    right: Node
    kind: Kind = "scalar"
    invariant: bool = field(init=False)

    def __post_init__(self) -> None:
        self.invariant = self.left.invariant and self.right.invariant

    def evaluate(self, run: Evaluation) -> Value:
        left, right = self.left.evaluate(run), self.right.evaluate(run)
        assert isinstance(left, Scalar) and isinstance(right, Scalar)
        return Scalar(calculate(self.operator, left.values, right.values))


@dataclass(slots=True)
class MixedOperation:
    """A vector and a number, in either order.

    Arithmetic and `bool` drop the metric name; a comparison without `bool` keeps the samples for which it holds, with
    the vector's value, on whichever side the vector stands.
    """

    operator: str
    left: Node
    right: Node
    as_bool: bool
    memo: Memo = field(default_factory=Memo)
    kind: Kind = "vector"
    invariant: bool = field(init=False)

    def __post_init__(self) -> None:
        self.invariant = self.left.invariant and self.right.invariant

    def evaluate(self, run: Evaluation) -> Vector:
        left, right = self.left.evaluate(run), self.right.evaluate(run)
        vector = left if isinstance(left, Vector) else right
        assert isinstance(vector, Vector)
        first = left.values if isinstance(left, (Vector, Scalar)) else None
        second = right.values if isinstance(right, (Vector, Scalar)) else None
        assert first is not None and second is not None
        if self.operator in ARITHMETIC or self.as_bool:
            values = calculate(self.operator, first, second)
            return unique(Vector(nameless(vector, self.memo), values, vector.present), self.memo)
        with np.errstate(invalid="ignore"):
            holds = COMPARISONS[self.operator](first, second)
        return Vector(
            vector.labels, vector.values, holds if vector.present is None else holds & vector.present
        )
