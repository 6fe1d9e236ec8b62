"""Functions of each value by itself: rounding, clamping, exponentials, trigonometry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.promql.functions.arguments import scalar, vector
from exporter.promql.functions.naming import all_or, without_name
from exporter.promql.model import Argument, CallSite, Function, Vector

if TYPE_CHECKING:
    from exporter.storage.model import F64


def each(of: Callable[[F64], F64]) -> Function:
    """The PromQL function that gives `of(value)` for each value; outside its domain that is NaN."""

    def function(call: CallSite, arguments: Sequence[Argument]) -> Vector:
        given = vector(arguments)
        with np.errstate(all="ignore"):
            values = of(given.values)
        return without_name(call, given.labels, values, given.present)

    return function


ELEMENTWISE: Mapping[str, Function] = {
    "abs": each(np.abs),
    "ceil": each(np.ceil),
    "floor": each(np.floor),
    "exp": each(np.exp),
    "sqrt": each(np.sqrt),
    "ln": each(np.log),
    "log2": each(np.log2),
    "log10": each(np.log10),
    "sgn": each(np.sign),
    "deg": each(lambda values: values * 180 / math.pi),
    "rad": each(lambda values: values * math.pi / 180),
    "sin": each(np.sin),
    "cos": each(np.cos),
    "tan": each(np.tan),
    "asin": each(np.arcsin),
    "acos": each(np.arccos),
    "atan": each(np.arctan),
    "sinh": each(np.sinh),
    "cosh": each(np.cosh),
    "tanh": each(np.tanh),
    "asinh": each(np.arcsinh),
    "acosh": each(np.arccosh),
    "atanh": each(np.arctanh),
}


def rounded(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """The nearest multiple of the second argument (1 if there is none); halves go up."""
    given = vector(arguments)
    nearest: F64 = scalar(arguments, 1) if len(arguments) > 1 else np.ones(1)
    with np.errstate(all="ignore"):
        inverse = 1.0 / nearest  # as Prometheus does it: 0.1 is not exact, 10 is
        values = np.floor(given.values * inverse + 0.5) / inverse
    return without_name(call, given.labels, values, given.present)


def clamp(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    """The value, but no less than the second argument and no more than the third; nothing where these are crossed."""
    return _clamped(call, vector(arguments), scalar(arguments, 1), scalar(arguments, 2))


def clamp_min(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    return _clamped(call, vector(arguments), scalar(arguments, 1), np.full(1, np.inf))


def clamp_max(call: CallSite, arguments: Sequence[Argument]) -> Vector:
    return _clamped(call, vector(arguments), np.full(1, -np.inf), scalar(arguments, 1))


def _clamped(call: CallSite, given: Vector, least: F64, most: F64) -> Vector:
    values = _larger(least, _smaller(most, given.values))
    present = given.present
    crossed = most < least
    if crossed.any():
        kept = np.broadcast_to(~crossed, values.shape)
        present = all_or(kept if present is None else kept & present)
    return without_name(call, given.labels, values, present)


def _smaller(bound: F64, values: F64) -> F64:
    """As Go's math.Min: NaN if either is, but nothing is smaller than -Inf."""
    return np.where((bound == -np.inf) | (values == -np.inf), -np.inf, np.minimum(bound, values))


def _larger(bound: F64, values: F64) -> F64:
    """As Go's math.Max: NaN if either is, but nothing is larger than +Inf."""
    return np.where((bound == np.inf) | (values == np.inf), np.inf, np.maximum(bound, values))
