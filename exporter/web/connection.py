"""One client connection: scrapes of the plain kind are answered at once, everything else goes to aiohttp.

64 scrapers in a closed loop wait for each other, so p99 is the number of scrapers times the cost of one answer.
`python -m bench.scrapers` measures both ways.

Once handed over a connection stays with aiohttp. Nothing is kept of a request that is not complete: a head in two
pieces is handed over too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, cast

from exporter.exposition.page import Format, negotiate
from exporter.web.auth import BearerToken
from exporter.web.head import read_head
from exporter.web.limits import (
    CONNECTIONS,
    IDLE_SECONDS,
    KNOWN_HEADS,
    REQUEST_SECONDS,
    STALLED_SECONDS,
    TURN_REQUESTS,
)
from exporter.web.metrics import HttpMetrics
from exporter.web.snapshot import Snapshot

_HEAD_END = b"\r\n\r\n"


class Plan(NamedTuple):
    """How to answer one kind of request."""

    path: str
    shape: Format
    close: bool


class Face:
    """What all connections share."""

    def __init__(
        self,
        snapshot: Snapshot,
        token: BearerToken,
        metrics: HttpMetrics,
        fallback: Callable[[], asyncio.Protocol],
    ) -> None:
        self.snapshot = snapshot
        self.metrics = metrics
        self.fallback = fallback
        self.connections: set[Connection] = set()
        self.known: dict[bytes, Plan] = {}
        """Heads seen before, byte for byte. Only those that were let in, so nobody without the token fills it, and a
        look-up tells nothing about the token: bytes are compared only where the keyed hash of all of them agrees."""
        self._token = token

    def plan(self, head: bytes) -> Plan | None:
        """The plan for one complete head; None when it is not ours to answer, or shows no token."""
        plan = self.known.get(head)
        if plan is None:
            request = read_head(head)
            if request is None or not self._token.accepts(request.authorization):
                return None
            plan = Plan(request.path, negotiate(request.accept, request.accept_encoding), request.close)
            if len(self.known) >= KNOWN_HEADS:
                del self.known[next(iter(self.known))]
            self.known[head] = plan
        return plan

    def opened(self, connection: Connection) -> None:
        """Take a connection in; at the limit the one that has been quiet for longest makes room."""
        if len(self.connections) >= CONNECTIONS:
            quiet = min(self.connections, key=lambda other: other.last_active)
            self._abort(quiet, "room")
        self.connections.add(connection)
        self.metrics.connections = len(self.connections)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self.connections.discard(connection)
        self.metrics.connections = len(self.connections)

    def sweep(self, now: float) -> None:
        """Close what has been idle or stalled for too long. `now`: monotonic seconds."""
        for connection in tuple(self.connections):
            if reason := connection.overdue(now):
                self._abort(connection, reason)

    def _abort(self, connection: Connection, reason: str) -> None:
        self.metrics.closed[reason] += 1
        connection.abort()
        self.closed(connection)


class Connection(asyncio.Protocol):
    """The protocol object of one connection; see the module."""

    __slots__ = (
        "_answered",
        "_eof",
        "_face",
        "_held",
        "_inner",
        "_paused_since",
        "_transport",
        "last_active",
    )

    def __init__(self, face: Face) -> None:
        self._face = face
        self._inner: asyncio.Protocol | None = None
        self._held = (
            b""  # read and not yet answered: pipelined requests wait for their turn, or for the reader
        )
        self._answered = False
        self._eof = False
        self._paused_since: float | None = None
        self.last_active = time.monotonic()
        """When the client last sent something, monotonic seconds."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._face.opened(self)

    def data_received(self, data: bytes) -> None:
        self.last_active = time.monotonic()
        if self._inner is not None:
            self._inner.data_received(data)
            return
        if not self._held and self._paused_since is None:
            plan = self._face.known.get(data)
            if plan is not None and self._answer(plan):
                return
        self._held += data
        self._proceed()

    def eof_received(self) -> bool | None:
        if self._inner is not None:
            return self._inner.eof_received()
        if self._held and self._transport.get_extra_info("sslcontext") is None:
            self._eof = True  # what was asked before is answered still
            return True
        return None

    def pause_writing(self) -> None:
        self._paused_since = time.monotonic()
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._paused_since = None
        if self._inner is not None:
            self._inner.resume_writing()
        else:
            self._proceed()

    def connection_lost(self, exc: Exception | None) -> None:
        self._held = b""
        self._face.closed(self)
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def overdue(self, now: float) -> str | None:
        """Why this connection has lived long enough, if it has. aiohttp sees to idle ones of its own."""
        if self._paused_since is not None and now - self._paused_since > STALLED_SECONDS:
            return "stalled"
        patience = IDLE_SECONDS if self._answered else REQUEST_SECONDS
        if self._inner is None and now - self.last_active > patience:
            return "idle"
        return None

    def abort(self) -> None:
        """End it now; what was not sent yet is lost."""
        self._transport.abort()

    def close(self) -> None:
        """End it after what is being sent; aiohttp closes its own."""
        if self._inner is None:
            self._transport.close()

    def _answer(self, plan: Plan) -> bool:
        """Write the page; False when there is none to write, which aiohttp then tells, and logs."""
        began = time.monotonic()
        try:
            wire = self._face.snapshot.wire(plan.shape, close=plan.close)
        except Exception:  # noqa: BLE001  # the same fault comes again in the handler, where it is logged
            return False
        self._transport.write(wire)
        self._answered = True
        if plan.close:
            self._transport.close()
        self._face.metrics.count(plan.path, 200, time.monotonic() - began)
        return True

    def _proceed(self) -> None:
        """Answer what is held, a few at a time, in order, and no faster than the client reads."""
        transport = self._transport
        for _ in range(TURN_REQUESTS):
            if not self._held or self._paused_since is not None or transport.is_closing():
                break
            end = self._held.find(_HEAD_END) + len(_HEAD_END)
            plan = self._face.plan(self._held[:end]) if end >= len(_HEAD_END) else None
            if plan is None or not self._answer(plan):
                self._hand_over()
                return
            self._held = self._held[end:]
        if transport.is_closing():
            self._held = b""
        elif self._held:
            transport.pause_reading()
            if self._paused_since is None:
                asyncio.get_running_loop().call_soon(self._next_turn)
        elif self._eof:
            transport.close()
        else:
            transport.resume_reading()

    def _next_turn(self) -> None:
        if self._held and self._inner is None and self._paused_since is None:
            self._proceed()

    def _hand_over(self) -> None:
        data, self._held = self._held, b""
        self._inner = inner = self._face.fallback()
        inner.connection_made(self._transport)
        self._transport.resume_reading()
        inner.data_received(data)
        if self._eof:
            inner.eof_received()
            self._transport.close()
