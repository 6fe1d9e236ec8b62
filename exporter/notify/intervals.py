"""Hours, days and months at which a route is mute or active, in a time zone, as Alertmanager's `time_intervals` have them.

Source: https://github.com/prometheus/alertmanager/blob/main/timeinterval/timeinterval.go
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Range = tuple[int, int]
_Member = Callable[[str], int]

_WEEKDAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_MONTHS = tuple(name.lower() for name in (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
))  # fmt: skip
_CLOCK = re.compile(r"(?:([01][0-9]|2[0-3]):([0-5][0-9])|(24):(00))")
_NUMBER = re.compile(r"[+-]?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Span:
    """One entry of a time interval: a time is in it when it is in one range of each kind. None: any.

    `times` are minutes of the day, without the end (1440: midnight); the others include both ends. Weekdays count from
    0, Sunday; days of the month below 0 count from its end. `zone` None: that of the machine.
    """

    times: tuple[Range, ...] | None = None
    weekdays: tuple[Range, ...] | None = None
    days_of_month: tuple[Range, ...] | None = None
    months: tuple[Range, ...] | None = None
    years: tuple[Range, ...] | None = None
    zone: tzinfo | None = UTC

    def contains(self, at: float) -> bool:
        """Whether it is in here at unix seconds `at`, as clocks on the wall of its zone show it."""
        wall = datetime.fromtimestamp(at, UTC).astimezone(self.zone)
        minute = wall.hour * 60 + wall.minute
        return (
            (self.times is None or any(start <= minute < end for start, end in self.times))
            and _within(wall.isoweekday() % 7, self.weekdays)
            and _within(wall.month, self.months)
            and _within(wall.year, self.years)
            and (self.days_of_month is None or self._day(wall))
        )

    def _day(self, wall: datetime) -> bool:
        last = calendar.monthrange(wall.year, wall.month)[1]
        for start, end in self.days_of_month or ():
            first = start if start > 0 else last + 1 + start
            final = end if end > 0 else last + 1 + end
            if first <= last and first <= wall.day <= final:
                return True
        return False


@dataclass(frozen=True, slots=True)
class TimeInterval:
    """A named time interval: any of its spans."""

    spans: tuple[Span, ...]

    def contains(self, at: float) -> bool:
        """Whether it is in one of the spans at unix seconds `at`."""
        return any(span.contains(at) for span in self.spans)


def _within(value: int, ranges: tuple[Range, ...] | None) -> bool:
    return ranges is None or any(start <= value <= end for start, end in ranges)


def parse_clock(text: str) -> int:
    """Minutes of the day of `HH:MM`, up to `24:00`; ValueError."""
    match = _CLOCK.fullmatch(text)
    if match is None:
        raise ValueError("expected a time such as 09:00, from 00:00 to 24:00")
    hour, minute = (part for part in match.groups() if part is not None)
    return int(hour) * 60 + int(minute)


def parse_times(start: str, end: str) -> Range:
    """A range of minutes of the day; ValueError also where it does not end after it starts: midnight takes two ranges."""
    first, last = parse_clock(start), parse_clock(end)
    if first >= last:
        raise ValueError("start_time must be before end_time; over midnight takes two ranges")
    return first, last


def parse_weekdays(text: str) -> Range:
    """`monday:friday` or `sunday`; ValueError. The week starts on Sunday."""
    return _in_order(_ends(text, lambda word: _named(word, _WEEKDAYS, 0, "a day of the week")), "day")


def parse_months(text: str) -> Range:
    """`january:march`, `1:3` or `december`; ValueError."""

    def month(word: str) -> int:
        number = int(word) if _NUMBER.fullmatch(word) else _named(word, _MONTHS, 1, "a month")
        if not 1 <= number <= 12:
            raise ValueError(f"{number} is no month: expected 1 to 12")
        return number

    return _in_order(_ends(text, month), "month")


def parse_years(text: str) -> Range:
    """`2026` or `2026:2028`; ValueError."""
    return _in_order(_ends(text, _number), "year")


def parse_days_of_month(text: str) -> Range:
    """`1:5`, `15` or `-3:-1`, the last three days; ValueError where no month can have it."""
    start, end = _ends(text, _number)
    for day in (start, end):
        if day == 0 or not -31 <= day <= 31:
            raise ValueError(f"{day} is no day of a month: expected 1 to 31, or -31 to -1 from its end")
    if start < 0 < end:
        raise ValueError("the end must be negative where the start is")
    # 28 days is the shortest month: what is out of order there may be in order in no other.
    if (start if start > 0 else 28 + start) > (end if end > 0 else 28 + end):
        raise ValueError(f"day {end} is always before day {start}")
    return start, end


def parse_zone(text: str) -> tzinfo | None:
    """A time zone by its IANA name; `Local` is the machine's, which None stands for. ValueError."""
    if text == "Local":
        return None
    if text in ("", "UTC"):
        return UTC
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"no time zone {text[:60]} is known here: expected a name such as Europe/Berlin "
            "(the zones are in the system's package tzdata)"
        ) from error


def _ends(text: str, member: _Member) -> Range:
    parts = text.lower().split(":")
    if len(parts) > 2:
        raise ValueError("expected one value, or two with a colon between them")
    return member(parts[0]), member(parts[-1])


def _number(word: str) -> int:
    if not _NUMBER.fullmatch(word):
        raise ValueError("expected a whole number, or two with a colon between them")
    return int(word)


def _named(word: str, names: tuple[str, ...], first: int, what: str) -> int:
    if word not in names:
        raise ValueError(f"{word[:30] or 'nothing'} is not {what}")
    return names.index(word) + first


def _in_order(ends: Range, what: str) -> Range:
    if ends[0] > ends[1]:
        raise ValueError(f"the end {what} is before the start {what}")
    return ends
