"""The evaluator agrees with a slow one that knows only single samples."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_promql import EXACT, ROUNDED, ClashError, Expression, Moment, aggregations, expressions, stores
from plain_store import PlainStore, budget, table

from exporter import promql
from exporter.promql import QueryError
from exporter.promql.unique import SAME_LABELS

START, STEP, COUNT = 420_000, 130_000, 7
END = START + STEP * (COUNT - 1)
SETTINGS = settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))


def same(ours: dict, theirs: dict) -> bool:
    return ours.keys() == theirs.keys() and all(
        (math.isnan(ours[labels]) and math.isnan(theirs[labels]))
        or math.isclose(ours[labels], theirs[labels], rel_tol=1e-9, abs_tol=1e-9)
        for labels in ours
    )


def at_one_time(store: PlainStore, expression: Expression, now: int) -> None:
    query = promql.compile(expression.text)
    try:
        expected = expression.evaluate(Moment(store, now, now, now))
    except ClashError:
        with pytest.raises(QueryError) as refused:
            query.instant(store, now, budget())
        assert refused.value.kind == "execution"
        return
    for _ in range(2):  # what was kept from the first evaluation serves the second
        found = table(query.instant(store, now, budget()))
        assert same(found, expected), f"{expression.text} at {now}: {found}, not {expected}"


@SETTINGS
@given(stores(), expressions(), st.integers(0, 1_500_000))
def test_an_instant_query_gives_what_single_samples_give(store: PlainStore, expression: Expression, now: int):
    at_one_time(store, expression, now)


@SETTINGS
@given(stores(), expressions(2).flatmap(lambda one: aggregations(st.just(one), {**EXACT, **ROUNDED})))
def test_every_aggregator_gives_what_single_samples_give(store: PlainStore, expression: Expression):
    at_one_time(store, expression, 600_000)


@SETTINGS
@given(stores(), expressions())
def test_a_range_gives_at_each_step_what_an_instant_query_gives_there(
    store: PlainStore, expression: Expression
):
    query = promql.compile(expression.text)
    try:
        expected = [
            expression.evaluate(Moment(store, now, START, END)) for now in range(START, END + 1, STEP)
        ]
    except ClashError:
        with pytest.raises(QueryError):
            query.range(store, START, END, STEP, budget())
        return
    for _ in range(2):
        try:
            found = query.range(store, START, END, STEP, budget())
        except QueryError as error:
            # range functions refuse equal labels in the whole range, even where they take turns
            assert str(error) == SAME_LABELS and "_over_time" in expression.text
            return
        for step, one in enumerate(expected):
            assert same(table(found, step), one), (
                f"{expression.text}, step {step}: {table(found, step)}, not {one}"
            )
