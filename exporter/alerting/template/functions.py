"""The functions that a template may call: Go's own, and Prometheus'.

Source: https://pkg.go.dev/text/template#hdr-Functions and
https://prometheus.io/docs/prometheus/latest/configuration/template_reference/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from exporter.alerting.durations import parse_duration
from exporter.alerting.template import humanize, texts
from exporter.alerting.template.errors import FunctionError
from exporter.alerting.template.printing import sprint, sprintf, sprintln, text_of
from exporter.alerting.template.values import (
    NO_SAMPLE,
    AnyMap,
    Duration,
    Object,
    Sample,
    Samples,
    TextMap,
    Time,
    go_type,
    is_true,
    samples_of,
    to_float,
    to_time,
)

Query = Callable[[str], Sequence[tuple[Mapping[str, str], float]]]


@dataclass(slots=True)
class Surroundings:
    """What functions see of the world; `now` in unix seconds."""

    query: Query
    now: float
    external_url: str
    queries_left: int


class Signature(NamedTuple):
    """A function with the Go types of what it takes: `any`, `string`, or the name of another type."""

    call: Callable[..., Object]
    takes: tuple[str, ...]
    rest: str | None = None
    """The type of any number of further arguments."""
    surroundings: bool = False
    """Whether the first argument is `Surroundings`."""


TEXT, ANY, SAMPLE, SAMPLES = "string", "interface {}", "*template.sample", "template.queryResult"


def _query(surroundings: Surroundings, expression: str) -> Samples:
    if surroundings.queries_left <= 0:
        raise FunctionError("too many queries in one template")
    surroundings.queries_left -= 1
    try:
        return samples_of(surroundings.query(expression))
    except (RecursionError, MemoryError):
        raise
    except Exception as error:
        raise FunctionError(str(error)) from error


def _now(surroundings: Surroundings) -> float:
    return surroundings.now


def _external_url(surroundings: Surroundings) -> str:
    return surroundings.external_url


def _path_prefix(surroundings: Surroundings) -> str:
    try:
        return urlsplit(surroundings.external_url).path
    except ValueError as error:
        raise FunctionError(str(error)) from error


def _first(samples: Samples) -> Sample:
    if not samples:
        raise FunctionError("first() called on vector with no elements")
    return samples[0]


def _pointed(sample: Sample) -> Sample:
    if sample is NO_SAMPLE:
        raise FunctionError("runtime error: invalid memory address or nil pointer dereference")
    return sample


def _sorted(label: str, samples: Samples) -> Samples:
    return Samples(sorted(samples, key=lambda sample: sample.labels.get(label, "")))


def _arguments(*values: Object) -> AnyMap:
    return AnyMap({f"arg{number}": value for number, value in enumerate(values)})


def _to_duration(value: Object) -> Duration:
    nanoseconds = to_float(value) * 1e9
    if not abs(nanoseconds) < 2.0**63:
        return Duration(-(2**63))
    return Duration(int(nanoseconds))


def _to_time(value: Object) -> Time:
    return to_time(to_float(value))


def _parse_duration(text: str) -> float:
    try:
        return -parse_duration(text[1:]) if text.startswith("-") else parse_duration(text)
    except ValueError as error:
        raise FunctionError(str(error)) from error


# Go's own


def _joined(values: Sequence[Object]) -> str:
    return sprint(
        [text_of(value) if value is None or isinstance(value, Sample) else value for value in values]
    )


def _index(item: Object, *places: Object) -> Object:
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


def _slice(item: Object, *places: Object) -> Object:
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


def _length(item: Object) -> int:
    if isinstance(item, str):
        return len(item.encode("utf-8", "replace"))
    if isinstance(item, (TextMap, AnyMap, Samples)):
        return len(item)
    if item is None:
        raise FunctionError("reflect: call of reflect.Value.Type on zero Value")
    raise FunctionError(f"len of type {go_type(item).lstrip('*')}")


def _call(function: Object, *_: Object) -> Object:
    if function is None:
        raise FunctionError("call of nil")
    raise FunctionError(f"non-function {sprint([function])} of type {go_type(function)}")


_BASIC = (bool, int, float, str)


def _basic(value: Object) -> type | None:
    return next((kind for kind in _BASIC if type(value) is kind), None)


def _equal(first: Object, *others: Object) -> bool:
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


def _less(first: Object, second: Object) -> bool:
    kind, other = _basic(first), _basic(second)
    if kind is None or other is None:
        raise FunctionError("invalid type for comparison")
    if kind is not other:
        raise FunctionError("incompatible types for comparison")
    if kind is bool:
        raise FunctionError("invalid type for comparison")
    return bool(cast("float", first) < cast("float", second))


def _less_or_equal(first: Object, second: Object) -> bool:
    return _less(first, second) or _equal(first, second)


FUNCTIONS: Mapping[str, Signature] = {
    # Go's; `and` and `or` stop early, which is why the evaluation knows them too
    "and": Signature(lambda *values: values[-1], (ANY,), ANY),
    "or": Signature(lambda *values: values[-1], (ANY,), ANY),
    "not": Signature(lambda value: not is_true(value), (ANY,)),
    "eq": Signature(_equal, (ANY,), ANY),
    "ne": Signature(lambda first, second: not _equal(first, second), (ANY, ANY)),
    "lt": Signature(_less, (ANY, ANY)),
    "le": Signature(_less_or_equal, (ANY, ANY)),
    "gt": Signature(lambda first, second: not _less_or_equal(first, second), (ANY, ANY)),
    "ge": Signature(lambda first, second: not _less(first, second), (ANY, ANY)),
    "call": Signature(_call, (ANY,), ANY),
    "len": Signature(_length, (ANY,)),
    "index": Signature(_index, (ANY,), ANY),
    "slice": Signature(_slice, (ANY,), ANY),
    "print": Signature(lambda *values: sprint(values), (), ANY),
    "println": Signature(lambda *values: sprintln(values), (), ANY),
    "printf": Signature(lambda form, *values: sprintf(form, values), (TEXT,), ANY),
    "html": Signature(lambda *values: texts.escape_html(_joined(values)), (), ANY),
    "js": Signature(lambda *values: texts.escape_js(_joined(values)), (), ANY),
    "urlquery": Signature(lambda *values: texts.escape_query(_joined(values)), (), ANY),
    # Prometheus'
    "query": Signature(_query, (TEXT,), surroundings=True),
    "first": Signature(_first, (SAMPLES,)),
    "label": Signature(lambda name, sample: _pointed(sample).labels.get(name, ""), (TEXT, SAMPLE)),
    "value": Signature(lambda sample: _pointed(sample).value, (SAMPLE,)),
    "strvalue": Signature(lambda sample: _pointed(sample).labels.get("__value__", ""), (SAMPLE,)),
    "sortByLabel": Signature(_sorted, (TEXT, SAMPLES)),
    "args": Signature(_arguments, (), ANY),
    "humanize": Signature(humanize.humanize, (ANY,)),
    "humanize1024": Signature(humanize.humanize1024, (ANY,)),
    "humanizeDuration": Signature(humanize.humanize_duration, (ANY,)),
    "humanizePercentage": Signature(humanize.humanize_percentage, (ANY,)),
    "humanizeTimestamp": Signature(humanize.humanize_timestamp, (ANY,)),
    "toTime": Signature(_to_time, (ANY,)),
    "toDuration": Signature(_to_duration, (ANY,)),
    "now": Signature(_now, (), surroundings=True),
    "parseDuration": Signature(_parse_duration, (TEXT,)),
    "title": Signature(texts.title, (TEXT,)),
    "toUpper": Signature(str.upper, (TEXT,)),
    "toLower": Signature(str.lower, (TEXT,)),
    "match": Signature(texts.matches, (TEXT, TEXT)),
    "reReplaceAll": Signature(texts.replace_all, (TEXT, TEXT, TEXT)),
    "stripPort": Signature(texts.strip_port, (TEXT,)),
    "stripDomain": Signature(texts.strip_domain, (TEXT,)),
    "graphLink": Signature(texts.graph_link, (TEXT,)),
    "tableLink": Signature(texts.table_link, (TEXT,)),
    "safeHtml": Signature(lambda text: text, (TEXT,)),
    "urlQueryEscape": Signature(texts.escape_query, (TEXT,)),
    "externalURL": Signature(_external_url, (), surroundings=True),
    "pathPrefix": Signature(_path_prefix, (), surroundings=True),
}
