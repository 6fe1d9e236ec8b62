"""Function calls: arguments are evaluated here, the rest is the function's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from exporter.promql.model import CallSite, Function, Memo, Value, Vector
from exporter.promql.plan import Evaluation, Kind, Node
from exporter.promql.unique import unique
from exporter.storage.model import Matcher

TIMELY = frozenset(
    {
        "time",
        "timestamp",
        "days_in_month",
        "day_of_month",
        "day_of_week",
        "day_of_year",
        "hour",
        "minute",
        "month",
        "year",
        "predict_linear",
    }
)
"""Functions whose value depends on the step even when their arguments' does not (AtModifierUnsafeFunctions in
promql/functions.go of prometheus/prometheus)."""


@dataclass(slots=True)
class Call:
    """One call of a function."""

    name: str
    function: Function
    arguments: Sequence[Node]
    kind: Kind
    matchers: tuple[Matcher, ...] | None
    memo: Memo = field(default_factory=Memo)
    unique_memo: Memo = field(default_factory=Memo)
    invariant: bool = field(init=False)
    _ranged: bool = field(init=False)

    def __post_init__(self) -> None:
        self.invariant = self.name not in TIMELY and all(one.invariant for one in self.arguments)
        self._ranged = any(argument.kind == "matrix" for argument in self.arguments)

    def evaluate(self, run: Evaluation) -> Value:
        run.budget.spend(0)
        given = [argument.evaluate(run) for argument in self.arguments]
        site = CallSite(self.name, run.steps, self.memo, run.budget, self.matchers)
        value = self.function(site, given)
        if isinstance(value, Vector):
            return unique(value, self.unique_memo, apart=not self._ranged)
        return value
