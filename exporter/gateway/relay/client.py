"""One connection of a client: requests are read from it one after the other, and answered in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from secrets import token_hex
from typing import TYPE_CHECKING, Final, cast

import httptools

from exporter.gateway.admission.refusals import UNREADABLE_MODEL
from exporter.gateway.keys.key import asked_priority
from exporter.gateway.model import Dialect, Endpoint, Exchange, Refusal
from exporter.gateway.relay.bodies import Body, ChunkedBody, SizedBody
from exporter.gateway.relay.heads import (
    MAX_FIELDS,
    RequestHead,
    read_request_head,
)
from exporter.gateway.relay.lines import HEAD_END
from exporter.gateway.relay.own_answers import CONTINUE
from exporter.gateway.relay.passage import Passage
from exporter.gateway.relay.refusals import (
    BODIES_FULL,
    HEAD_TOO_LONG,
    SLOW,
    BadHeadError,
    bad_request,
    body_too_large,
)

if TYPE_CHECKING:
    from exporter.gateway.relay.server import Relay

IDLE: Final = 0
"""Between requests."""
HEAD: Final = 1
"""A part of a head has come."""
BODY: Final = 2
"""A body is coming that is held until it is whole."""
UPLOAD: Final = 3
"""A body is coming that goes on as it comes."""
ANSWER: Final = 4
"""The request is whole, its answer is not."""
LINGER: Final = 5
"""All has been said, and the client is given time to read it: closing over unread bytes would reset the connection."""

_AHEAD: Final = 64 << 10
"""Bytes of the next requests that are read while one is being answered."""
_LINGER_SECONDS: Final = 2.0
_LEAST_RATE: Final = 500
"""Bytes a second of a body that is still coming, over `body_timeout` each time: who trickles holds what others could use.
As Apache's `RequestReadTimeout`, https://httpd.apache.org/docs/2.4/mod/mod_reqtimeout.html"""
_ID_LIMIT: Final = 200
"""Longest `X-Request-Id` of a client that is taken over for the log."""
_NO_ENDPOINT: Final = Endpoint("", Dialect.OPAQUE, frozenset(), counted=False)


def _random_ids() -> Iterator[str]:
    """128 random bits each, in hexadecimal; a thousand of them for the price of one call of the kernel."""
    while True:
        block = token_hex(16 << 10)
        for start in range(0, len(block), 32):
            yield block[start : start + 32]


_ids: Final = _random_ids()


class ClientConnection(asyncio.Protocol):
    """A client's connection."""

    __slots__ = (
        "_ahead",
        "_body",
        "_buffered",
        "_counted",
        "_counted_at",
        "_forwarded",
        "_head",
        "_heard",
        "_held",
        "_parts",
        "_paused",
        "_phase",
        "_pieces",
        "address",
        "blocked_since",
        "due",
        "keep_alive",
        "passage",
        "relay",
        "transport",
        "upload_complete",
    )

    transport: asyncio.Transport

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.address = ""
        self.passage: Passage | None = None
        self.keep_alive = True
        self.upload_complete = True
        self.due = 0.0
        """When the sweep is to look at it."""
        self._phase = IDLE
        self._head: RequestHead | None = None
        """The last one, which will most likely come again."""
        self._ahead = b""
        self._pieces = bytearray()
        """Of a head that has not come whole."""
        self._parts: bytearray | None = None
        """Of a body that is held."""
        self._body: Body | None = None
        self._buffered = 0
        self._counted = 0
        self._counted_at = 0.0
        """When it was last seen whether a body comes fast enough, and how many bytes there were then."""
        self._forwarded = b""
        self._heard = 0.0
        self._held = 0
        """Bytes of an upload that wait here for a connection."""
        self._paused = False
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
        self._ahead = b""
        self._drop_body()
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
            self._ahead += data
            if len(self._ahead) > _AHEAD:
                self.pause()
        elif phase == HEAD:
            self._gather(data)
        elif phase != LINGER:
            self._heard = self.relay.clock()
            self._take_body(data)

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
            name = next(_ids)
            id_line = b"X-Request-Id: %b\r\n" % name.encode()
        else:
            name = given_id[:_ID_LIMIT].decode("latin-1")
            id_line = b"X-Request-Id: %b\r\n" % given_id
        found = head.found
        refusal: Refusal | None
        if type(found) is Endpoint:
            exchange = Exchange(found, head.method, name, self.address, now)
            passage = self.passage = Passage(self, head, length, exchange, id_line)
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
            passage = self.passage = Passage(self, head, length, exchange, id_line)
            relay.recorder.begin(exchange)
            refusal = found  # type: ignore[assignment]
        size = len(data)
        whole = end if length is None else end + length
        if refusal is not None or size < whole or head.chunked:
            exchange.request_bytes = end
            self._begin_body(passage, data[end:], refusal, now)
            return
        # The whole request has come at once, as it nearly always does.
        self._phase = ANSWER
        self.due = now + relay.read_timeout
        exchange.request_bytes = whole
        if size > whole:
            self._ahead = data[whole:]
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

    def _begin_body(self, passage: Passage, data: bytes, refusal: Refusal | None, now: float) -> None:
        """A body that has not come with its head, or comes in chunks; or a refusal, whatever has come."""
        head = passage.head
        relay = self.relay
        self._heard = self._counted_at = now
        self._counted = passage.exchange.request_bytes
        self.due = now + relay.settings.body_timeout
        body = self._body = ChunkedBody() if head.chunked else SizedBody(passage.length or 0)
        self.upload_complete = body.complete
        if refusal is not None:
            if not head.chunked and len(data) >= (passage.length or 0):
                body.feed(data)
                self._ahead = body.ahead
                self.upload_complete = True
            self._turn_away_now(passage, refusal)
            return
        if (
            passage.exchange.endpoint.dialect is Dialect.OPAQUE
            or (passage.length or 0) > relay.settings.peek_limit
        ):
            self._begin_upload(passage, b"", now)
        else:
            self._phase = BODY
            self._parts = bytearray()
            if head.expect and not data:
                self.transport.write(CONTINUE)
        if data and not passage.over:
            self._take_body(data)

    def _begin_upload(self, passage: Passage, data: bytes, now: float) -> None:
        """Have the body go on as it comes. `data`: what was held of it."""
        relay = self.relay
        opaque = passage.exchange.endpoint.dialect is Dialect.OPAQUE
        refusal = None
        if not opaque and len(relay.fleet.backends) > 1 and not relay.fleet.known(None):
            refusal = body_too_large(relay.settings.peek_limit)
        elif not opaque and passage.limits is not None and passage.limits.models is not None:
            refusal = UNREADABLE_MODEL
        if refusal is not None:
            self._turn_away_now(passage, refusal)
            return
        self._phase = UPLOAD
        passage.body = None
        if data:
            self._hold(data)
            passage.pending.append((data, None))
        passage.admit(now)

    def _hold(self, data: bytes) -> None:
        """Count what of an upload waits here for a connection."""
        self._held += len(data)
        self.relay.held_bytes += len(data)

    def _let_go(self) -> None:
        self.relay.held_bytes -= self._held
        self._held = 0

    def _take_body(self, data: bytes) -> None:
        """More of a body."""
        body = self._body
        passage = self.passage
        if body is None or passage is None:
            return
        try:
            piece = body.feed(data)
        except httptools.HttpParserError as error:
            self._turn_away_now(passage, bad_request(f"The request's body is not valid HTTP: {error}."))
            return
        exchange = passage.exchange
        exchange.request_bytes += len(piece)
        complete = body.complete
        settings = self.relay.settings
        if exchange.request_bytes > settings.body_limit and body.chunked:
            self._turn_away_now(passage, body_too_large(settings.body_limit))
            return
        if complete:
            self._body = None
            self._ahead = body.ahead
            self.upload_complete = not (body.chunked and body.overrun)  # type: ignore[union-attr]
        if self._phase == UPLOAD:
            self._upload(passage, piece, body.trailers if complete else None)
            return
        parts = self._parts
        assert parts is not None
        parts += piece
        self.relay.held_bytes += len(piece)
        if self.relay.held_bytes > self.relay.held_limit:
            self._turn_away_now(passage, BODIES_FULL)
        elif complete:
            self._parts = None
            passage.body = bytes(parts)
            self._phase = ANSWER
            now = self.relay.clock()
            self.due = now + settings.read_timeout
            passage.admit(now)
        elif len(parts) > settings.peek_limit:
            self._parts = None
            self.relay.held_bytes -= len(parts)
            self._begin_upload(passage, bytes(parts), self.relay.clock())

    def _upload(self, passage: Passage, piece: bytes, trailers: bytes | None) -> None:
        if trailers is not None:
            self._phase = ANSWER
            self.due = self._heard + self.relay.settings.read_timeout
        if passage.engine is None:
            self.pause()
            self._hold(piece)
        passage.upload(piece, trailers)
        if self.relay.held_bytes > self.relay.held_limit and passage.engine is None and not passage.over:
            self._turn_away_now(passage, BODIES_FULL)

    def upload_goes(self, passage: Passage) -> None:
        """There is a connection for the upload: what has come so far goes, and the rest may come."""
        self._let_go()
        if passage.head.expect and not passage.exchange.request_bytes > len(passage.head.raw):
            self.transport.write(CONTINUE)
        self.resume()

    def _drop_body(self) -> None:
        self._body = None
        if self._parts is not None:
            self.relay.held_bytes -= len(self._parts)
        self._parts = None
        self._let_go()

    def pause(self) -> None:
        """Read no more for now."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            self._heard = self._counted_at = self.relay.clock()
            if self.passage is not None:
                self._counted = self.passage.exchange.request_bytes
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
        name = next(_ids)
        exchange = Exchange(_NO_ENDPOINT, "", name, self.address, now)
        relay.recorder.begin(exchange)
        self._pieces = bytearray()
        passage = self.passage = Passage(
            self, RequestHead(b""), None, exchange, b"X-Request-Id: %b\r\n" % name.encode()
        )
        self.upload_complete = False
        passage.refuse(refusal)

    def _turn_away_now(self, passage: Passage, refusal: Refusal) -> None:
        """Refuse a request whose body has not come, or not all of it."""
        self._drop_body()
        if refusal.close:
            self.keep_alive = False
        passage.give_up(refusal)

    def answered(self, keeps: bool) -> None:
        """The answer is whole."""
        self.passage = None
        if self._held:
            self._let_go()
        if not keeps:
            self.close()
            return
        relay = self.relay
        if self.blocked_since is not None:
            self._phase = ANSWER  # The next one can wait until this client reads what it has asked for.
            return
        if self._ahead:
            self._phase = ANSWER
            relay.loop.call_soon(self._next)
            return
        self._phase = IDLE
        self.due = relay.now + relay.idle_timeout
        relay.idle[self] = None

    def _next(self) -> None:
        """Go on with what was read ahead."""
        if self._phase != ANSWER or self.passage is not None:
            return
        data = self._ahead
        self._ahead = b""
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
        unread = not self.upload_complete or bool(self._ahead)
        self._phase = LINGER
        self._ahead = b""
        self._drop_body()
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
            since = passage.heard
            self.due = since + settings.read_timeout if passage.engine is not None else now + 1.0
            if self.due <= now:
                passage.timed_out()
        elif phase in (BODY, UPLOAD):
            if passage is None or (self._paused and passage.engine is None):
                self.due = (
                    now + 1.0
                )  # it waits to be let in, and for a connection: there are limits of their own for that
            elif self._paused:
                self.due = self._heard + settings.read_timeout
                if self.due <= now:
                    passage.timed_out()  # an engine that takes no more of an upload is silent, too
            else:
                self.due = self._heard + settings.body_timeout
                if self.due <= now or self._trickles(passage, now):
                    self._turn_away_now(passage, SLOW)
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

    def _trickles(self, passage: Passage, now: float) -> bool:
        """Whether too little of a body has come since the last look, if that was long enough ago to tell."""
        timeout = self.relay.settings.body_timeout
        if self._counted_at + timeout <= now:
            came = passage.exchange.request_bytes
            if came - self._counted < _LEAST_RATE * timeout:
                return True
            self._counted_at = now
            self._counted = came
        self.due = min(self.due, self._counted_at + timeout)
        return False
