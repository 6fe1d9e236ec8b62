"""Where the events of a `text/event-stream` end, and what stands in one.

https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

from __future__ import annotations

import re

_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_BLANK_LINE_FOR_NOW = re.compile(rb"(?:\r\n|\n|\r(?!\n|\Z)){2}")
"""The same where more bytes may follow: a carriage return at the end may be the first half of a line end."""

OVERLAP = 3
"""Bytes before new ones where a blank line may begin that ends in them: `CR LF CR` and `LF`."""


def event_end(buffer: bytes | bytearray, start: int, *, returns: bool, last: bool = False) -> int:
    """Offset behind the first blank line after `start`, or -1.

    `returns` says that there are carriage returns (without any, the search is a plain one), `last` that nothing follows.
    """
    if not returns:
        at = buffer.find(b"\n\n", start)
        return at + 2 if at >= 0 else -1
    found = (_BLANK_LINE if last else _BLANK_LINE_FOR_NOW).search(buffer, start)
    return found.end() if found is not None else -1


def event_data(event: bytes) -> bytes | None:
    """The event's data, its lines joined; None where it has none: a comment, a name alone."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]
    lines = []
    for line in event.splitlines():
        if line.startswith(b"data:"):
            lines.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line == b"data":
            lines.append(b"")
    return b"\n".join(lines) if lines else None


def event_name(start: bytes) -> str:
    """The `event:` of an event of which only the start is known; empty where it has none there."""
    for line in start.splitlines()[:-1]:
        if line.startswith(b"event:"):
            return line[6:].strip().decode("utf-8", "replace")
    return ""
