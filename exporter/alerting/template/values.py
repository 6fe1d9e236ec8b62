"""The values that a template works on, and how Go sees them: its types, what is true, what they turn into.

Python's own `str`, `int`, `float`, `bool` and `None` stand for Go's `string`, `int`, `float64`, `bool` and an untyped nil.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from exporter.alerting.template.errors import FunctionError
from exporter.alerting.template.literals import parse_float

Object = object


class TextMap(dict[str, str]):
    """A `map[string]string`, such as labels: what is missing is the empty string."""


class AnyMap(dict[str, Object]):
    """A `map[string]any`, as `args` makes it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One element of a query's result."""

    labels: Mapping[str, str]
    value: float


class Samples(list[Sample]):
    """What `query` gives."""


NO_SAMPLE = Sample(TextMap(), 0.0)
"""The nil pointer to a sample: to look into it fails."""


@dataclass(frozen=True, slots=True)
class Root:
    """What a template is given: its `$`."""

    labels: TextMap
    external_labels: TextMap
    external_url: str
    value: float

    @property
    def fields(self) -> dict[str, Object]:
        """Its parts by their names in templates."""
        return {
            "Labels": self.labels,
            "ExternalLabels": self.external_labels,
            "ExternalURL": self.external_url,
            "Value": self.value,
        }


@dataclass(frozen=True, slots=True)
class Time:
    """A moment, in milliseconds since 1970, shown in UTC."""

    milliseconds: int

    def moment(self) -> datetime:
        """As Python sees it; FunctionError outside the years 1 to 9999."""
        try:
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self.milliseconds)
        except OverflowError as error:
            raise FunctionError("the time is out of range") from error

    def __str__(self) -> str:
        moment = self.moment()
        fraction = f".{moment.microsecond:06}".rstrip("0").rstrip(".")
        return f"{moment.year:04}-{moment:%m-%d %H:%M:%S}{fraction} +0000 UTC"


@dataclass(frozen=True, slots=True)
class Duration:
    """A time span in nanoseconds."""

    nanoseconds: int

    def __str__(self) -> str:
        left = abs(self.nanoseconds)
        sign = "-" if self.nanoseconds < 0 else ""
        if left == 0:
            return "0s"
        if left < 1_000_000_000:
            for unit, length in (("ms", 1_000_000), ("µs", 1000), ("ns", 1)):
                if left >= length:
                    return f"{sign}{_fraction(left, length)}{unit}"
        minutes, left = divmod(left, 60_000_000_000)
        hours, minutes = divmod(minutes, 60)
        shown = f"{_fraction(left, 1_000_000_000)}s"
        if hours:
            return f"{sign}{hours}h{minutes}m{shown}"
        return f"{sign}{minutes}m{shown}" if minutes else sign + shown


def _fraction(count: int, unit: int) -> str:
    whole, rest = divmod(count, unit)
    digits = len(str(unit)) - 1
    return f"{whole}.{rest:0{digits}}".rstrip("0").rstrip(".") if rest else str(whole)


def go_type(value: Object) -> str:
    """The name of a value's Go type."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float64"
        case str():
            return "string"
        case TextMap():
            return "map[string]string"
        case AnyMap():
            return "map[string]interface {}"
        case Samples():
            return "template.queryResult"
        case Sample():
            return "*template.sample"
        case Time():
            return "*time.Time"
        case Duration():
            return "*time.Duration"
    return "struct { Labels map[string]string; ExternalLabels map[string]string; ExternalURL string; Value interface {} }"


def is_true(value: Object) -> bool:
    """What `if` makes of a value: false is what is empty, zero, false or nil."""
    if value is NO_SAMPLE:
        return False
    if isinstance(value, (Root, Sample, Time, Duration)):
        return True
    return bool(value)


def to_float(value: Object) -> float:
    """The number that the humanizing functions make of a value; FunctionError."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Duration)):
        raise FunctionError(f"can't convert {go_type(value)} to float")
    if isinstance(value, Duration):
        return value.nanoseconds / 1e9
    try:
        return parse_float(value) if isinstance(value, str) else float(value)
    except ValueError as error:
        raise FunctionError(str(error)) from error


def to_time(seconds: float) -> Time:
    """The moment of a unix time; FunctionError where Go has none for it."""
    if not math.isfinite(seconds):
        raise FunctionError("value is NaN or Inf")
    nanoseconds = seconds * 1e9
    if not -(2.0**63) <= nanoseconds <= 2.0**63:
        raise FunctionError(
            f"{seconds!r} cannot be represented as a nanoseconds timestamp since it overflows int64"
        )
    truncated = math.trunc(nanoseconds)
    return Time(abs(truncated) // 1_000_000 * (1 if truncated >= 0 else -1))


def samples_of(found: Sequence[tuple[Mapping[str, str], float]]) -> Samples:
    """A query's result as a template sees it."""
    return Samples(Sample(TextMap(labels), float(value)) for labels, value in found)
