"""The arrival of a request's body that has not come with its head: held until it is whole, or sent on as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import httptools

from exporter.gateway.admission.refusals import UNREADABLE_MODEL
from exporter.gateway.model import Dialect, Refusal
from exporter.gateway.relay.bodies import Body, ChunkedBody, SizedBody
from exporter.gateway.relay.own_answers import CONTINUE
from exporter.gateway.relay.refusals import BODIES_FULL, SLOW, bad_request, body_too_large

if TYPE_CHECKING:
    from exporter.gateway.relay.client import ClientConnection
    from exporter.gateway.relay.passage import Passage

_LEAST_RATE: Final = 500
"""Bytes a second of a body that is still coming, over `body_timeout` each time: who trickles holds what others could use.
As Apache's `RequestReadTimeout`, https://httpd.apache.org/docs/2.4/mod/mod_reqtimeout.html"""


class Arrival:
    """A body that has not come with its head, or comes in chunks; or one that is refused, whatever has come of it.

    It lasts until the request is answered, for what of an upload waits for a connection may be whole long before.
    """

    __slots__ = (
        "_body",
        "_client",
        "_counted",
        "_counted_at",
        "_heard",
        "_held",
        "_parts",
        "_passage",
        "_relay",
    )

    def __init__(self, client: ClientConnection, passage: Passage, now: float) -> None:
        self._client = client
        self._passage = passage
        relay = self._relay = client.relay
        self._parts: bytearray | None = None
        """Of a body that is held."""
        self._held = 0
        """Bytes of an upload that wait here for a connection."""
        self._heard = self._counted_at = now
        self._counted = passage.exchange.request_bytes
        """When it was last seen whether the body comes fast enough, and how many bytes there were then."""
        body: Body = ChunkedBody() if passage.head.chunked else SizedBody(passage.length or 0)
        self._body: Body | None = body
        client.upload_complete = body.complete
        client.due = now + relay.settings.body_timeout

    def begin(self, data: bytes, now: float) -> None:
        """Hold the body, or have it go on as it comes. `data`: what came of it with its head."""
        passage = self._passage
        peek_limit = self._relay.settings.peek_limit
        if passage.exchange.endpoint.dialect is Dialect.OPAQUE or (passage.length or 0) > peek_limit:
            self._begin_upload(b"", now)
        else:
            self._parts = bytearray()
            if passage.head.expect and not data:
                self._client.transport.write(CONTINUE)
        if data and not passage.over:
            self._take(data)

    def refuse(self, data: bytes, refusal: Refusal) -> None:
        """Turn the request away for what its head says. `data`: what came of the body with it, or the whole of it and more."""
        passage = self._passage
        body = self._body
        if body is not None and not body.chunked and len(data) >= (passage.length or 0):
            body.feed(data)
            self._client.ahead = body.ahead
            self._client.upload_complete = True
        self.turn_away(refusal)

    def turn_away(self, refusal: Refusal) -> None:
        """Refuse a request whose body has not come, or not all of it."""
        self.drop()
        if refusal.close:
            self._client.keep_alive = False
        self._passage.give_up(refusal)

    def drop(self) -> None:
        """Hold nothing of it any more, and take no more of it."""
        self._body = None
        if self._parts is not None:
            self._relay.held_bytes -= len(self._parts)
            self._parts = None
        self._let_go()

    def came(self, data: bytes) -> None:
        """The client has sent more."""
        self._heard = self._relay.clock()
        self._take(data)

    def _take(self, data: bytes) -> None:
        """More of the body."""
        body = self._body
        if body is None:
            return
        try:
            piece = body.feed(data)
        except httptools.HttpParserError as error:
            self.turn_away(bad_request(f"The request's body is not valid HTTP: {error}."))
            return
        client = self._client
        passage = self._passage
        relay = self._relay
        settings = relay.settings
        exchange = passage.exchange
        exchange.request_bytes += len(piece)
        complete = body.complete
        if exchange.request_bytes > settings.body_limit and body.chunked:
            self.turn_away(body_too_large(settings.body_limit))
            return
        if complete:
            self._body = None
            client.ahead = body.ahead
            client.upload_complete = not (body.chunked and body.overrun)  # type: ignore[union-attr]
        parts = self._parts
        if parts is None:
            self._upload(piece, body.trailers if complete else None)
            return
        parts += piece
        relay.held_bytes += len(piece)
        if relay.held_bytes > relay.held_limit:
            self.turn_away(BODIES_FULL)
        elif complete:
            self._parts = None
            passage.body = bytes(parts)
            now = relay.clock()
            client.request_whole(now)
            passage.admit(now)
        elif len(parts) > settings.peek_limit:
            self._parts = None
            relay.held_bytes -= len(parts)
            self._begin_upload(bytes(parts), relay.clock())

    # Uploads

    def _begin_upload(self, data: bytes, now: float) -> None:
        """Have the body go on as it comes. `data`: what was held of it."""
        relay = self._relay
        passage = self._passage
        opaque = passage.exchange.endpoint.dialect is Dialect.OPAQUE
        refusal = None
        if not opaque and len(relay.fleet.backends) > 1 and not relay.fleet.known(None):
            refusal = body_too_large(relay.settings.peek_limit)
        elif not opaque and passage.limits is not None and passage.limits.models is not None:
            refusal = UNREADABLE_MODEL
        if refusal is not None:
            self.turn_away(refusal)
            return
        passage.body = None
        if data:
            self._hold(data)
            passage.pending.append((data, None))
        passage.admit(now)

    def _upload(self, piece: bytes, trailers: bytes | None) -> None:
        """Send a piece on, or let it wait for a connection; `trailers` is None until the body's end."""
        client = self._client
        passage = self._passage
        relay = self._relay
        if trailers is not None:
            client.request_whole(self._heard)
        if passage.engine is None:
            client.pause()
            self._hold(piece)
        passage.upload(piece, trailers)
        if relay.held_bytes > relay.held_limit and passage.engine is None and not passage.over:
            self.turn_away(BODIES_FULL)

    def connected(self) -> None:
        """There is a connection for the upload: what has come so far goes, and the rest may come."""
        self._let_go()
        passage = self._passage
        if passage.head.expect and not passage.exchange.request_bytes > len(passage.head.raw):
            self._client.transport.write(CONTINUE)
        self._client.resume()

    def _hold(self, data: bytes) -> None:
        """Count what of an upload waits here for a connection."""
        self._held += len(data)
        self._relay.held_bytes += len(data)

    def _let_go(self) -> None:
        self._relay.held_bytes -= self._held
        self._held = 0

    # The clock

    def resumed(self, now: float) -> None:
        """The client is read again: its time counts from here."""
        self._heard = self._counted_at = now
        self._counted = self._passage.exchange.request_bytes

    def overdue(self, now: float) -> None:
        """The client's `due` has come: it, or the engine, may have taken too long, or be found to have longer."""
        client = self._client
        passage = self._passage
        settings = self._relay.settings
        if not client.paused:
            client.due = self._heard + settings.body_timeout
            if client.due <= now or self._trickles(now):
                self.turn_away(SLOW)
        elif passage.engine is None:
            # It waits to be let in, and for a connection: there are limits of their own for that.
            client.due = now + 1.0
        else:
            client.due = self._heard + settings.read_timeout
            if client.due <= now:
                passage.timed_out()  # an engine that takes no more of an upload is silent, too

    def _trickles(self, now: float) -> bool:
        """Whether too little of the body has come since the last look, if that was long enough ago to tell."""
        timeout = self._relay.settings.body_timeout
        if self._counted_at + timeout <= now:
            came = self._passage.exchange.request_bytes
            if came - self._counted < _LEAST_RATE * timeout:
                return True
            self._counted_at = now
            self._counted = came
        self._client.due = min(self._client.due, self._counted_at + timeout)
        return False
