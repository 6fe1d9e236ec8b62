"""Prometheus' durations, such as `1h30m`: read and written as its configuration does.

Whole numbers with units from years to milliseconds, the largest first, each at most once; a year has 365 days, a week 7.
Source: `ParseDuration` and `Duration.String` in https://github.com/prometheus/common/blob/main/model/time.go
"""

from __future__ import annotations

import re

UNITS = (
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
)
"""Each unit with its length in milliseconds."""

LIMIT_MS = (2**63 - 1) // 1_000_000
"""The longest that Prometheus can hold: its durations are nanoseconds in 64 bits."""

_DURATION = re.compile("".join(f"(?:([0-9]+){unit})?" for unit, _ in UNITS))


def parse_duration_ms(text: str) -> int:
    """Milliseconds of a duration; ValueError in Prometheus' words."""
    if text == "0":
        return 0
    if not text:
        raise ValueError("empty duration string")
    match = _DURATION.fullmatch(text) if len(text) <= 100 else None
    if match is None:
        raise ValueError(f'not a valid duration string: "{text[:100]}"')
    total = sum(int(count) * length for count, (_, length) in zip(match.groups("0"), UNITS, strict=True))
    if total > LIMIT_MS:
        raise ValueError("duration out of range")
    return total


def parse_duration(text: str) -> float:
    """Seconds of a duration; ValueError in Prometheus' words."""
    return parse_duration_ms(text) / 1000


def format_duration_ms(milliseconds: int) -> str:
    """The shortest exact notation; years and weeks only where nothing is left over: `90d` reads better than `12w6d`."""
    if milliseconds == 0:
        return "0s"
    sign, left = ("-", -milliseconds) if milliseconds < 0 else ("", milliseconds)
    parts: list[str] = []
    for unit, length in UNITS:
        if unit in ("y", "w") and left % length:
            continue
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
    return sign + "".join(parts)


def format_duration(seconds: float) -> str:
    """As `format_duration_ms`, of seconds; what is below a millisecond is rounded away."""
    return format_duration_ms(round(seconds * 1000))
