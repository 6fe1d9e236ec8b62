"""One request's way: let in, to an engine, and its answer back, whatever goes wrong in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from exporter.gateway.admission.refusals import UNREADABLE_MODEL
from exporter.gateway.model import Dialect, Exchange, Outcome, Refusal
from exporter.gateway.reading.outcome import judge
from exporter.gateway.reading.repeated import is_one_chunk
from exporter.gateway.reading.request import UNREAD, read_request, with_usage
from exporter.gateway.relay.answer import BARE, Answer, ahead, at_once
from exporter.gateway.relay.flow import FAST, Flow
from exporter.gateway.relay.heads import RequestHead, onward_head
from exporter.gateway.relay.lines import LENGTH_LINES, SHORT, length_line
from exporter.gateway.relay.own_answers import chunk, refusal_answer, whole_answer
from exporter.gateway.relay.pool import Pool
from exporter.gateway.relay.refusals import ENGINE_BROKE_HTTP, ENGINE_LOST, ENGINE_TIMEOUT, ENGINE_UNREACHABLE

if TYPE_CHECKING:
    from exporter.gateway.admission.fleet import Backend
    from exporter.gateway.admission.limits import Limits
    from exporter.gateway.reading.repeated import Mould
    from exporter.gateway.relay.answer_heads import AnswerHead
    from exporter.gateway.relay.client import ClientConnection
    from exporter.gateway.relay.engine import EngineConnection

_OPAQUE: Final = Dialect.OPAQUE  # an enum's members cost more to look up than all that is asked of them
_SUCCESS: Final = Outcome.SUCCESS


class Passage:
    """A request between a client's connection and an engine's."""

    __slots__ = (
        "_ahead",
        "_answer",
        "_answered",
        "_asked_usage",
        "_fresh",
        "_lost",
        "_sending",
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
        """When the engine last said something, or the request went to it; of the tokens that went the short way the exchange knows."""
        self.over = False
        self.waits = False
        self.keeps = True
        self._asked_usage = False
        self._fresh = False
        """Whether a kept connection had been closed, so that it goes to the same engine once more."""
        self._lost = False
        """Whether an engine's connection broke over it: it may be the request that breaks engines."""
        self._sending = False
        self._answer: Answer | None = None
        self._answered = False
        self._ahead = False
        """Whether what is read first has gone out before it was."""

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
        if relay.content is not None:
            relay.content.asked(exchange, self.body)
        if dialect is not _OPAQUE and self.body:
            read = read_request(self.body)
            asked = read.model
            if read is UNREAD and self.limits is not None and self.limits.models is not None:
                self.refuse(UNREADABLE_MODEL)
                return
            exchange.model = relay.fleet.known(asked)
            if read.stream:
                exchange.stream = True
                body = with_usage(self.body, read, dialect)
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
        pool = backend.pool
        if type(pool) is not Pool:
            pool = self.client.relay.pool(backend)
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
        id_line = self.id_line if head.request_id is None else b""
        body = self.body
        if body:
            size = len(body)
            length = LENGTH_LINES[size] if size < SHORT else length_line(size)
            engine.carry(self, b"".join((onward, id_line, length, body)))
        elif body is not None:
            end = b"\r\n" if self.length is None else LENGTH_LINES[0]
            engine.carry(self, onward + id_line + end)
        else:
            end = b"Transfer-Encoding: chunked\r\n\r\n" if self.length is None else length_line(self.length)
            engine.carry(self, onward + id_line + end)
            client.arrival.connected()  # type: ignore[union-attr]
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

    def answer_began(
        self, head: AnswerHead, raw: bytes, length: int | None, rest: bytes, events: list[bytes] | None
    ) -> None:
        """The engine's head is whole. `raw`, `length`: as they are this time, for `head` may be of an answer like this one.
        `rest`: what has come of the body, `events` if it is that: `events_came` or `answer_came` will be called with it.
        """
        client = self.client
        relay = client.relay
        modern = self.head.modern
        if not modern and length is None and not head.bodiless and self.exchange.method != "HEAD":
            client.keep_alive = False
        self.keeps = client.keeps()
        extra = b"" if head.request_id else self.id_line
        if not self.keeps:
            extra += b"Connection: close\r\n"
        elif not modern:
            extra += b"Connection: keep-alive\r\n"
        hides = self._asked_usage
        if events is not None and modern:
            out = ahead(
                self.exchange,
                head,
                raw,
                rest,
                events,
                asked_usage=hides,
                extra=extra,
                fingerprints=relay.fingerprints,
            )
            if out:
                self._ahead = True
                hides = hides and events[-1] != b""  # else it has been hidden already
                self.exchange.status = head.status
                self.heard = relay.clock()
                self._write(out)
        new_answer = Answer if relay.content is None else relay.content.answer
        answer = self._answer = new_answer(
            self.exchange,
            head,
            raw,
            length,
            modern=modern,
            asked_usage=hides,
            extra=extra,
            gaps=relay.recorder.gap,
            fingerprints=relay.fingerprints,
        )
        if self._ahead:
            answer.head_out = b""
        elif length is not None and not answer.head_can_wait(length):
            self.say_head()
        elif answer.head_out:
            # Until the next sweep, and no longer: whoever stands before us may count the seconds.
            client.due = min(client.due, relay.now)

    def say_head(self) -> None:
        """Let the client know that its answer has begun, though nothing of it has come; from now on no other engine can answer."""
        answer = self._answer
        if answer is not None and answer.head_out:
            self._write(answer.head_out)
            answer.head_out = b""

    def answer_whole(self, head: AnswerHead, raw: bytes, body: bytes) -> bool:
        """An answer has come in one piece, as short ones nearly always do. False where it is to go the long way all the same."""
        client = self.client
        relay = client.relay
        if relay.content is not None or not (head.modern and self.head.modern):
            return False
        exchange = self.exchange
        if exchange.method == "HEAD":
            return False
        engine = self.engine
        assert engine is not None
        engine.keep_alive = head.keep_alive
        self.keeps = client.keep_alive and client.upload_complete and not relay.draining
        extra = b"" if head.request_id else self.id_line
        if not self.keeps:
            extra += b"Connection: close\r\n"
        self._write(at_once(exchange, head, raw, body, extra))
        self._done(engine, relay.clock())
        return True

    def events_came(self, raw: bytes, events: list[bytes]) -> None:
        """More of a stream in its plainest spelling: `raw` as it came, `events` what it is, an empty one where it ends."""
        answer = self._answer
        assert answer is not None
        ended = not events[-1]
        if answer.events is None or self.client.relay.content is not None:
            self.answer_came(raw, b"".join(events), ended)
            return
        last = events[-1]
        gone, self._ahead = self._ahead, False
        now = self.heard = self.heard if gone else self.client.relay.clock()
        if self.engine is not None and self.engine.settled and len(events) > 1:
            self._look_for_stall(now)
        out = answer.events_came(raw, events, now)
        if out and not gone:
            self._write(out)
        if ended:
            self._finish(now)
        elif self.engine is not None:
            self._follow(answer, answer.mould_after(last))

    def answer_came(self, raw: bytes, body: bytes, ended: bool) -> None:
        """More of the answer: `raw` as it came, `body` its content."""
        answer = self._answer
        assert answer is not None
        gone, self._ahead = self._ahead, False
        now = self.heard = self.heard if gone else self.client.relay.clock()
        if self.engine is not None and self.engine.settled and body.count(b"\n\n") > 1:
            self._look_for_stall(now)
        out = answer.came(raw, body, ended, now)
        if out and not gone:
            self._write(out)
        if ended:
            self._finish(now)
        elif self.engine is not None and answer.events is not None and self.client.relay.content is None:
            self._follow(answer, answer.mould_after(body) if is_one_chunk(raw, body) else None)

    def _follow(self, answer: Answer, mould: Mould | None) -> None:
        """Let the tokens that come next, if they can be told at a glance, go a shorter way."""
        engine = self.engine
        assert engine is not None
        flow = engine.flow
        if mould is None:
            if flow is not None:
                engine.follow(None)
        elif flow is None or flow.mould is not mould:
            client = self.client
            assert answer.gap is not None
            engine.follow(
                Flow(
                    mould,
                    self.exchange,
                    engine=engine,
                    write=client.transport.write,
                    gap=answer.gap,
                    clock=client.relay.clock,
                )
            )

    def _look_for_stall(self, now: float) -> None:
        """Several tokens have come at once: where the last was too long ago, the engine has waited until we acknowledged that one."""
        last = self.exchange.last_token
        if last is not None and now - last > FAST and self.engine is not None:
            self.engine.pool.settles = False

    def last_heard(self) -> float:
        """When the engine last said something, or the request went to it."""
        return max(self.heard, self.exchange.last_token or 0.0)

    def _write(self, out: bytes) -> None:
        self._answered = True
        self.exchange.response_bytes += len(out)
        self.client.transport.write(out)

    def answer_broke(self, why: str) -> None:
        """What came was not HTTP."""
        if self.engine is not None:
            self.engine.abort()
        self._cut(ENGINE_BROKE_HTTP, broken=True)

    def engine_left(self, engine: EngineConnection, error: Exception | None) -> None:
        """The engine's connection is gone before the answer was whole; or it ended an answer without a length by that."""
        if self.over or engine is not self.engine:
            return
        answer = self._answer
        if answer is not None and answer.to_close and error is None:
            self.answer_came(b"", b"", True)
            return
        if self._answered:
            self._cut(ENGINE_LOST)
            return
        if answer is not None:
            self._answer = None
            self.exchange.forget_answer()
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
        """The engine could not be reached, or left before its client had a byte: another one, where there is one and the
        request is at hand. Who has broken two connections is not sent to a third engine: it may be what kills them.
        """
        relay = self.client.relay
        backend = self.backend
        assert backend is not None
        broke = self._fresh or reason == "reset"
        if self._sending or (broke and self._lost):
            self.refuse(ENGINE_UNREACHABLE, reason)
            return
        self._lost = self._lost or broke
        self._fresh = False
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
        self._cut(ENGINE_TIMEOUT, timed_out=True)

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
        answer = self._answer
        assert answer is not None
        events = answer.events
        if events is not None and events.finished and events.failed is None:
            self.exchange.outcome = _SUCCESS
        else:
            answer.judge(self.exchange, whole=True)
        self._done(engine, now)

    def _done(self, engine: EngineConnection, now: float) -> None:
        """The exchange knows how it ended: the engine's connection is kept, if it can be, and the client's turn comes."""
        client = self.client
        taken = not engine.transport.get_write_buffer_size()  # an engine may answer before it has read all
        if taken and engine.keep_alive and (self.body is not None or client.upload_complete):
            if client.blocked_since is not None:
                engine.transport.resume_reading()
            engine.pool.put(engine, now)
        else:
            engine.abort()
        self._over(now)
        client.answered(self.keeps)

    def _cut(self, refusal: Refusal, *, timed_out: bool = False, broken: bool = False) -> None:
        """The answer cannot be finished: an error, if its client has had nothing of it, else the connection is cut."""
        answer = self._answer
        if not self._answered:
            self.refuse(refusal)
            return
        client = self.client
        if answer is None:  # it failed here, over a beginning that had gone ahead
            judge(self.exchange, status=self.exchange.status, broken=broken, timed_out=timed_out)
        else:
            self._write(answer.last_words(refusal))
            answer.judge(self.exchange, timed_out=timed_out, broken=broken)
        self._over(client.relay.clock())
        client.cut(abruptly=answer is None or answer.mode == BARE)

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
        if self._answer is None:
            judge(self.exchange, status=None, client_left=True)
        else:
            self._answer.judge(self.exchange, client_left=True)
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
