"""A compiled expression, evaluated at one time or over a range."""

from __future__ import annotations

import numpy as np

from exporter.promql.model import Budget, Matrix, QueryError, RangeVector, Steps, Value
from exporter.promql.pieces import evaluated
from exporter.promql.plan import Evaluation, Kind, Node
from exporter.promql.reads import Reads
from exporter.promql.selectors import matrix
from exporter.storage.model import Storage

LOOKBACK_MS = 300_000
"""How old a sample may be and still count: 5 minutes, as in Prometheus."""


class Query:
    """An expression that was checked and planned; used by one thread at a time.

    What it learns of label sets it keeps from one evaluation to the next, so a rule keeps its query.
    """

    __slots__ = ("_root", "expression", "kind", "reads")

    def __init__(self, expression: str, root: Node, reads: tuple[Reads, ...]) -> None:
        self.expression = expression
        self.kind: Kind = root.kind
        self.reads = reads
        self._root = root

    @property
    def plan(self) -> Node:
        """The tree of what is evaluated, for those who ask what an expression hangs on."""
        return self._root

    def instant(
        self, storage: Storage, at: int, budget: Budget, *, lookback: int = LOOKBACK_MS
    ) -> Value | Matrix:
        """The value at one time, in ms; raw samples where the expression is a bare range selector or subquery."""
        steps = Steps(np.array([at], np.int64), at, at, 0)
        value = self._root.evaluate(Evaluation(storage, steps, budget, lookback))
        if isinstance(value, RangeVector):
            budget.spend(int(value.selection.edges(value.lo, value.hi).counts.sum()))
            return matrix(value.selection, int(value.lo[0]), int(value.hi[0]))
        return value

    def range(
        self,
        storage: Storage,
        start: int,
        end: int,
        step: int,
        budget: Budget,
        *,
        lookback: int = LOOKBACK_MS,
    ) -> Value:
        """The values from start to end, both included, every `step` ms: columns are steps.

        Rows are in no order. QueryError for an expression of another kind than vector or scalar; ValueError for a step
        below 1, or an end before the start.
        """
        if self.kind not in ("vector", "scalar"):
            raise QueryError(
                "bad_data",
                f'invalid expression type "{_SHOWN[self.kind]}" for range query, must be Scalar or instant Vector',
            )
        if step < 1 or end < start:
            raise ValueError(f"a range from {start} to {end} ms in steps of {step} ms has no steps")
        budget.spend((end - start) // step + 1)
        times = np.arange(start, end + 1, step, dtype=np.int64)
        run = Evaluation(storage, Steps(times[:0], start, end, step), budget, lookback)
        return evaluated(self._root, run, times, step, [one.matchers for one in self.reads])


_SHOWN = {"vector": "instant vector", "matrix": "range vector", "scalar": "scalar", "string": "string"}
