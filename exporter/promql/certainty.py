"""Which parts of an expression cannot fail, whatever the data: they need not be evaluated where nothing hangs on them."""

from __future__ import annotations

from exporter.promql.aggregate import Aggregation
from exporter.promql.arithmetic import COMPARISONS
from exporter.promql.calls import Call
from exporter.promql.operators import MixedOperation, ScalarOperation
from exporter.promql.plan import Node, Number, Once
from exporter.promql.selectors import RangeSelector, VectorSelector
from exporter.promql.sets import SetOperation
from exporter.storage.model import NAME, Matcher

WINDOWED = frozenset(
    f"{name}_over_time"
    for name in ("avg", "min", "max", "sum", "count", "last", "present", "stddev", "stdvar")
) | {"rate", "increase", "delta", "irate", "idelta", "changes", "resets", "deriv"}
"""Functions of one window per series, which drop at most the metric name."""


def cannot_fail(node: Node) -> bool:
    """Whether evaluation always gives a value, but for a deadline; False where that is not certain.

    What fails are label sets that are not unique any more, matching, and parameters that are out of bounds.
    """
    match node:
        case Number() | VectorSelector() | RangeSelector():
            return True
        case Once(part=part):
            return cannot_fail(part)
        case Aggregation(part=part):
            return cannot_fail(part)
        case ScalarOperation(left=left, right=right) | SetOperation(left=left, right=right):
            return cannot_fail(left) and cannot_fail(right)
        case MixedOperation(left=left, right=right):
            kept = node.operator in COMPARISONS and not node.as_bool
            apart = all(kept or side.kind == "scalar" or _is_of_one_name(side) for side in (left, right))
            return apart and cannot_fail(left) and cannot_fail(right)
        case Call(arguments=[RangeSelector(matchers=matchers)]):
            return node.name in WINDOWED and _names_one(matchers)
    return False


def _is_of_one_name(node: Node) -> bool:
    """Whether no two of its series differ in the metric name alone."""
    match node:
        case Once(part=part):
            return _is_of_one_name(part)
        case VectorSelector(matchers=matchers):
            return _names_one(matchers)
        case Aggregation():
            return node.grouping.without or NAME not in node.grouping.names
        case MixedOperation(left=left, right=right):
            return all(side.kind == "scalar" or _is_of_one_name(side) for side in (left, right))
        case Call(arguments=[RangeSelector(matchers=matchers)]):
            return node.name in WINDOWED and _names_one(matchers)
    return False


def _names_one(matchers: tuple[Matcher, ...]) -> bool:
    return any(matcher.name == NAME and matcher.op == "=" and matcher.value for matcher in matchers)
