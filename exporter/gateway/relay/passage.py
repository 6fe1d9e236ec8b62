"""One request's way: let in, to an engine, and its answer back, whatever goes wrong in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.gateway.model import Dialect, Exchange, Outcome, Refusal
from exporter.gateway.reading.answer import AnswerReader
from exporter.gateway.reading.events import EventReader
from exporter.gateway.reading.outcome import judge
from exporter.gateway.reading.request import read_request, with_usage
from exporter.gateway.relay.answers import LAST_CHUNK, chunk, error_event, refusal_answer, whole_answer
from exporter.gateway.relay.heads import AnswerHead, RequestHead, answer_head, onward_head

if TYPE_CHECKING:
    from exporter.gateway.admission.fleet import Backend
    from exporter.gateway.admission.limits import Limits
    from exporter.gateway.relay.client import ClientConnection
    from exporter.gateway.relay.engine import EngineConnection
    from exporter.gateway.relay.pool import Pool

_RAW: Final = 0
"""The answer goes on in the engine's own chunks."""
_CHUNKED: Final = 1
"""It goes on in chunks of ours: its content was changed, or had none."""
_BARE: Final = 2
"""It goes on by its length, or to the end of the connection."""

_HEAD_WAITS: Final = 64 << 10
"""A head is sent together with the beginning of a body up to this long: alone it would be of no use, and a system call more."""

_UNREACHABLE: Final = Refusal(
    502,
    "service_unavailable",
    "engine_unreachable",
    "The connection to the engine was lost before it answered.",
    Outcome.ENGINE_UNREACHABLE,
)
_BROKEN: Final = Refusal(
    502, "server_error", "engine_broke_http", "The engine's answer was not valid HTTP.", Outcome.ENGINE_ERROR
)
_SILENT: Final = Refusal(
    504, "timeout_error", "engine_timeout", "The engine did not answer in time.", Outcome.TIMEOUT
)
_CUT: Final = Refusal(
    502,
    "server_error",
    "engine_lost",
    "The connection to the engine was lost in mid-answer.",
    Outcome.TRUNCATED,
)


class Passage:
    """A request between a client's connection and an engine's."""

    __slots__ = (
        "_answered",
        "_asked_usage",
        "_events",
        "_fresh",
        "_head_out",
        "_last",
        "_mode",
        "_reader",
        "_sending",
        "_status",
        "_to_close",
        "_upload_ended",
        "backend",
        "body",
        "client",
        "engine",
        "exchange",
        "head",
        "heard",
        "id_line",
        "keeps",
        "length",
        "limits",
        "over",
        "pending",
        "waits",
    )

    def __init__(
        self,
        client: ClientConnection,
        head: RequestHead,
        length: int | None,
        exchange: Exchange,
        id_line: bytes,
    ) -> None:
        self.client = client
        self.head = head
        self.length = length
        """As the client's head said this time."""
        self.exchange = exchange
        self.id_line = id_line
        self.limits: Limits | None = None
        self.body: bytes | None = b""
        """The whole body; None while it streams."""
        self.pending: list[tuple[bytes, bytes | None]] = []
        """What of a streamed body came before there was a connection for it."""
        self.backend: Backend | None = None
        self.engine: EngineConnection | None = None
        self.heard = 0.0
        """When the engine last said something, or the request went to it."""
        self.over = False
        self.waits = False
        self.keeps = True
        self._asked_usage = False
        self._fresh = False
        self._sending = False
        self._upload_ended = False
        self._head_out: bytes | None = None
        self._answered = False
        self._mode = _BARE
        self._to_close = False
        self._status: int | None = None
        self._reader: AnswerReader | None = None
        self._events: EventReader | None = None
        self._last = b""

    # The way in

    def admit(self, now: float) -> None:
        """The body is whole, or there is one to be streamed: read what it asks for, and go to the gate."""
        exchange = self.exchange
        relay = self.client.relay
        exchange.received = now
        asked = None
        endpoint = exchange.endpoint
        dialect = endpoint.dialect
        if not endpoint.counted:
            own = relay.local(exchange, self.head.target)
            if own is not None:
                self._answer_locally(own)
                return
        if dialect is not Dialect.OPAQUE and self.body:
            read = read_request(self.body, dialect)
            exchange.stream = read.stream
            asked = read.model
            exchange.model = relay.fleet.known(asked)
            if read.stream:
                body = with_usage(self.body, read)
                if body is not None:
                    relay.held_bytes += len(body) - len(self.body)
                    self.body = body
                    self._asked_usage = True
        else:
            exchange.model = relay.fleet.known(None)
        answer = relay.gate.enter(exchange, self.limits, self._woken, asked)
        if answer is None:
            self.waits = True
        elif type(answer) is Refusal:
            self.refuse(answer)
        else:
            self._go(answer, now)  # type: ignore[arg-type]

    def _answer_locally(self, own: bytes | Refusal) -> None:
        """Answer without an engine."""
        if isinstance(own, Refusal):
            self.refuse(own)
            return
        client = self.client
        exchange = self.exchange
        self.keeps = client.keeps()
        extra = self.id_line if self.keeps else self.id_line + b"Connection: close\r\n"
        answer = whole_answer(200, own, extra=extra, with_body=exchange.method != "HEAD")
        exchange.status = 200
        exchange.response_bytes += len(answer)
        client.transport.write(answer)
        judge(exchange, status=200, whole=True)
        self._over(client.relay.clock())
        client.answered(self.keeps)

    def _woken(self, answer: Backend | Refusal) -> None:
        self.waits = False
        if isinstance(answer, Refusal):
            self.refuse(answer)
        else:
            self._go(answer, self.client.relay.clock())

    def _go(self, backend: Backend, now: float) -> None:
        self.backend = backend
        exchange = self.exchange
        exchange.backend = backend.name
        exchange.tries += 1
        pool: Pool = self.client.relay.pool(backend)
        engine = pool.take() if self.body is not None else None  # what streams can be sent but once
        if engine is None:
            pool.connect(self._connected)
        else:
            self._send(engine, now)

    def _connected(self, connection: EngineConnection | OSError) -> None:
        if isinstance(connection, OSError):
            if not self.over:
                self._elsewhere("connect")
            return
        now = self.client.relay.clock()
        if self.over:
            connection.pool.put(connection, now)
        else:
            self._send(connection, now)

    def _send(self, engine: EngineConnection, now: float) -> None:
        self.engine = engine
        self.heard = now
        exchange = self.exchange
        if exchange.sent_at is None:
            exchange.sent_at = now
        head = self.head
        client = self.client
        relay = client.relay
        onward = head.onward
        if onward is None:
            onward = head.onward = onward_head(
                head, client.forwarded(head), own_credentials=relay.keys is not None
            )
        if relay.keys is not None:
            onward += relay.credentials(engine.pool.backend)
        if head.request_id is None:
            onward += self.id_line
        body = self.body
        if body:
            engine.carry(self, b"%bContent-Length: %d\r\n\r\n%b" % (onward, len(body), body))
        elif body is not None:
            engine.carry(self, onward + (b"\r\n" if self.length is None else b"Content-Length: 0\r\n\r\n"))
        else:
            if self.length is None:
                engine.carry(self, onward + b"Transfer-Encoding: chunked\r\n\r\n")
            else:
                engine.carry(self, b"%bContent-Length: %d\r\n\r\n" % (onward, self.length))
            client.upload_goes(self)
            pending = self.pending
            self.pending = []
            for piece, trailers in pending:
                self.upload(piece, trailers)

    def upload(self, piece: bytes, trailers: bytes | None) -> None:
        """Send a piece of a streamed body on; `trailers` is None until its end."""
        engine = self.engine
        if engine is None:
            self.pending.append((piece, trailers))
            return
        if self.length is None:
            piece = chunk(piece)
            if trailers is not None:
                piece += b"0\r\n%b\r\n" % trailers
        if piece:
            self._sending = True
            engine.transport.write(piece)

    # The answer

    def answer_began(self, head: AnswerHead, raw: bytes, length: int | None) -> None:
        """The engine's head is whole. `raw`, `length`: as they are this time, for `head` may be of an answer like this one."""
        exchange = self.exchange
        client = self.client
        request = self.head
        status = self._status = exchange.status = head.status
        dialect = exchange.endpoint.dialect
        hides = False
        if dialect is not Dialect.OPAQUE and status < 400 and not head.encoded:
            if head.event_stream:
                exchange.stream = True
                hides = self._asked_usage and length is None
                relay = client.relay
                self._events = EventReader(
                    exchange,
                    hide_usage=hides,
                    gaps=relay.recorder.gap(exchange.model),
                    fingerprints=relay.fingerprints,
                )
            elif head.json:
                self._reader = AnswerReader(exchange)
        bodiless = head.bodiless or exchange.method == "HEAD"
        self._to_close = not head.chunked and length is None and not bodiless
        chunked = head.chunked
        if length is not None or bodiless:
            self._mode = _BARE
        elif not request.modern:
            self._mode = _BARE
            chunked = client.keep_alive = False
        elif chunked and not hides:
            self._mode = _RAW
        else:
            self._mode = _CHUNKED
            chunked = True
        self.keeps = client.keeps()
        extra = b"" if head.request_id else self.id_line
        if not self.keeps:
            extra += b"Connection: close\r\n"
        elif not request.modern:
            extra += b"Connection: keep-alive\r\n"
        self._head_out = answer_head(head, raw, chunked=chunked, extra=extra)
        if length is not None and length > _HEAD_WAITS:
            self._send_head()

    def _send_head(self) -> None:
        head = self._head_out
        if head is not None:
            self._head_out = None
            self._answered = True
            self.exchange.response_bytes += len(head)
            self.client.transport.write(head)

    def answer_came(self, raw: bytes, body: bytes, ended: bool) -> None:
        """More of the answer: `raw` as it came, `body` its content."""
        now = self.heard = self.client.relay.clock()
        mode = self._mode
        events = self._events
        if events is not None:
            if body:
                shown = events.feed(body, now)
                if mode == _RAW:
                    out = raw
                elif shown:
                    out = b"%x\r\n%b\r\n" % (len(shown), shown) if mode == _CHUNKED else shown
                else:
                    out = b""
                self._last = out or self._last
            else:
                out = raw if mode == _RAW else b""
        else:
            if body and self._reader is not None:
                self._reader.feed(body)
            out = raw if mode == _RAW else body if mode == _BARE else chunk(body)
        if ended and mode == _CHUNKED:
            if events is not None:
                out += chunk(events.rest())
            out += LAST_CHUNK
        if self._head_out is not None and (out or ended):
            out = self._head_out + out
            self._head_out = None
            self._answered = True
        if out:
            self.exchange.response_bytes += len(out)
            self.client.transport.write(out)
        if ended:
            self._finish(now)

    def answer_broke(self, why: str) -> None:
        """What came was not HTTP."""
        if self.engine is not None:
            self.engine.abort()
        self._cut(_BROKEN, broken=True)

    def engine_left(self, engine: EngineConnection, error: Exception | None) -> None:
        """The engine's connection is gone before the answer was whole; or it ended an answer without a length by that."""
        if self.over or engine is not self.engine:
            return
        if self._status is not None:
            if self._to_close and error is None:
                self.answer_came(b"", b"", True)
            else:
                self._cut(_CUT)
            return
        self.engine = None
        if engine.reused and not engine.answered and self.body is not None and not self._fresh:
            # It had closed the idle connection when the request was on its way: that says nothing about the engine.
            self._fresh = True
            backend = self.backend
            assert backend is not None
            self.client.relay.pool(backend).connect(self._connected)
            return
        self._elsewhere("reset")

    def _elsewhere(self, reason: str) -> None:
        """The engine could not be reached, or left before a byte: another one, where there is one and the request is at hand."""
        relay = self.client.relay
        backend = self.backend
        assert backend is not None
        if self._sending:
            self.refuse(_UNREACHABLE, reason)
            return
        answer = relay.gate.another(self.exchange, backend)
        relay.gate.leave(self.exchange, backend)
        self.backend = None
        if isinstance(answer, Refusal):
            self.refuse(answer, reason)
        else:
            self._go(answer, relay.clock())

    def timed_out(self) -> None:
        """The engine was silent for too long."""
        if self.engine is not None:
            self.engine.abort()
        self._cut(_SILENT, timed_out=True)

    # The end

    def refuse(self, refusal: Refusal, reason: str = "") -> None:
        """Turn the request away, or tell that no engine answered it, where its client has not had a byte of an answer."""
        client = self.client
        self.keeps = client.keeps() and not refusal.close
        extra = self.id_line
        if not self.keeps:
            extra += b"Connection: close\r\n"
        exchange = self.exchange
        exchange.status = refusal.status
        exchange.outcome = refusal.outcome
        exchange.reason = reason or refusal.code
        client.relay.recorder.refused(refusal.code)
        answer = refusal_answer(refusal, extra=extra, with_body=exchange.method != "HEAD")
        exchange.response_bytes += len(answer)
        client.transport.write(answer)
        self._over(client.relay.clock())
        client.answered(self.keeps)

    def give_up(self, refusal: Refusal) -> None:
        """Refuse while the body is still coming: the request may already be at an engine, its answer may have begun."""
        if self.waits:
            self.client.relay.gate.withdraw(self.exchange)
            self.waits = False
        if self.engine is not None:
            self.engine.abort()
        if self._answered:
            self._cut(refusal)
        else:
            self.refuse(refusal)

    def _finish(self, now: float) -> None:
        """The answer is whole."""
        engine = self.engine
        assert engine is not None
        if engine.keep_alive and not self._upload_is_open():
            if self.client.is_blocked:
                engine.transport.resume_reading()
            engine.pool.put(engine, now)
        else:
            engine.abort()
        events = self._events
        if self._reader is not None:
            self._reader.end()
        exchange = self.exchange
        if events is None:
            judge(exchange, status=self._status, whole=True)
        else:
            judge(exchange, status=self._status, whole=True, finished=events.finished, failed=events.failed)
        self._over(now)
        self.client.answered(self.keeps)

    def _upload_is_open(self) -> bool:
        return self.body is None and not self.client.upload_complete

    def _cut(self, refusal: Refusal, *, timed_out: bool = False, broken: bool = False) -> None:
        """The answer cannot be finished: an error, if its client has had nothing of it, else the connection is cut."""
        if not self._answered:
            self.refuse(refusal)
            return
        client = self.client
        events = self._events
        whole_events = self._last.endswith(b"\n\n\r\n")  # an event's end, and its chunk's
        if events is not None and whole_events and not events.finished and self._mode != _BARE:
            client.transport.write(chunk(error_event(refusal)))
        judge(
            self.exchange,
            status=self._status,
            finished=None if events is None else events.finished,
            failed=None if events is None else events.failed,
            timed_out=timed_out,
            broken=broken,
        )
        self._over(client.relay.clock())
        client.cut(abruptly=self._mode == _BARE)

    def client_left(self) -> None:
        """The client is gone: the engine is to stop at once."""
        if self.over:
            return
        relay = self.client.relay
        if self.waits:
            relay.gate.withdraw(self.exchange)
            self.waits = False
        if self.engine is not None:
            self.engine.abort()
        events = self._events
        judge(
            self.exchange,
            status=self._status,
            finished=None if events is None else events.finished,
            failed=None if events is None else events.failed,
            client_left=True,
        )
        self._over(relay.clock())

    def _over(self, now: float) -> None:
        self.over = True
        exchange = self.exchange
        exchange.ended = now
        relay = self.client.relay
        if self.body:
            relay.held_bytes -= len(self.body)
        self.engine = None
        backend = self.backend
        if backend is not None:
            self.backend = None
            relay.gate.leave(exchange, backend)
        relay.recorder.end(exchange)
