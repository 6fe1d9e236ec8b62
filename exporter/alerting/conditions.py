"""Under which conditions rules are evaluated: where they read and write, and what an evaluation may cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from exporter.promql.model import Budget, QueryError, Scalar, Vector
from exporter.promql.query import Query
from exporter.storage.model import Labels

if TYPE_CHECKING:
    from exporter.storage.head import Head
    from exporter.storage.model import F64, Bool


@dataclass(frozen=True, slots=True)
class Conditions:
    """The same for all rules of a daemon, or of a unit test. `timer` gives monotonic seconds."""

    head: Head
    external_labels: Mapping[str, str] = field(default_factory=dict)
    external_url: str = ""
    lookback_ms: int = 300_000
    query_timeout: float = 30.0
    query_samples: int = 20_000_000
    timer: Callable[[], float] = time.monotonic
    no_data_timeout_ms: int | None = None
    """How long an alert is held whose data went away; 0: until the data is back, None: not at all, as in Prometheus."""

    def budget(self) -> Budget:
        """What one evaluation of one rule may cost."""
        return Budget(samples=self.query_samples, timeout=self.query_timeout, clock=self.timer)


RESULT_LIMIT = 20_000
"""Most series that a rule, or a query of a template, may give: each becomes Python objects, in a process that also scrapes."""


class Result(NamedTuple):
    """A rule's vector at one time; `labels` is the same object as long as the series stay the same."""

    labels: Sequence[Labels]
    values: F64  # [n]
    present: Bool | None  # [n]; None: all are present


_NO_LABELS: Sequence[Labels] = ((),)


def evaluate(query: Query, at: int, budget: Budget, conditions: Conditions) -> Result:
    """What an expression gives at `at` ms; a scalar counts as a vector of one. QueryError, also for too many series."""
    value = query.instant(conditions.head, at, budget, lookback=conditions.lookback_ms)
    if isinstance(value, Vector):
        present = None if value.present is None else value.present[:, 0]
        return _bounded(Result(value.labels, value.values[:, 0], present))
    if isinstance(value, Scalar):
        return Result(_NO_LABELS, value.values, None)
    raise QueryError("execution", "rule result is not a vector or scalar")


def _bounded(result: Result) -> Result:
    """Where there are very many series, only those that are present, or QueryError."""
    if len(result.labels) <= RESULT_LIMIT:
        return result
    rows = range(len(result.labels)) if result.present is None else result.present.nonzero()[0].tolist()
    if len(rows) > RESULT_LIMIT:
        raise QueryError(
            "execution",
            f"the result has {len(rows)} series, more than {RESULT_LIMIT}: select fewer, or aggregate them",
        )
    return Result([result.labels[row] for row in rows], result.values[rows], None)
