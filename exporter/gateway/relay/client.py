"""One connection of a client: requests are read from it one after the other, and answered in their order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from exporter.gateway.keys.key import asked_priority
from exporter.gateway.model import Dialect, Endpoint, Exchange, Refusal
from exporter.gateway.relay.arrival import Arrival
from exporter.gateway.relay.heads import MAX_FIELDS, RequestHead, read_request_head
from exporter.gateway.relay.ids import ID_LIMIT, id_line, ids
from exporter.gateway.relay.lines import HEAD_END
from exporter.gateway.relay.passage import Passage
from exporter.gateway.relay.refusals import HEAD_TOO_LONG, SLOW, BadHeadError, bad_request, body_too_large

if TYPE_CHECKING:
    from exporter.gateway.relay.server import Relay

IDLE: Final = 0
"""Between requests."""
HEAD: Final = 1
"""A part of a head has come."""
BODY: Final = 2
"""A body is coming."""
ANSWER: Final = 3
"""The request is whole, its answer is not."""
LINGER: Final = 4
"""All has been said, and the client is given time to read it: closing over unread bytes would reset the connection."""

_AHEAD: Final = 64 << 10
"""Bytes of the next requests that are read while one is being answered."""
_LINGER_SECONDS: Final = 2.0
_NO_ENDPOINT: Final = Endpoint("", Dialect.OPAQUE, frozenset(), counted=False)


class ClientConnection(asyncio.Protocol):
    """A client's connection."""

    __slots__ = (
        "_buffered",
        "_forwarded",
        "_head",
        "_heard",
        "_phase",
        "_pieces",
        "address",
        "ahead",
        "arrival",
        "blocked_since",
        "due",
        "keep_alive",
        "passage",
        "paused",
        "relay",
        "transport",
        "upload_complete",
    )

    transport: asyncio.Transport

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.address = ""
        self.passage: Passage | None = None
        self.arrival: Arrival | None = None
        """Of the body, where it has not come with its head."""
        self.keep_alive = True
        self.upload_complete = True
        self.due = 0.0
        """When the sweep is to look at it."""
        self._phase = IDLE
        self._head: RequestHead | None = None
        """The last one, which will most likely come again."""
        self.ahead = b""
        """What came of the next requests."""
        self._pieces = bytearray()
        """Of a head that has not come whole."""
        self._buffered = 0
        self._forwarded = b""
        self._heard = 0.0
        """When a head began to come, or all had been said."""
        self.paused = False
        self.blocked_since: float | None = None
        """Since when more waits to be sent than the client takes."""

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self.transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else "local"
        scheme = b"http" if transport.get_extra_info("sslcontext") is None else b"https"
        self._forwarded = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\n" % (
            self.address.encode(),
            scheme,
        )
        self.relay.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or was sent away."""
        self._phase = LINGER
        self.ahead = b""
        self._drop_arrival()
        passage = self.passage
        if passage is not None:
            self.passage = None
            passage.client_left()
        self.relay.went(self)

    def eof_received(self) -> bool:
        """A client that says no more has left: a server of language models has no use for one that only listens."""
        if self.passage is not None:
            self.transport.abort()
        return False

    def data_received(self, data: bytes) -> None:
        """Go on with what the connection is at."""
        phase = self._phase
        if phase == IDLE:
            head = self._head
            if head is not None:
                end = head.again(data)
                if end:
                    self._read(head, head.length, data, end, self.relay.clock())
                    return
            self._begin(data, self.relay.clock())
        elif phase == ANSWER:
            self.ahead += data
            if len(self.ahead) > _AHEAD:
                self.pause()
        elif phase == HEAD:
            self._gather(data)
        elif phase == BODY:
            self.arrival.came(data)  # type: ignore[union-attr]

    def pause_writing(self) -> None:
        """The client reads its answer more slowly than it comes: the engine is to wait."""
        self.blocked_since = self.relay.clock()
        self.due = min(self.due, self.blocked_since + self.relay.settings.write_timeout)
        self._buffered = self.transport.get_write_buffer_size()
        if self.passage is not None and self.passage.engine is not None:
            self.passage.engine.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.blocked_since = None
        passage = self.passage
        if passage is None:
            if self._phase == ANSWER:
                self.relay.loop.call_soon(self._next)
        elif passage.engine is not None:
            passage.heard = self.relay.clock()
            passage.engine.transport.resume_reading()

    # Heads

    def _gather(self, data: bytes) -> None:
        """A head that comes in pieces."""
        relay = self.relay
        now = relay.clock()
        if self._phase == IDLE:
            if not data:
                return
            self._phase = HEAD
            self._heard = now
            self.due = min(self.due, now + relay.settings.head_timeout)
        pieces = self._pieces
        searched = max(len(pieces) - 3, 0)
        pieces += data
        if pieces.find(HEAD_END, searched) >= 0:
            self._pieces = bytearray()
            self._phase = IDLE
            self._begin(bytes(pieces), self._heard)
        elif len(pieces) > relay.settings.head_limit:
            self._turn_away(HEAD_TOO_LONG, now)
        elif not pieces[:1].isalpha():
            self._turn_away(bad_request("This is no HTTP request."), now)

    def _begin(self, data: bytes, now: float) -> None:
        """A head that is not the last one again; `data` begins with it."""
        if data[0] <= 13:
            data = data.lstrip(b"\r\n")  # RFC 9112 2.2: empty lines before a request are to be ignored
        end = data.find(HEAD_END) + 4
        if end < 4:
            self._gather(data)
            return
        raw = data[:end]
        if end > self.relay.settings.head_limit or raw.count(b"\n") > MAX_FIELDS + 2:
            self._turn_away(HEAD_TOO_LONG, now)
            return
        try:
            head = self._head = read_request_head(raw)
        except BadHeadError as bad:
            self._turn_away(bad.refusal, now)
            return
        head.found = self.relay.routes.find(head.method, head.target)
        self._read(head, head.length, data, end, now)

    def _read(self, head: RequestHead, length: int | None, data: bytes, end: int, now: float) -> None:
        """A head has been read. `length`: as it says this time; `end`: where it ends in `data`."""
        relay = self.relay
        relay.idle.pop(self, None)
        self.keep_alive = head.keep_alive
        given_id = head.request_id
        if given_id is None:
            name, line = next(ids)
        else:
            name = given_id[:ID_LIMIT].decode("latin-1")
            line = id_line(given_id)
        found = head.found
        refusal: Refusal | None
        if type(found) is Endpoint:
            exchange = Exchange(found, head.method, name, self.address, now)
            passage = self.passage = Passage(self, head, length, exchange, line)
            relay.recorder.begin(exchange)
            refusal = (
                None
                if relay.keys is None
                and head.priority is None
                and (length is None or length <= relay.body_limit)
                else self._check(passage, length)
            )
        else:
            exchange = Exchange(_NO_ENDPOINT, head.method, name, self.address, now)
            passage = self.passage = Passage(self, head, length, exchange, line)
            relay.recorder.begin(exchange)
            refusal = found  # type: ignore[assignment]
        size = len(data)
        whole = end if length is None else end + length
        if refusal is not None or size < whole or head.chunked:
            exchange.request_bytes = end
            self._phase = BODY
            arrival = self.arrival = Arrival(self, passage, now)
            if refusal is None:
                arrival.begin(data[end:], now)
            else:
                arrival.refuse(data[end:], refusal)
            return
        # The whole request has come at once, as it nearly always does.
        self._phase = ANSWER
        self.due = now + relay.read_timeout
        exchange.request_bytes = whole
        if size > whole:
            self.ahead = data[whole:]
        if length:
            passage.body = data[end:whole]
            relay.held_bytes += length
        passage.admit(now)

    def _check(self, passage: Passage, length: int | None) -> Refusal | None:
        """What can be said from the head alone."""
        relay = self.relay
        exchange = passage.exchange
        head = passage.head
        if length is not None and length > relay.body_limit:
            return body_too_large(relay.settings.body_limit)
        if head.priority is not None:
            exchange.asked_priority = asked_priority(head.priority)
        keys = relay.keys
        if keys is not None and not exchange.endpoint.open:
            key = keys.check(head.authorization, head.api_key)
            if type(key) is Refusal:
                return key
            passage.limits = key  # type: ignore[assignment]
            exchange.key = key.name  # type: ignore[union-attr]
        return None

    # Bodies

    def request_whole(self, now: float) -> None:
        """All of the body has come."""
        self._phase = ANSWER
        self.due = now + self.relay.settings.read_timeout

    def _drop_arrival(self) -> None:
        arrival = self.arrival
        if arrival is not None:
            self.arrival = None
            arrival.drop()

    def pause(self) -> None:
        """Read no more for now."""
        if not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self.paused:
            self.paused = False
            if self.arrival is not None:
                self.arrival.resumed(self.relay.clock())
            self.transport.resume_reading()

    # Answers

    def forwarded(self, head: RequestHead) -> bytes:
        """The lines that tell the engine who asks."""
        if head.forwarded_for is None and not head.forwarded_proto:
            return self._forwarded
        lines = self._forwarded.split(b"\r\n")
        if head.forwarded_for is not None:
            lines[0] = b"X-Forwarded-For: %b, %b" % (head.forwarded_for, self.address.encode())
        if head.forwarded_proto:
            del lines[1]
        return b"\r\n".join(lines)

    def keeps(self) -> bool:
        """Whether the connection goes on after this request."""
        return self.keep_alive and self.upload_complete and not self.relay.draining

    def _turn_away(self, refusal: Refusal, now: float) -> None:
        """Refuse what is not even a request."""
        relay = self.relay
        relay.idle.pop(self, None)
        self.keep_alive = False
        name, line = next(ids)
        exchange = Exchange(_NO_ENDPOINT, "", name, self.address, now)
        relay.recorder.begin(exchange)
        self._pieces = bytearray()
        passage = self.passage = Passage(self, RequestHead(b""), None, exchange, line)
        self.upload_complete = False
        passage.refuse(refusal)

    def answered(self, keeps: bool) -> None:
        """The answer is whole."""
        self.passage = None
        if self.arrival is not None:
            self._drop_arrival()
        if not keeps:
            self.close()
            return
        relay = self.relay
        if self.blocked_since is not None:
            self._phase = ANSWER  # The next one can wait until this client reads what it has asked for.
            return
        if self.ahead:
            self._phase = ANSWER
            relay.loop.call_soon(self._next)
            return
        self._phase = IDLE
        self.due = relay.now + relay.idle_timeout
        relay.idle[self] = None
        if self.paused:
            self.resume()  # the engine answered before it had read all

    def _next(self) -> None:
        """Go on with what was read ahead."""
        if self._phase != ANSWER or self.passage is not None:
            return
        data = self.ahead
        self.ahead = b""
        self._phase = IDLE
        self.due = self.relay.clock() + self.relay.settings.idle_timeout
        self.relay.idle[self] = None
        self.resume()
        if data:
            self.data_received(data)

    def cut(self, *, abruptly: bool) -> None:
        """End the connection so that the client sees that its answer is not whole."""
        self.passage = None
        if abruptly:
            self._phase = LINGER
            self.transport.abort()
        else:
            self.close()

    def close(self) -> None:
        """Close once all is written; where more of a request may be under way, wait for the client to have read."""
        unread = not self.upload_complete or bool(self.ahead)
        self._phase = LINGER
        self.ahead = b""
        self._drop_arrival()
        transport = self.transport
        if transport.is_closing():
            return
        self._heard = self.relay.clock()
        if unread and transport.can_write_eof():
            transport.write_eof()
            self.due = self._heard + _LINGER_SECONDS
            self.resume()
        else:
            transport.close()
            self.due = self._heard + self.relay.settings.write_timeout

    # The clock

    def overdue(self, now: float) -> None:
        """`due` has come: whose turn it is may have taken too long, or be found to have longer."""
        settings = self.relay.settings
        phase = self._phase
        passage = self.passage
        if self.blocked_since is not None:
            left = self.transport.get_write_buffer_size()
            if left < self._buffered:
                self.blocked_since = now  # slow, but it reads
            self._buffered = left
            self.due = self.blocked_since + settings.write_timeout
            if self.due <= now:
                self.transport.abort()
        elif phase == ANSWER:
            if passage is None:
                return
            passage.say_head()
            since = passage.last_heard()
            self.due = since + settings.read_timeout if passage.engine is not None else now + 1.0
            if self.due <= now:
                passage.timed_out()
        elif phase == BODY:
            self.arrival.overdue(now)  # type: ignore[union-attr]
        elif phase == HEAD:
            self.due = self._heard + settings.head_timeout
            if self.due <= now:
                self._turn_away(SLOW, now)
        elif phase == IDLE:
            self.close()
        elif self.transport.get_write_buffer_size() and now < self._heard + settings.write_timeout:
            self.due = now + 1.0
        else:
            self.transport.abort()
