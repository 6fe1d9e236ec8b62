"""A recording rule: the result of an expression under a new name, written as a stream of its own.

Source: `RecordingRule.Eval` in https://github.com/prometheus/prometheus/blob/main/rules/recording.go
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.alerting.conditions import Conditions, Result, evaluate
from exporter.alerting.rulefile import Rule
from exporter.promql.model import Memo, QueryError
from exporter.promql.query import Query
from exporter.storage.layout import Layout
from exporter.storage.model import NAME, Labels
from exporter.storage.stream import Stream

if TYPE_CHECKING:
    from exporter.storage.model import F64, Bool

Pair = tuple[str, str]
"""A label's name and value."""
DUPLICATE = "vector contains metrics with the same labelset after applying rule labels"


class Recording:
    """One recording rule; rule thread only."""

    def __init__(self, rule: Rule, query: Query, stream: Stream) -> None:
        self.rule = rule
        self.stream = stream
        self._query = query
        self._memo = Memo()
        self._chosen: tuple[list[Labels], Layout] | None = None

    def evaluate(self, at: int, limit: int, conditions: Conditions) -> int:
        """Evaluate at `at`, and write the samples there; gives their number. QueryError: nothing is written.

        As in Prometheus the series of a rule that failed do not end by that.
        """
        result = evaluate(self._query, at, conditions.budget(), conditions)
        layout, values, present = self._row(result)
        count = len(values) if present is None else int(np.count_nonzero(present))
        if limit and count > limit:
            raise QueryError("execution", f"exceeded limit of {limit} with {count} series")
        self.stream.append(at, layout, values, present)
        return count

    def _row(self, result: Result) -> tuple[Layout, F64, Bool | None]:
        source = result.labels
        labels = self._memo.of("labels", (source,), lambda: self._renamed(source))
        layout = self._memo.of("layout", (source,), lambda: _layout(labels))
        if layout is not None:
            return layout, result.values, result.present
        # Two series would have one name; that matters only where both are present.
        present = np.ones(len(labels), np.bool_) if result.present is None else result.present
        chosen = [one for one, here in zip(labels, present, strict=True) if here]
        if len(set(chosen)) != len(chosen):
            raise QueryError("execution", DUPLICATE)
        if self._chosen is None or self._chosen[0] != chosen:
            self._chosen = (chosen, Layout(chosen))
        return self._chosen[1], result.values[present], None

    def _renamed(self, source: Sequence[Labels]) -> list[Labels]:
        fixed = pairs({**self.rule.labels, NAME: self.rule.name})
        return [relabelled(labels, fixed) for labels in source]


def pairs(labels: Mapping[str, str]) -> dict[str, Pair]:
    """Labels for `relabelled`, by name: made once, they are in as many label sets as there are."""
    return {name: (name, value) for name, value in labels.items()}


def relabelled(labels: Labels, fixed: Mapping[str, Pair]) -> Labels:
    """A label set with some labels set; those that are set to nothing are gone.

    No pair is copied: in a storm of alerts the same pairs are in many sets.
    """
    found = [pair for pair in labels if pair[0] not in fixed and pair[1]]
    found += [pair for pair in fixed.values() if pair[1]]
    found.sort()
    return tuple(found)


def _layout(labels: Sequence[Labels]) -> Layout | None:
    """The columns of a row; None where two are the same."""
    return Layout(labels) if len(set(labels)) == len(labels) else None
