"""What a function was called with, as what it needs; the parser has checked the types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from exporter.promql.model import Argument, QueryError, RangeVector, Scalar, String, Vector

if TYPE_CHECKING:
    from exporter.storage.model import F64


def vector(arguments: Sequence[Argument], place: int = 0) -> Vector:
    argument = arguments[place]
    if isinstance(argument, Vector):
        return argument
    raise _other("instant vector", place)


def window(arguments: Sequence[Argument], place: int = 0) -> RangeVector:
    argument = arguments[place]
    if isinstance(argument, RangeVector):
        return argument
    raise _other("range vector", place)


def scalar(arguments: Sequence[Argument], place: int) -> F64:
    """The number at each step, shape [s]."""
    argument = arguments[place]
    if isinstance(argument, Scalar):
        return argument.values
    raise _other("scalar", place)


def string(arguments: Sequence[Argument], place: int) -> str:
    argument = arguments[place]
    if isinstance(argument, String):
        return argument.value
    raise _other("string", place)


def _other(expected: str, place: int) -> QueryError:
    return QueryError("bad_data", f"expected type {expected} in argument {place + 1}")
