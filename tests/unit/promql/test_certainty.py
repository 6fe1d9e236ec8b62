"""What cannot fail is left out where nothing hangs on it; what can fail still says so."""

from __future__ import annotations

import pytest
from plain_store import PlainStore, budget

from exporter import promql
from exporter.promql import QueryError
from exporter.promql.certainty import cannot_fail
from exporter.promql.compiler import compiled
from exporter.promql.plan import Node

CERTAIN = """
    up
    {job="a"}
    rate(up[5m])
    sum by (job) (rate(up[5m]))
    max_over_time(up[1m]) > 3
    sum(up) * 2 > 1
    up == 1 and on () sum(rate(up[1m])) > 0
    1 + 2 > bool 1
"""
UNCERTAIN = """
    a / b
    rate({job="a"}[5m])
    {job="a"} * 2
    {job="a"} > bool 2
    sum by (__name__) (up) * 2
    label_replace(up, "a", "b", "c", "d")
    topk(scalar(up), up)
    up and a / b
"""


def node(expression: str) -> Node:
    return compiled(expression, 60_000)._root


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


@pytest.mark.parametrize("expression", lines(CERTAIN))
def test_it_is_certain(expression: str) -> None:
    assert cannot_fail(node(expression))


@pytest.mark.parametrize("expression", lines(UNCERTAIN))
def test_it_is_not(expression: str) -> None:
    assert not cannot_fail(node(expression))


class Asked(PlainStore):
    """Notes which metrics were asked for."""

    def select(self, matchers):  # type: ignore[no-untyped-def]
        self.names = [*getattr(self, "names", []), *(one.value for one in matchers if one.name == "__name__")]
        return super().select(matchers)


@pytest.mark.parametrize("operator", ["and", "unless"])
def test_a_certain_right_side_is_left_alone_where_the_left_one_is_empty(operator: str) -> None:
    store = Asked("x 1", "y 2")
    query = promql.compile(f"x > 1 {operator} on () sum(y) > 0")
    assert not query.instant(store, 60_000, budget()).labels or query.instant(store, 60_000, budget()).empty
    assert set(store.names) == {"x"}
    store = Asked("x 2", "y 2")
    query.instant(store, 60_000, budget())
    assert set(store.names) == {"x", "y"}


def test_a_right_side_that_fails_does_so_with_an_empty_left_one() -> None:
    store = PlainStore('a{k="1",l="1"} 1', 'a{k="1",l="2"} 1', 'b{k="1"} 1')
    with pytest.raises(QueryError, match=r"many-to-many|multiple matches"):
        promql.compile("nothing and a * on (k) b").instant(store, 60_000, budget())
