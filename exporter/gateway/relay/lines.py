"""What heads of requests and of answers have in common: lines, found and cut out where they stand.

A head is never taken apart into all its headers and put together again: the dozen that matter to a proxy are found by one pass
of one pattern over the lowered head, and the lines that may not go on are cut out. What llhttp has let through has no bare CR or
LF, no folded line and no space before a colon, so that `CRLF name:` is a header's beginning and nothing else.

Who asks twice over one connection sends the same head twice, but for the digits of its length, and an engine answers alike. So
the last head is kept with what was found in it (`before`, `after`): to see that it has come again takes two comparisons of bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

HEAD_END: Final = b"\r\n\r\n"
_LENGTH_DIGITS: Final = 16
"""Digits of a length that is recognised, and the CR after it: ten petabytes."""
NEVER_NAMED: Final = frozenset((b"host", b"content-length", b"close", b"keep-alive", b""))
"""What `Connection` cannot have taken out: without it the request would mean something else."""


class _Nobody:
    """llhttp tells it nothing: a callback costs more than all the parsing."""


NOBODY: Final = _Nobody()


def around_length(raw: bytes, span: tuple[int, int]) -> tuple[bytes, bytes]:
    """The head before and after the digits of its length; all and nothing where it has none, or not digits to the line's end."""
    start, end = span
    if end == 0:
        return raw, b""
    digits = raw[start:end].rpartition(b" ")[2]
    return (raw[: end - len(digits)], raw[end:]) if digits.isdigit() else (b"", b"")


def recognise(data: bytes, before: bytes, after: bytes) -> tuple[int, int | None]:
    """Whether `data` begins with the head that has `before` and `after`: where it ends, 0 if it does not, and the length in it."""
    if not before or not data.startswith(before):
        return 0, None
    start = len(before)
    if not after:
        return start, None
    end = data.find(b"\r", start, start + _LENGTH_DIGITS)
    digits = data[start:end]
    if end < 0 or not digits.isdigit() or not data.startswith(after, end):
        return 0, None
    return end + len(after), int(digits)


def lines_of(raw: bytes, start: int, name: bytes) -> Iterator[tuple[int, int]]:
    """The spans of all lines of a header, each from its CRLF to before the next."""
    lowered = raw.lower()
    at = lowered.find(b"\r\n" + name + b":", start)
    while at >= 0:
        end = lowered.index(b"\r\n", at + 2)
        yield at, end
        at = lowered.find(b"\r\n" + name + b":", end)


def cut_out(raw: bytes, start: int, end: int, cuts: list[tuple[int, int]]) -> bytes:
    """The bytes of `raw` from `start` to `end` without the spans in `cuts`, which may overlap."""
    if len(cuts) > 1:
        cuts.sort()
    pieces = []
    for first, last in cuts:
        if first > start:
            pieces.append(raw[start:first])
        if last > start:
            start = last
    pieces.append(raw[start:end])
    return b"".join(pieces)
