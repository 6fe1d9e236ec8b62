"""Instant and range queries, from a request's parameters to the answer's bytes. Runs in a thread."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from exporter.promql.model import Matrix
from exporter.web.api.compiled import Shelf
from exporter.web.api.envelope import Answer, success
from exporter.web.api.lookups import TRUNCATED
from exporter.web.api.parameters import (
    Form,
    invalid,
    limit_parameter,
    lookback_parameter,
    steps,
    time_parameter,
)
from exporter.web.api.results import Line, print_instant, print_matrix, print_range

if TYPE_CHECKING:
    from exporter.promql.model import Budget
    from exporter.web.api.model import Store

KINDS = {"matrix": "range vector", "string": "string"}


class Instant(NamedTuple):
    """An instant query; times in milliseconds."""

    expression: str
    at: int
    lookback: int
    limit: int

    @classmethod
    def read(cls, form: Form, *, now: float, lookback: float) -> Instant:
        """Out of a request; `now` in unix seconds, `lookback` in seconds."""
        limit = limit_parameter(form)
        at = time_parameter(form, "time", math.floor(now * 1000))
        return cls(form.get("query"), at, lookback_parameter(form, lookback), limit)

    def answer(self, store: Store, shelf: Shelf, budget: Budget, *, gzip: bool) -> Answer:
        """Evaluate and print."""
        with shelf.taken(self.expression) as query:
            value = query.instant(store, self.at, budget, lookback=self.lookback)
        if isinstance(value, Matrix):
            lines = map(Line, value.labels, value.times, value.values)
            printed = print_matrix(lines, limit=self.limit, spend=budget.spend)
        else:
            printed = print_instant(value, self.at, limit=self.limit, spend=budget.spend)
        warnings = [TRUNCATED] if printed.truncated else []
        return success(printed=printed.pieces, warnings=warnings, gzip=gzip)


class Range(NamedTuple):
    """A range query; times in milliseconds."""

    expression: str
    start: int
    end: int
    step: int
    lookback: int
    limit: int

    @classmethod
    def read(cls, form: Form, *, lookback: float) -> Range:
        """Out of a request; `lookback` in seconds."""
        limit = limit_parameter(form)
        start, end, step = steps(form)
        return cls(form.get("query"), start, end, step, lookback_parameter(form, lookback), limit)

    def answer(self, store: Store, shelf: Shelf, budget: Budget, *, gzip: bool) -> Answer:
        """Evaluate and print."""
        with shelf.taken(self.expression) as query:
            if shown := KINDS.get(query.kind):
                raise invalid(
                    "query",
                    f'invalid expression type "{shown}" for range query, must be Scalar or instant Vector',
                )
            value = query.range(store, self.start, self.end, self.step, budget, lookback=self.lookback)
        times = np.arange(self.start, self.end + 1, self.step, dtype=np.int64)
        printed = print_range(value, times, limit=self.limit, spend=budget.spend)
        warnings = [TRUNCATED] if printed.truncated else []
        return success(printed=printed.pieces, warnings=warnings, gzip=gzip)


def check(expression: str, shelf: Shelf) -> None:
    """ApiError (`bad_data`) when the expression is none."""
    with shelf.taken(expression, parameter=""):
        pass


def pretty(expression: str, shelf: Shelf) -> str:
    """The expression, laid out."""
    import promql_parser

    try:
        with shelf.taken(expression):  # what compiles is safe to parse
            return str(promql_parser.parse(expression).prettify())
    except ValueError as error:  # there are expressions that only our compiler reads
        raise invalid("query", str(error)) from error
