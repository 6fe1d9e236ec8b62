"""The methods of the times and time spans that `toTime` and `toDuration` give: those that templates use.

Source: https://pkg.go.dev/time
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime

from exporter.alerting.template.values import Duration, Object, Time

_LAYOUT = re.compile(
    r"2006|January|Jan|Monday|Mon|MST|Z07:00|-07:00|-0700|-07|[.,]0+(?![0-9])|[.,]9+(?![0-9])"
    r"|01|002|02|03|04|05|06|_2|15|PM|pm|1|2|3|4|5"
)
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]

_PARTS: Mapping[str, Callable[[datetime], str]] = {
    "2006": lambda at: f"{at.year:04}",
    "06": lambda at: f"{at.year % 100:02}",
    "January": lambda at: _MONTHS[at.month - 1],
    "Jan": lambda at: _MONTHS[at.month - 1][:3],
    "01": lambda at: f"{at.month:02}",
    "1": lambda at: str(at.month),
    "Monday": lambda at: _DAYS[at.weekday()],
    "Mon": lambda at: _DAYS[at.weekday()][:3],
    "002": lambda at: f"{at.timetuple().tm_yday:03}",
    "02": lambda at: f"{at.day:02}",
    "_2": lambda at: f"{at.day:2}",
    "2": lambda at: str(at.day),
    "15": lambda at: f"{at.hour:02}",
    "03": lambda at: f"{at.hour % 12 or 12:02}",
    "3": lambda at: str(at.hour % 12 or 12),
    "04": lambda at: f"{at.minute:02}",
    "4": lambda at: str(at.minute),
    "05": lambda at: f"{at.second:02}",
    "5": lambda at: str(at.second),
    "PM": lambda at: "PM" if at.hour >= 12 else "AM",
    "pm": lambda at: "pm" if at.hour >= 12 else "am",
    "MST": lambda at: "UTC",
    "Z07:00": lambda at: "Z",
    "-07:00": lambda at: "+00:00",
    "-0700": lambda at: "+0000",
    "-07": lambda at: "+00",
}


def format_time(time: Time, layout: str) -> str:
    """Go's `Time.Format`: the layout shows how it would show the 2nd of January 2006 at 15:04:05."""
    moment = time.moment()

    def part(match: re.Match[str]) -> str:
        name = match.group()
        if name in _PARTS:
            return _PARTS[name](moment)
        digits = f"{moment.microsecond:06}000"[: len(name) - 1].ljust(len(name) - 1, "0")
        digits = digits.rstrip("0") if name[1] == "9" else digits
        return name[0] + digits if digits else ""

    return _LAYOUT.sub(part, layout)


METHODS: Mapping[type, Mapping[str, Callable[..., Object]]] = {
    Time: {
        "Format": format_time,
        "String": str,
        "Unix": lambda time: time.milliseconds // 1000,
        "UnixMilli": lambda time: time.milliseconds,
        "Year": lambda time: time.moment().year,
        "Month": lambda time: _MONTHS[time.moment().month - 1],
        "Day": lambda time: time.moment().day,
        "Weekday": lambda time: _DAYS[time.moment().weekday()],
        "YearDay": lambda time: time.moment().timetuple().tm_yday,
        "Hour": lambda time: time.moment().hour,
        "Minute": lambda time: time.moment().minute,
        "Second": lambda time: time.moment().second,
    },
    Duration: {
        "String": str,
        "Hours": lambda span: span.nanoseconds / 3.6e12,
        "Minutes": lambda span: span.nanoseconds / 6e10,
        "Seconds": lambda span: span.nanoseconds / 1e9,
        "Milliseconds": lambda span: int(span.nanoseconds / 1e6),
    },
}
"""By type: what is called with the value, and for `Format` a string."""
