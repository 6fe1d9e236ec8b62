"""The functions that a template may call: Go's own, and Prometheus'.

Source: https://pkg.go.dev/text/template#hdr-Functions and
https://prometheus.io/docs/prometheus/latest/configuration/template_reference/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from exporter.alerting.durations import parse_duration
from exporter.alerting.template import gofunctions, humanize, texts
from exporter.alerting.template.errors import FunctionError
from exporter.alerting.template.printing import sprint, sprintf, sprintln
from exporter.alerting.template.values import (
    NO_SAMPLE,
    AnyMap,
    Duration,
    Object,
    Sample,
    Samples,
    Time,
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


FUNCTIONS: Mapping[str, Signature] = {
    # Go's; `and` and `or` stop early, which is why the evaluation knows them too
    "and": Signature(lambda *values: values[-1], (ANY,), ANY),
    "or": Signature(lambda *values: values[-1], (ANY,), ANY),
    "not": Signature(lambda value: not is_true(value), (ANY,)),
    "eq": Signature(gofunctions.equal, (ANY,), ANY),
    "ne": Signature(lambda first, second: not gofunctions.equal(first, second), (ANY, ANY)),
    "lt": Signature(gofunctions.less, (ANY, ANY)),
    "le": Signature(gofunctions.less_or_equal, (ANY, ANY)),
    "gt": Signature(lambda first, second: not gofunctions.less_or_equal(first, second), (ANY, ANY)),
    "ge": Signature(lambda first, second: not gofunctions.less(first, second), (ANY, ANY)),
    "call": Signature(gofunctions.call, (ANY,), ANY),
    "len": Signature(gofunctions.length, (ANY,)),
    "index": Signature(gofunctions.index, (ANY,), ANY),
    "slice": Signature(gofunctions.slice_of, (ANY,), ANY),
    "print": Signature(lambda *values: sprint(values), (), ANY),
    "println": Signature(lambda *values: sprintln(values), (), ANY),
    "printf": Signature(lambda form, *values: sprintf(form, values), (TEXT,), ANY),
    "html": Signature(lambda *values: texts.escape_html(gofunctions.joined(values)), (), ANY),
    "js": Signature(lambda *values: texts.escape_js(gofunctions.joined(values)), (), ANY),
    "urlquery": Signature(lambda *values: texts.escape_query(gofunctions.joined(values)), (), ANY),
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
