"""What requests say: times, durations, limits and selectors, read and refused as Prometheus does.

Messages and limits: web/api/v1/api.go in https://github.com/prometheus/prometheus.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from exporter.alerting.durations import parse_duration_ms
from exporter.web.api.model import ApiError

MIN_MS, MAX_MS = -(1 << 53), 1 << 53
"""What stands for "since ever" and "for ever": a float holds them, and sums with any duration do not overflow."""
MAX_POINTS = 11_000
"""Steps of one range query: a minute's resolution for a week."""
FIELD_LIMIT = 2000
"""Fields of one form."""

_MIN_TIME, _MAX_TIME = "-292273086-05-16T16:47:06Z", "292277025-08-18T07:12:54.999999999Z"
"""What Go clients send for "since ever" and "for ever" (https://github.com/prometheus/client_golang/issues/614)."""
_DECIMAL = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INFINITY = re.compile(r"([+-]?)inf(?:inity)?", re.IGNORECASE)
_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 1 << 63


class Form:
    """The fields of a request: those of a form-encoded body come before those of the URL, as in Go."""

    def __init__(self, query: str, body: str = "") -> None:
        try:
            self.url = parse_qsl(query, keep_blank_values=True, errors="replace", max_num_fields=FIELD_LIMIT)
            in_body = parse_qsl(body, keep_blank_values=True, errors="replace", max_num_fields=FIELD_LIMIT)
        except ValueError as error:
            raise ApiError("bad_data", f"error parsing form values: {error}") from error
        self._fields = [*in_body, *self.url]

    def get(self, name: str) -> str:
        """The first value of a field; empty when it is not there."""
        return next((value for key, value in self._fields if key == name), "")

    def all(self, name: str) -> list[str]:
        """Every value of a field."""
        return [value for key, value in self._fields if key == name]


def number(text: str) -> float | None:
    """A decimal number as Go's strconv reads it, without the hexadecimal ones; None for anything else, NaN too."""
    if _DECIMAL.fullmatch(text):
        return float(text)
    if match := _INFINITY.fullmatch(text):
        return -math.inf if match[1] == "-" else math.inf
    return None


def read_time(text: str) -> int:
    """Unix seconds, or RFC 3339 with up to nanoseconds, in milliseconds; ValueError says what was given."""
    seconds = number(text)
    if seconds is not None and abs(seconds) * 1000 <= MAX_MS:
        whole = math.trunc(seconds)
        return whole * 1000 + round((seconds - whole) * 1000)
    if match := _RFC3339.fullmatch(text):
        year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
        zone = match[8]
        offset = 0
        if zone != "Z":
            offset = int(zone[1:3]) * 60 + int(zone[4:6])
            if int(zone[1:3]) > 23 or int(zone[4:6]) > 59:
                raise ValueError(f'cannot parse "{text}" to a valid timestamp')
            offset = -offset if zone[0] == "-" else offset
        try:
            moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError as error:
            raise ValueError(f'cannot parse "{text}" to a valid timestamp') from error
        since = moment - _EPOCH
        milliseconds = int(f"{match[7] or '':0<3}"[:3])
        return (since.days * 86_400 + since.seconds - offset * 60) * 1000 + milliseconds
    if text in (_MIN_TIME, _MAX_TIME):
        return MIN_MS if text == _MIN_TIME else MAX_MS
    raise ValueError(f'cannot parse "{text}" to a valid timestamp')


def read_duration(text: str) -> float:
    """Seconds as a number, or a duration such as `1h30m`, in milliseconds; ValueError says what was given."""
    seconds = number(text)
    if seconds is not None:
        if not abs(seconds) * 1e9 < _INT64:
            raise ValueError(f'cannot parse "{text}" to a valid duration. It overflows int64')
        return seconds * 1000
    try:
        return float(parse_duration_ms(text))
    except ValueError:
        raise ValueError(f'cannot parse "{text}" to a valid duration') from None


def time_parameter(form: Form, name: str, default: int) -> int:
    """An optional time, in milliseconds."""
    text = form.get(name)
    if not text:
        return default
    try:
        return read_time(text)
    except ValueError as error:
        raise invalid(name, f"invalid time value for '{name}': {error}") from error


def window(form: Form) -> tuple[int, int]:
    """The optional `start` and `end` as a window that is open on the left."""
    return time_parameter(form, "start", MIN_MS) - 1, time_parameter(form, "end", MAX_MS)


def limit_parameter(form: Form, name: str = "limit") -> int:
    """The most items to give back; 0: no limit."""
    text = form.get(name)
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise invalid(name, f'strconv.Atoi: parsing "{text}": invalid syntax')
    if len(text) > 20 or not -_INT64 <= int(text) < _INT64:
        raise invalid(name, f'strconv.Atoi: parsing "{text}": value out of range')
    if int(text) < 0:
        raise invalid(name, "limit must be non-negative")
    return int(text)


def timeout_parameter(form: Form, most: float) -> float:
    """How long this request may take, in seconds: what it says, and no longer than `most`."""
    text = form.get("timeout")
    if not text:
        return most
    try:
        return min(most, max(0.0, read_duration(text) / 1000))
    except ValueError as error:
        raise invalid("timeout", str(error)) from error


def lookback_parameter(form: Form, default: float) -> int:
    """`lookback_delta`, in milliseconds; `default` in seconds."""
    text = form.get("lookback_delta")
    if not text:
        return round(default * 1000)
    try:
        given = int(read_duration(text))
    except ValueError as error:
        raise ApiError("bad_data", f"error parsing lookback delta duration: {error}") from error
    return given if given > 0 else round(default * 1000)


def steps(form: Form) -> tuple[int, int, int]:
    """`start`, `end` and `step` of a range query, in milliseconds."""
    ends = []
    for name in ("start", "end"):
        try:
            ends.append(read_time(form.get(name)))
        except ValueError as error:
            raise invalid(name, str(error)) from error
    start, end = ends
    if end < start:
        raise invalid("end", "end timestamp must not be before start time")
    try:
        step = read_duration(form.get("step"))
    except ValueError as error:
        raise invalid("step", str(error)) from error
    if step < 1:  # a step below a millisecond is none: times are in milliseconds
        raise invalid(
            "step",
            "zero or negative query resolution step widths are not accepted. Try a positive integer",
        )
    if (end - start) // step > MAX_POINTS:
        raise ApiError(
            "bad_data",
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        )
    return start, end, int(step)


def invalid(name: str, message: str) -> ApiError:
    """The refusal of one parameter."""
    return ApiError("bad_data", f'invalid parameter "{name}": {message}')


def flag_parameter(values: Sequence[str], name: str) -> bool:
    """A switch as Go's strconv.ParseBool reads it; off when it is not there."""
    text = values[0].lower() if values else ""
    if text in ("1", "t", "true"):
        return True
    if text in ("", "0", "f", "false"):
        return False
    raise invalid(name, f'error converting {name}: strconv.ParseBool: parsing "{text}": invalid syntax')


def unescape_name(name: str) -> str:
    """A label name as the path of `label/<name>/values` writes it: `U__` begins one with escaped characters.

    `__` stands for an underscore, `_1F600_` for the character of that code; what does not read so is taken as it
    stands. See UTF-8 support in https://prometheus.io/docs/instrumenting/escaping_schemes/.
    """
    if not name.startswith("U__"):
        return name
    parts: list[str] = []
    rest = name[3:]
    while rest:
        plain, underscore, rest = rest.partition("_")
        parts.append(plain)
        if not underscore:
            break
        if rest.startswith("_"):
            parts.append("_")
            rest = rest[1:]
            continue
        code, underscore, rest = rest.partition("_")
        if not underscore or not re.fullmatch(r"[0-9a-fA-F]{1,6}", code):
            return name
        point = int(code, 16)
        if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            return name
        parts.append(chr(point))
    return "".join(parts)
