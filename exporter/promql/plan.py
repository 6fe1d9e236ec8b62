"""What an expression becomes when it is compiled: a tree of nodes that are evaluated over all steps at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from exporter.promql.model import Argument, Budget, Scalar, Steps, String, Value, Vector
from exporter.storage.model import Storage

if TYPE_CHECKING:
    from exporter.storage.model import I64

Kind = Literal["vector", "matrix", "scalar", "string"]


@dataclass(slots=True)
class Evaluation:
    """One evaluation of a query: where it reads, at which times, and what it may cost.

    `kept` holds what does not change from step to step, by node, over all pieces and subqueries of the evaluation.
    """

    storage: Storage
    steps: Steps
    budget: Budget
    lookback: int
    kept: dict[int, Argument] = field(default_factory=dict)

    def at(self, times: I64, interval: int) -> Evaluation:
        """The same evaluation at other times; what `@ start()` means stays."""
        steps = Steps(times, self.steps.start, self.steps.end, interval)
        return Evaluation(self.storage, steps, self.budget, self.lookback, self.kept)


class Node(Protocol):
    """A place in the expression."""

    @property
    def kind(self) -> Kind:
        """The type of its value."""

    @property
    def invariant(self) -> bool:
        """Whether its value is the same at every step, whatever the steps are."""

    def evaluate(self, run: Evaluation) -> Argument:
        """Its value at all steps."""


@dataclass(slots=True)
class Number:
    """A number literal."""

    value: float
    kind: Kind = "scalar"
    invariant: bool = True

    def evaluate(self, run: Evaluation) -> Value:
        return Scalar(np.full(len(run.steps.times), self.value))


@dataclass(slots=True)
class Text:
    """A string literal."""

    value: str
    kind: Kind = "string"
    invariant: bool = True

    def evaluate(self, run: Evaluation) -> Value:
        return String(self.value)


@dataclass(slots=True)
class Once:
    """A part of which all selectors have fixed times: evaluated at one step, and repeated for the others."""

    part: Node
    invariant: bool = True

    @property
    def kind(self) -> Kind:
        return self.part.kind

    def evaluate(self, run: Evaluation) -> Argument:
        value = run.kept.get(id(self))
        if value is None:
            value = run.kept[id(self)] = self.part.evaluate(run.at(run.steps.times[:1], 0))
        count = len(run.steps.times)
        if count == 1:
            return value
        if isinstance(value, Scalar):
            return Scalar(np.repeat(value.values, count))
        if isinstance(value, Vector):
            present = None if value.present is None else np.repeat(value.present, count, axis=1)
            return Vector(value.labels, np.repeat(value.values, count, axis=1), present)
        return value
