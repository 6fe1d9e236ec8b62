"""What may go to the client before it is read: bytes in which nothing has to be hidden, held back or refused.

Reading takes as long again as passing on, and the first token is what its reader waits for. So the beginning of a stream is only
looked over first, and read when it is gone.
"""

from __future__ import annotations

import re
from typing import Final

_SIZE_LINE: Final = re.compile(rb"([1-9a-f][0-9a-f]{0,5})\r\n")
_FINISH: Final = b'"finish_reason"'
_NO_FINISH: Final = b'"finish_reason":null'


def may_go_ahead(raw: bytes, *, hides: bool) -> bool:
    """Whether `raw`, which begins where a chunk does, is whole chunks in the plainest spelling, each of whole events, and not the end.

    `hides`: token counts are to be taken out, and the event that finishes a choice is to wait for them. Where it is not certain that
    there are none, the answer is no.
    """
    if hides and (b'"usage"' in raw or raw.count(_FINISH) != raw.count(_NO_FINISH)):
        return False
    at, end = 0, len(raw)
    while at < end:
        line = _SIZE_LINE.match(raw, at)
        if line is None:
            return False
        begin = line.end()
        at = begin + int(line[1], 16) + 2
        event = raw[begin:at]
        if not event.endswith(b"\n\n\r\n") or event.find(b"\r") != len(event) - 2:
            return False
    return at == end > 0
