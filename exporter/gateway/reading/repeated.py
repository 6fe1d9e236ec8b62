"""Tokens that differ from the one before in their text alone, told without reading them.

An engine makes the events of one stream from one mould: `data: {"id":…,"choices":[{"index":0,"delta":{"content":" word"},…}]}`.
After one of them was read, what stands before and after its text is known, and the next one that has both, and between them a
JSON string's plain characters, says the same but for the text. It takes three comparisons to see that.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from exporter.gateway.reading.plain import may_go_ahead

_KEYS: Final = (b'"content":"', b'"text":"', b'"reasoning":"', b'"reasoning_content":"')
LONGEST: Final = 1024
"""Bytes of an event that is remembered."""


class Mould(NamedTuple):
    """What stands before and after the text in chunks of chunked coding that hold one such event each; their size lines go before."""

    before: bytes
    after: bytes


def is_one_chunk(raw: bytes, content: bytes) -> bool:
    """Whether `raw`, of which a decoder of chunks gave `content`, is one chunk that holds events, in the spelling of ours.

    The next byte after it begins a chunk, wherever the decoder was before: content that begins with `data: ` can be neither
    the rest of a chunk that had begun before, for its size would stand there as a part of it, nor of such a size.
    """
    return content.startswith(b"data: ") and raw == b"%x\r\n%b\r\n" % (len(content), content)


def mould_of(event: bytes) -> Mould | None:
    """The mould of an event that was read and is a token; None where it may be more than that, or has no text in plain characters.

    What is a token stays one with another text in the place of this one: between these quotes nothing else can be said.
    """
    size = len(event)
    if (
        size > LONGEST
        or not event.startswith(b"data: ")
        or event.find(b"\n") != size - 2
        or not may_go_ahead(event)
    ):
        return None
    for key in _KEYS:
        before, _, rest = event.partition(key)
        text, _, after = rest.partition(b'"')
        if text and b"\\" not in text:
            return Mould(before + key, b'"' + after + b"\r\n")
    return None
