"""Numbers and times as Prometheus prints them: the shortest decimals that read back as the same value.

`json_float`: util/jsonutil/marshal.go in https://github.com/prometheus/prometheus, an exponent only below 1e-6 and from
1e21 on. Python's `repr` gives the same digits, with an exponent from 1e16 on and below 1e-4.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import copysign, isinf, isnan
from typing import TYPE_CHECKING

import numpy as np

from exporter.promql.numbers import plain_float

if TYPE_CHECKING:
    from exporter.storage.model import F64

CHUNK = 4096
"""Values that one call formats: some milliseconds, after which other threads get their turn."""
FEW = 16
"""Values for which it does not pay to ask NumPy."""

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def json_float(value: float) -> str:
    """A sample's value, without the quotes around it."""
    if value != 0 and not 1e-6 <= abs(value) < 1e21 and not isnan(value) and not isinf(value):
        mantissa, _, exponent = f"{value!r}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{exponent}" if exponent else mantissa
    return plain_float(value)


def exponent_float(value: float) -> str:
    """One digit before the point and always an exponent: strconv's 'e' with precision -1, as alerts show values."""
    text = plain_float(value)
    if isnan(value) or isinf(value):
        return text
    sign = "-" if copysign(1.0, value) < 0 else ""
    whole, _, fraction = text.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return f"{sign}0e+00"
    exponent = len(whole) - 1 if whole != "0" else -(len(fraction) - len(fraction.lstrip("0")) + 1)
    digits = digits.rstrip("0")
    mantissa = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
    return f"{sign}{mantissa}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def json_floats(values: F64) -> list[str]:
    """`json_float` of each value of one array; a few at a time, so that nobody waits long for the interpreter."""
    if len(values) > CHUNK:
        return [text for at in range(0, len(values), CHUNK) for text in json_floats(values[at : at + CHUNK])]
    if len(values) <= FEW:
        return list(map(json_float, values.tolist()))
    bits = values.view(np.int64)
    changes = np.flatnonzero(bits[1:] != bits[:-1])
    if 4 * len(changes) < len(values):  # most series hardly ever change
        runs = np.concatenate(([0], changes + 1, [len(values)]))
        texts = np.array(_each(values[runs[:-1]]), dtype=object)
        repeated: list[str] = np.repeat(texts, np.diff(runs)).tolist()
        return repeated
    return _each(values)


def _each(values: F64) -> list[str]:
    with np.errstate(invalid="ignore"):  # a NaN may be a signalling one
        size = np.abs(values)
        whole = (size < 1e15) & (values == np.trunc(values)) & ((values != 0) | ~np.signbit(values))
        if whole.all():
            return list(map(str, values.astype(np.int64).tolist()))
        if ((size >= 1e-4) & (size < 1e16) | (values == 0)).all():
            return [text.removesuffix(".0") for text in map(repr, values.tolist())]
    return list(map(json_float, values.tolist()))


def json_time(milliseconds: int) -> str:
    """A time as the number of seconds that a sample shows: three decimals, or none."""
    sign, size = ("-", -milliseconds) if milliseconds < 0 else ("", milliseconds)
    seconds, rest = divmod(size, 1000)
    return f"{sign}{seconds}.{rest:03d}" if rest else f"{sign}{seconds}"


def rfc3339(seconds: float | None) -> str:
    """A time as Go's JSON writes it, to the microsecond; None as its zero time."""
    if seconds is None:
        return NEVER
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return NEVER
    text = moment.strftime("%Y-%m-%dT%H:%M:%S") if moment.year >= 1000 else moment.isoformat()[:19]
    fraction = f"{moment.microsecond:06d}".rstrip("0")
    return f"{text}.{fraction}Z" if fraction else f"{text}Z"
