"""The functions that Go's templates have of themselves, where they are more than a line.

Source: https://github.com/golang/go/blob/master/src/text/template/funcs.go
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from exporter.alerting.template.errors import FunctionError
from exporter.alerting.template.printing import sprint, text_of
from exporter.alerting.template.values import AnyMap, Object, Sample, Samples, TextMap, go_type


def joined(values: Sequence[Object]) -> str:
    """What `html`, `js` and `urlquery` make of their arguments before they escape it."""
    return sprint(
        [text_of(value) if value is None or isinstance(value, Sample) else value for value in values]
    )


def index(item: Object, *places: Object) -> Object:
    """`index x 1 2` is x[1][2], over maps, query results and the bytes of strings."""
    for place in places:
        item = _element(item, place)
    return item


def _element(item: Object, place: Object) -> Object:
    if isinstance(item, (TextMap, AnyMap)):
        if not isinstance(place, str):
            if place is None:
                raise FunctionError("value is nil; should be of type string")
            raise FunctionError(f"value has type {go_type(place)}; should be string")
        return item.get(place, "" if isinstance(item, TextMap) else None)
    if isinstance(item, (Samples, str)):
        if isinstance(place, bool) or not isinstance(place, int):
            shown = "nil" if place is None else f"type {go_type(place)}"
            raise FunctionError(f"cannot index slice/array with {shown}")
        sequence: Sequence[Object] = item.encode("utf-8", "replace") if isinstance(item, str) else item
        if not 0 <= place < len(sequence):
            raise FunctionError(f"index out of range: {place}")
        return sequence[place]
    if item is None:
        raise FunctionError("index of untyped nil")
    raise FunctionError(f"can't index item of type {go_type(item).lstrip('*')}")


def slice_of(item: Object, *places: Object) -> Object:
    """`slice x 1 2` is x[1:2], over query results and the bytes of strings."""
    if not isinstance(item, (Samples, str)):
        shown = "slice of untyped nil" if item is None else f"can't slice item of type {go_type(item)}"
        raise FunctionError(shown)
    if len(places) > 3:
        raise FunctionError(f"too many slice indexes: {len(places)}")
    if isinstance(item, str) and len(places) == 3:
        raise FunctionError("cannot 3-index slice a string")
    raw = item.encode("utf-8", "replace") if isinstance(item, str) else None
    size = len(item) if raw is None else len(raw)
    bounds = [0, size]
    for number, place in enumerate(places[:2]):
        if isinstance(place, bool) or not isinstance(place, int):
            raise FunctionError(f"cannot index slice/array with type {go_type(place)}")
        if not 0 <= place <= size:
            raise FunctionError(f"index out of range: {place}")
        bounds[number] = place
    if bounds[0] > bounds[1]:
        raise FunctionError(f"invalid slice index: {bounds[0]} > {bounds[1]}")
    if raw is not None:
        return raw[bounds[0] : bounds[1]].decode("utf-8", "replace")
    return Samples(cast("Samples", item)[bounds[0] : bounds[1]])


def length(item: Object) -> int:
    """How many entries, elements or bytes."""
    if isinstance(item, str):
        return len(item.encode("utf-8", "replace"))
    if isinstance(item, (TextMap, AnyMap, Samples)):
        return len(item)
    if item is None:
        raise FunctionError("reflect: call of reflect.Value.Type on zero Value")
    raise FunctionError(f"len of type {go_type(item).lstrip('*')}")


def call(function: Object, *_: Object) -> Object:
    """`call` always fails: no value of a rule's template is a function."""
    if function is None:
        raise FunctionError("call of nil")
    raise FunctionError(f"non-function {sprint([function])} of type {go_type(function)}")


_BASIC = (bool, int, float, str)


def _basic(value: Object) -> type | None:
    return next((kind for kind in _BASIC if type(value) is kind), None)


def equal(first: Object, *others: Object) -> bool:
    """Whether the first equals any of the others; FunctionError where their types cannot be compared, int and float64 among them."""
    if not others:
        raise FunctionError("missing argument for comparison")
    for other in others:
        kind, other_kind = _basic(first), _basic(other)
        if kind is not other_kind and first is not None and other is not None:
            raise FunctionError("incompatible types for comparison")
        if kind is None and any(isinstance(value, (dict, list)) for value in (first, other)):
            raise FunctionError(
                f"non-comparable types {sprint([first])}: {go_type(first)}, {go_type(other)}: {sprint([other])}"
            )
        if first is other if kind is None else first == other and kind is other_kind:
            return True
    return False


def less(first: Object, second: Object) -> bool:
    """Whether the first is less; FunctionError as for `equal`."""
    kind, other = _basic(first), _basic(second)
    if kind is None or other is None:
        raise FunctionError("invalid type for comparison")
    if kind is not other:
        raise FunctionError("incompatible types for comparison")
    if kind is bool:
        raise FunctionError("invalid type for comparison")
    return bool(cast("float", first) < cast("float", second))


def less_or_equal(first: Object, second: Object) -> bool:
    """As Go has it: less, or equal."""
    return less(first, second) or equal(first, second)
