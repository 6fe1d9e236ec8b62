"""PromQL over the store: parsing is promql-parser's, evaluation ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.promql.model import Budget, Matrix, QueryError, Scalar, String, Vector

if TYPE_CHECKING:
    from exporter.promql.query import Query

__all__ = ["Budget", "Matrix", "QueryError", "Scalar", "String", "Vector", "compile"]


def compile(expression: str, *, subquery_step: int = 60_000) -> Query:  # noqa: A001
    """The expression, checked and planned.

    `subquery_step` is the step, in ms, of subqueries that name none: Prometheus' global evaluation interval.
    QueryError of kind bad_data, mostly with a position, for what is no PromQL or what we do not have.
    """
    from exporter.promql.compiler import compiled  # numpy, re2 and the parser are not needed to start

    return compiled(expression, subquery_step)
