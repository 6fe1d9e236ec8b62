from __future__ import annotations

import pytest

from exporter import promql
from exporter.promql.query import Query
from exporter.web.api import compiled
from exporter.web.api.compiled import Shelf
from exporter.web.api.model import ApiError


def test_an_expression_is_compiled_once_and_never_in_two_hands() -> None:
    asked: list[str] = []

    def counted(expression: str) -> Query:
        asked.append(expression)
        return promql.compile(expression)

    shelf = Shelf(counted)
    with shelf.taken("up") as first, shelf.taken("up") as second:
        assert first is not second
    with shelf.taken("up") as third:
        assert third in (first, second)
    assert asked == ["up", "up"]


def test_what_is_no_expression_is_bad_data() -> None:
    message = 'invalid parameter "query": 1:5: parse error: unclosed'
    with pytest.raises(ApiError, match=message), Shelf().taken("sum("):
        pass


def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "KEPT", 2)
    made: list[str] = []

    def counted(expression: str) -> Query:
        made.append(expression)
        return promql.compile(expression)

    shelf = Shelf(counted)
    for expression in ("a", "b", "c", "c", "b", "a", "x" * 5000, "x" * 5000):
        with shelf.taken(expression):
            pass
    assert made == ["a", "b", "c", "a", "x" * 5000, "x" * 5000]


def test_an_expression_whose_use_fails_is_not_kept() -> None:
    shelf = Shelf()
    with pytest.raises(ZeroDivisionError), shelf.taken("up") as first:
        raise ZeroDivisionError
    with shelf.taken("up") as second:
        assert second is not first
