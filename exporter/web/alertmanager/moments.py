"""Times as Alertmanager's API writes and reads them, in unix seconds.

Source: `DateTime` in https://github.com/go-openapi/strfmt/blob/master/time.go: milliseconds, always three digits.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST, _LAST = -62_135_596_800.0, 253_402_300_799.999
_FORM = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(?:\.\d{1,18})?(?:[Zz]|[+-]\d\d:?\d\d)?", re.ASCII)
NEVER = "0001-01-01T00:00:00.000Z"
"""Go's zero time: none was given."""


def show(seconds: float) -> str:
    """Such as `2026-03-01T09:30:00.250Z`; what is after the year 9999 is its end."""
    clamped = min(max(seconds, _FIRST), _LAST)
    moment = _EPOCH + timedelta(milliseconds=math.floor(round(clamped * 1e6) / 1000))
    text = moment.replace(tzinfo=None).isoformat(timespec="milliseconds")
    return f"{text}Z"


def read(text: str) -> float | None:
    """RFC 3339, without a zone UTC; None for the zero time and for nothing. ValueError says what was given."""
    if not text:
        return None
    if not _FORM.fullmatch(text):
        raise ValueError(f"{text[:64]!r} is no RFC 3339 time")
    try:
        moment = datetime.fromisoformat(text.upper().replace(" ", "T"))
    except ValueError as error:
        raise ValueError(f"{text[:64]!r} is no RFC 3339 time: {error}") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if moment.year == 1 and moment.replace(tzinfo=None) == datetime(1, 1, 1):  # noqa: DTZ001  # of any zone
        return None
    try:
        return (moment - _EPOCH) / timedelta(seconds=1)
    except OverflowError as error:
        raise ValueError(f"{text[:64]!r} is out of range") from error
