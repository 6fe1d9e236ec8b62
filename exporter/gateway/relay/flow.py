"""The middle of a stream: one token after the other, each in a chunk that goes on as it came.

Nearly all that a gateway reads is this, and it comes thousands of times a second, each time after its memory was used for something
else. So it is one short way through few objects; whatever is not such a token goes the way of all answers.
"""

from __future__ import annotations

import contextlib
import math
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from exporter.gateway.reading.plain import SHORT, SIZE_LINES
from exporter.gateway.reading.repeated import Mould

if TYPE_CHECKING:
    from exporter.gateway.model import Exchange
    from exporter.gateway.relay.engine import EngineConnection

_QUICK_ACK: Final = getattr(socket, "TCP_QUICKACK", None)
_LOOK: Final = 16
"""Tokens after which a stream is under way, and known to be fast or slow."""
FAST: Final = 0.03
"""Seconds from one token to the next, less than the 40 ms for which Linux puts an acknowledgement off (TCP_DELACK_MIN)."""


class Flow:
    """Takes what an engine's connection reads, and passes on what came out of `mould`; all else goes the long way."""

    __slots__ = (
        "_after",
        "_before",
        "_clock",
        "_engine",
        "_exchange",
        "_gap",
        "_otherwise",
        "_since",
        "_under_way_at",
        "_write",
        "mould",
    )

    def __init__(
        self,
        mould: Mould,
        exchange: Exchange,
        *,
        engine: EngineConnection,
        write: Callable[[bytes], None],
        gap: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        """`exchange` has had its first token. `write`: to its client; `gap`: where the seconds between two tokens are counted."""
        self.mould = mould
        self._before, self._after = mould
        self._exchange = exchange
        self._engine = engine
        self._otherwise = engine.read
        self._write = write
        self._gap = gap
        self._clock = clock
        self._since = exchange.last_token or 0.0
        self._under_way_at: float = exchange.tokens_seen + _LOOK

    def came(self, data: bytes) -> None:
        """The engine said something: one chunk with one event that is a token, and says nothing else, or anything."""
        size = len(data)
        if size < SHORT:
            line, before, after = SIZE_LINES[size], self._before, self._after
            begin = len(line)
            if data.startswith(line) and data.startswith(before, begin) and data.endswith(after):
                text = data[begin + len(before) : -len(after)]
                try:
                    plain = text.decode().isprintable() and b'"' not in text and b"\\" not in text
                except UnicodeDecodeError:
                    plain = False
                if plain and text:
                    write, gap, clock, exchange = self._write, self._gap, self._clock, self._exchange
                    write(data)
                    now = clock()
                    gap(now - exchange.last_token)  # type: ignore[operator]
                    exchange.last_token = now
                    exchange.response_bytes += size
                    seen = exchange.tokens_seen = exchange.tokens_seen + 1
                    if seen >= self._under_way_at:
                        self._under_way(now)
                    return
        otherwise = self._otherwise
        otherwise(data)

    def _under_way(self, now: float) -> None:
        """Once an answer: its tokens may wait for those of other streams; and those of a fast one are acknowledged two at a time,
        for on its own each acknowledgement is a packet that we pay for.

        The kernel goes back to its old way by itself once a token comes late; never again where the engine was seen to wait for it:
        `Passage` looks for that.
        """
        self._under_way_at = math.inf
        engine = self._engine
        if not engine.coalesced:
            engine.coalesce(True)
        if (
            engine.settled
            or not engine.pool.settles
            or now - self._since > _LOOK * FAST
            or _QUICK_ACK is None
        ):
            return
        engine.settled = True
        connection = engine.transport.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):  # not TCP
                connection.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 0)
