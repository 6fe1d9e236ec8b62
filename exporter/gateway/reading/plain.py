"""A stream in its plainest spelling: whole chunks of one whole event each, as engines nearly always send them.

There a chunk is undone by taking off its first line, and events need not be looked for. And what begins so can go to the client before it
is read, if nothing in it has to be hidden: reading takes as long again as passing on, and the first token is what its reader waits for.
"""

from __future__ import annotations

from typing import Final

_FINISH: Final = b'"finish_reason"'
_NO_FINISH: Final = b'"finish_reason":null'


def plain_events(raw: bytes) -> list[bytes] | None:
    """The events in `raw`, which begins where a chunk does, an empty one last where the body ends; None where the spelling is another."""
    pieces = raw.split(b"\r\n")
    if pieces.pop() or len(pieces) % 2 or not pieces:
        return None
    events = pieces[1::2]
    last = len(events) - 1
    for at, event in enumerate(events):
        size = len(event)
        if size < 2 or pieces[2 * at] != b"%x" % size or event.find(b"\n\n") != size - 2 or b"\r" in event:
            if size == 0 and at == last and pieces[2 * at] == b"0":
                return events
            return None
    return events


def may_go_ahead(raw: bytes) -> bool:
    """Whether plain events, `raw` as they came, have nothing that is hidden or held back where token counts are to be taken out, and
    the event that finishes a choice is to wait for them. Where it is not certain that there are none, the answer is no.
    """
    return not (b'"usage"' in raw or raw.count(_FINISH) != raw.count(_NO_FINISH) or b"\\u" in raw)
