"""Expressions that were asked before, compiled: a dashboard asks the same ones again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from exporter.promql.model import QueryError
from exporter.web.api.model import ApiError, Compiled
from exporter.web.api.parameters import invalid

KEPT = 64
"""Compiled expressions that are kept."""
KEPT_LENGTH = 4096
"""Longer expressions are not kept, in characters."""

Compile = Callable[[str], Compiled]


class Shelf:
    """Keeps compiled expressions; one that is taken is in nobody else's hands. For any thread."""

    def __init__(self, compile_expression: Compile | None = None) -> None:
        self._compile = compile_expression
        self._kept: dict[str, Compiled] = {}

    @contextmanager
    def taken(self, expression: str, *, parameter: str = "query") -> Iterator[Compiled]:
        """The compiled expression, put back unless its use ends in an error.

        ApiError when it is none; it names the request's `parameter`, if there is a name.
        """
        compiled = self._kept.pop(expression, None)
        if compiled is None:
            try:
                compiled = (self._compile or _compile)(expression)
            except QueryError as error:
                refusal = invalid(parameter, str(error)) if parameter else ApiError("bad_data", str(error))
                raise refusal from error
        yield compiled
        if len(expression) <= KEPT_LENGTH:
            self._kept[expression] = compiled
            while len(self._kept) > KEPT:
                try:
                    del self._kept[next(iter(self._kept))]
                except (KeyError, RuntimeError, StopIteration):  # another thread did
                    break


def _compile(expression: str) -> Compiled:
    from exporter.promql import compile as compile_expression

    return compile_expression(expression)
