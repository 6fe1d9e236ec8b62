"""What may go to the client before it is read: bytes in which nothing has to be hidden, held back or refused.

Reading takes as long again as passing on, and the first token is what its reader waits for. So the beginning of a stream is only
looked over first, and read when it is gone.
"""

from __future__ import annotations

from typing import Final

_FINISH: Final = b'"finish_reason"'
_NO_FINISH: Final = b'"finish_reason":null'


def may_go_ahead(raw: bytes, *, hides: bool) -> bool:
    """Whether `raw`, which begins where a chunk does, is whole chunks in the plainest spelling, each of whole events, and not the end.

    `hides`: token counts are to be taken out, and the event that finishes a choice is to wait for them. Where it is not certain that
    there are none, the answer is no.
    """
    if hides and (b'"usage"' in raw or raw.count(_FINISH) != raw.count(_NO_FINISH) or b"\\u" in raw):
        return False
    pieces = raw.split(b"\r\n")
    if pieces.pop() or len(pieces) % 2 or not pieces:
        return False
    for at in range(0, len(pieces), 2):
        event = pieces[at + 1]
        if pieces[at] != b"%x" % len(event) or not event.endswith(b"\n\n"):
            return False
        if b"\r" in event or b"\n\n\n" in event:
            return False
    return True
