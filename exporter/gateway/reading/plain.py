"""A stream in its plainest spelling: whole chunks of one whole event each, as engines nearly always send them.

There a chunk is undone by taking off its first line, and events need not be looked for. And what begins so can go to the client before it
is read, if nothing in it has to be hidden: reading takes as long again as passing on, and the first token is what its reader waits for.
"""

from __future__ import annotations

from typing import Final

_FINISH: Final = b'"finish_reason"'
_NO_FINISH: Final = b'"finish_reason":null'
_END: Final = b"0\r\n\r\n"
SHORT: Final = 2048
"""Chunks of fewer bytes, framing and all, have their size lines at hand."""


def _size_line(whole: int) -> bytes:
    """The size line of a chunk of so many bytes in all; what no such chunk can begin with where there is none."""
    for digits in range(1, 9):
        size = whole - digits - 4
        line = b"%x\r\n" % max(size, 0)
        if size >= 0 and len(line) == digits + 2:
            return line
    return b"-" * (whole + 1)


SIZE_LINES: Final = [_size_line(whole) for whole in range(SHORT)]


def plain_events(raw: bytes) -> list[bytes] | None:
    """The events in `raw`, which begins where a chunk does, an empty one last where the body ends; None where the spelling is another."""
    events: list[bytes] = []
    at = 0
    while at < len(raw):
        blank = raw.find(b"\n\n", at)
        if blank < 0:
            if raw[at:] != _END:
                return None
            events.append(b"")
            break
        whole = blank + 4 - at
        line = SIZE_LINES[whole] if whole < SHORT else _size_line(whole)
        begin = at + len(line)
        end = blank + 2
        if blank < begin or not raw.startswith(line, at) or not raw.startswith(b"\r\n", end):
            return None
        events.append(raw[begin:end])
        at = end + 2
    # A carriage return within an event may end one, too.
    return events if events and raw.count(b"\r") == 2 * len(events) else None


def may_go_ahead(raw: bytes) -> bool:
    """Whether plain events, `raw` as they came, have nothing that is hidden or held back where token counts are to be taken out, and
    the event that finishes a choice is to wait for them. Where it is not certain that there are none, the answer is no.
    """
    return not (
        b'"usage"' in raw
        or raw.count(_FINISH) != raw.count(_NO_FINISH)
        or (b"\\" in raw and b"\\u" in raw)  # a single byte is found much faster
    )
