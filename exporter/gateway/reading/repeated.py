"""Tokens that differ from the one before in their text alone, told without reading them.

An engine makes the events of one stream from one mould: `data: {"id":…,"choices":[{"index":0,"delta":{"content":" word"},…}]}`.
After one of them was read, what stands before and after its text is known, and the next one that has both, and between them a
JSON string's plain characters, says the same but for the text. It takes three comparisons to see that.
"""

from __future__ import annotations

from typing import Final

from exporter.gateway.reading.events import EVENT_LIMIT
from exporter.gateway.reading.tokens import text_of

_KEYS: Final = (b'"content":"', b'"text":"', b'"reasoning":"', b'"reasoning_content":"')
_LONGEST: Final = 4096
"""Bytes of an event that is remembered."""
_SIZES: Final = 8
"""Sizes of chunks whose beginning is remembered: a text is short, so they are few."""
_NEVER: Final = b"-"
"""No chunk begins so: there is none of that size."""


class Repeated:
    """What chunks of chunked coding look like that hold one such event each."""

    __slots__ = ("_after", "_before", "_known")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after + b"\r\n"
        self._known: dict[int, bytes] = {}
        """How a chunk begins, by its size: its size line and what stands before the text."""

    def is_again(self, raw: bytes) -> bool:
        """Whether `raw` is one chunk with one event that is a token, and says nothing else."""
        size = len(raw)
        after = self._after
        begin = self._known.get(size) or self._begin(size)
        if not raw.startswith(begin) or not raw.endswith(after):
            return False
        text = raw[len(begin) : size - len(after)]
        try:
            return (
                text.decode().isprintable()
                and b'"' not in text
                and b"\\" not in text
                and 0 < len(text) < EVENT_LIMIT - _LONGEST
            )
        except UnicodeDecodeError:
            return False

    def _begin(self, size: int) -> bytes:
        for digits in range(1, 6):
            line = b"%x\r\n" % max(size - digits - 4, 0)
            if len(line) == digits + 2:
                break
        else:
            return _NEVER
        begin = line + self._before
        if len(self._known) < _SIZES:
            self._known[size] = begin
        return begin


def is_one_chunk(raw: bytes, content: bytes) -> bool:
    """Whether `raw`, of which a decoder of chunks gave `content`, is one chunk that holds events, in the spelling of ours.

    The next byte after it begins a chunk, wherever the decoder was before: content that begins with `data: ` can be neither
    the rest of a chunk that had begun before, for its size would stand there as a part of it, nor of such a size.
    """
    return content.startswith(b"data: ") and raw == b"%x\r\n%b\r\n" % (len(content), content)


def repeated(event: bytes) -> Repeated | None:
    """The mould of an event; None where it is not a token that can be told again by its bytes."""
    size = len(event)
    if size > _LONGEST or event.find(b"\n") != size - 2 or not event.endswith(b"}\n\n"):
        return None
    said = text_of(event[6:])
    if not said:
        return None
    text = said.encode("utf-8", "replace")
    for key in _KEYS:
        before, found, after = event.partition(key + text + b'"')
        if found and event.count(key) == 1:
            return Repeated(before + key, b'"' + after)
    return None
