"""What heads of requests and of answers have in common: their lines, and how one is told that comes again.

Who asks twice over one connection sends the same head twice, but for a few values: the length of the body, ids of the request
and of the trace. So the last head is kept as what stands around those values, and to see that it has come again takes a
comparison and a search for each of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

HEAD_END: Final = b"\r\n\r\n"
NEVER_NAMED: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"x-request-id", b"close", b"keep-alive", b"")
)
"""What `Connection` cannot have taken out: without it the message would mean something else, end elsewhere or have no name."""
SHORT: Final = 2048
"""Bodies of fewer bytes have their length lines at hand."""
_LONGEST_VALUE: Final = 256
_VISIBLE: Final = bytes(range(0x21, 0x7F))


class _Nobody:
    """llhttp tells it nothing: a callback costs more than all the parsing."""


NOBODY: Final = _Nobody()


def length_line(size: int) -> bytes:
    """The last line of a head, and its end."""
    return b"Content-Length: %d\r\n\r\n" % size


LENGTH_LINES: Final = [length_line(size) for size in range(SHORT)]


def recognise(
    data: bytes, first: bytes, rest: Collection[bytes], length_at: int | None = None
) -> tuple[int, list[bytes], int | None]:
    """Whether `data` begins with the head that has `first` before the first of the values that vary, and `rest` after each:
    where it ends, 0 if it does not, the length that stands at `length_at` among them, and the other values: visible ASCII each,
    so that none can be two lines.
    """
    values: list[bytes] = []
    length = None
    if not first or not data.startswith(first):
        return 0, values, None
    at = len(first)
    for place, after in enumerate(rest):
        end = data.find(b"\r", at, at + _LONGEST_VALUE)
        if end <= at or not data.startswith(after, end):
            return 0, values, None
        value = data[at:end]
        if place == length_at:
            length = number(value)
            if length is None:
                return 0, values, None
        elif value.translate(None, _VISIBLE):
            return 0, values, None
        else:
            values.append(value)
        at = end + len(after)
    return at, values, length


def around(raw: bytes, lines: Collection[bytes]) -> tuple[bytes, tuple[bytes, ...]]:
    """`first` and `rest` of a head for `recognise`; `lines`: those whose values vary, each there once, in their order."""
    pieces = []
    start = 0
    for line in lines:
        end = raw.index(b"\r\n%b\r\n" % line) + 2 + len(line)
        value = line.partition(b":")[2].lstrip(b" \t")
        if not value or value.translate(None, _VISIBLE):
            return b"", ()
        pieces.append(raw[start : end - len(value)])
        start = end
    pieces.append(raw[start:])
    return pieces[0], tuple(pieces[1:])


def number(digits: bytes) -> int | None:
    """A length; None where it is not a number of at most 16 digits, which is ten petabytes."""
    return int(digits) if len(digits) <= 16 and digits.isdigit() else None


def name_of(line: bytes) -> bytes:
    """A header line's name, lowered."""
    return line.partition(b":")[0].lower()


def spans_of(raw: bytes, start: int, names: Collection[bytes]) -> Iterator[tuple[int, int]]:
    """The spans of all lines with these names, each from its CRLF to before the next; `start` is the first line's end."""
    end = raw.find(b"\r\n", start + 2)
    while end > start + 2:
        if name_of(raw[start + 2 : end]) in names:
            yield start, end
        start, end = end, raw.find(b"\r\n", end + 2)


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
