"""An engine's answer on its way to the client: what goes out for what came in. Bytes in, bytes out; no I/O."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Final

from exporter.gateway.model import Dialect, Exchange, Outcome, Refusal
from exporter.gateway.reading.answer import AnswerReader, read_answer
from exporter.gateway.reading.events import EventReader, without_counts
from exporter.gateway.reading.outcome import judge
from exporter.gateway.reading.plain import may_go_ahead
from exporter.gateway.reading.repeated import Mould, mould_of
from exporter.gateway.relay.answer_heads import AnswerHead, answer_head
from exporter.gateway.relay.own_answers import LAST_CHUNK, chunk, error_event

RAW: Final = 0
"""The body goes on in the engine's own chunks."""
CHUNKED: Final = 1
"""It goes on in chunks of ours: something may be hidden in it, or it came without chunks or a length."""
BARE: Final = 2
"""It goes on by its length, or to the end of the connection."""

_HEAD_WAITS: Final = 64 << 10
"""A head is sent together with the beginning of a body up to this long: alone it would be of no use, and a system call more."""
_WHOLE_EVENT: Final = b"\n\n\r\n"
"""How bytes end that end with an event and its chunk."""
_LESSONS: Final = 16
"""Tokens of a stream that are looked at for what repeats: the reasoning has one mould, the words another, and some have none."""
_OPAQUE: Final = Dialect.OPAQUE  # an enum's members cost more to look up than all that is asked of them
_SUCCESS: Final = Outcome.SUCCESS


def at_once(exchange: Exchange, head: AnswerHead, raw: bytes, body: bytes, extra: bytes) -> bytes:
    """What goes to the client for an answer that has come whole, other than a stream's; the exchange is told its end."""
    status = exchange.status = head.status
    if status < 400:
        exchange.outcome = _SUCCESS
        if head.json and not head.encoded and exchange.endpoint.dialect is not _OPAQUE:
            read_answer(exchange, body)
    else:
        judge(exchange, status=status, whole=True)
    return answer_head(head, raw, chunked=False, extra=extra) + body


def ahead(
    exchange: Exchange,
    head: AnswerHead,
    raw: bytes,
    rest: bytes,
    events: list[bytes],
    *,
    asked_usage: bool,
    extra: bytes,
    fingerprints: MutableMapping[str, bytes],
) -> bytes:
    """What goes to a client that knows chunks, head and all, before it is read, where a stream begins with `rest`, plain `events`, or is
    that; nothing where it is to be read first. `raw`: the head as it came. `fingerprints`: as `EventReader` knows them.
    """
    if (
        head.status >= 400
        or not head.chunked
        or head.bodiless
        or head.encoded
        or exchange.endpoint.dialect is _OPAQUE
        or exchange.method == "HEAD"
    ):
        return b""
    if not asked_usage or (events[-1] and may_go_ahead(rest)):
        out = rest
    elif events[-1] or (found := without_counts(events, exchange.endpoint)) is None:
        return b""
    else:
        left, fingerprints[exchange.backend] = found
        out = b"".join([chunk(event) for event in left]) + LAST_CHUNK
    return answer_head(head, raw, chunked=True, extra=extra) + out


class Answer:
    """One answer. `raw` and `length` of its head are as they are this time: `head` may be of an answer like this one."""

    __slots__ = (
        "_exchange",
        "_last",
        "_lessons",
        "_mould",
        "_reader",
        "events",
        "gap",
        "head_out",
        "mode",
        "status",
        "to_close",
    )

    def __init__(
        self,
        exchange: Exchange,
        head: AnswerHead,
        raw: bytes,
        length: int | None,
        *,
        modern: bool,
        asked_usage: bool,
        extra: bytes,
        gaps: Callable[[str], Callable[[float], None]],
        fingerprints: MutableMapping[str, bytes],
    ) -> None:
        """`modern`: the client knows chunks. `asked_usage`: we asked for token counts that the client did not ask for.
        `extra`: lines for its head. `gaps`: where a model's gaps between tokens are counted.
        """
        self._exchange = exchange
        status = self.status = exchange.status = head.status
        self.events: EventReader | None = None
        self.gap: Callable[[float], None] | None = None
        """Where the gaps between the tokens of a stream are counted."""
        self._reader: AnswerReader | None = None
        self._last = b""
        self._lessons = _LESSONS
        self._mould: Mould | None = None
        bodiless = head.bodiless or exchange.method == "HEAD"
        hides = False
        if exchange.endpoint.dialect is not _OPAQUE and status < 400 and not head.encoded:
            if head.json:
                self._reader = AnswerReader(exchange)
            elif head.event_stream:
                exchange.stream = True
                hides = asked_usage and length is None
                self.gap = gaps(exchange.model)
                self.events = EventReader(
                    exchange, hide_usage=hides, gaps=self.gap, fingerprints=fingerprints
                )
        self.to_close = not head.chunked and length is None and not bodiless
        """Whether its end is that of the engine's connection."""
        chunked = head.chunked
        if length is not None or bodiless:
            self.mode = BARE
        elif not modern:
            self.mode = BARE
            chunked = False
        elif chunked and not hides:
            self.mode = RAW
        else:
            self.mode = CHUNKED
            chunked = True
        self.head_out = answer_head(head, raw, chunked=chunked, extra=extra)
        """The head, until it has gone out."""

    def came(self, raw: bytes, body: bytes, ended: bool, now: float) -> bytes:
        """What goes to the client for more of the body: `raw` as it came, `body` its content."""
        mode = self.mode
        events = self.events
        if events is None:
            if body and self._reader is not None:
                self._reader.feed(body)
        elif body:
            body = events.feed(body, now)
        if mode == RAW:
            out = raw
        elif mode == BARE or not body:
            out = body
        else:
            out = b"%x\r\n%b\r\n" % (len(body), body)
        if ended:
            out += self._end()
        return self._with_head(out, ended)

    def events_came(self, raw: bytes, events: list[bytes], now: float) -> bytes:
        """The same for plain events of a stream that is read, where `came` has left no part of one; an empty one is the end."""
        reader = self.events
        assert reader is not None
        ended = not events[-1]
        if ended:
            events.pop()
        elif len(events) == 1:
            event = events[0]
            body = reader.feed(event, now)
            out = raw if body is event and self.mode != BARE else body if self.mode == BARE else chunk(body)
            return self._with_head(out, ended)
        passed = reader.take(events, now)
        if self.mode == BARE:
            out = b"".join(passed) + (self._end() if ended else b"")
        elif passed is events and reader.calm:
            out = raw
        else:
            out = b"".join([chunk(event) for event in passed]) + (self._end() if ended else b"")
        return self._with_head(out, ended)

    def _with_head(self, out: bytes, ended: bool) -> bytes:
        if self.events is not None:
            self._last = out or self._last
        if self.head_out and (out or ended):
            out = self.head_out + out
            self.head_out = b""
        return out

    def mould_after(self, event: bytes) -> Mould | None:
        """What comes next may look like, where a chunk and its event have just ended: `event`."""
        reader = self.events
        assert reader is not None
        if self.head_out or self.mode == BARE or not reader.calm or not self._last.endswith(_WHOLE_EVENT):
            return None
        if self._lessons and reader.told_token:
            self._lessons -= 1
            self._mould = mould_of(event) or self._mould
        return self._mould

    def _end(self) -> bytes:
        if self._reader is not None:
            self._reader.end()
        if self.mode == RAW:
            return b""
        held = b"" if self.events is None else self.events.rest()
        return held if self.mode == BARE else chunk(held) + LAST_CHUNK

    def last_words(self, refusal: Refusal) -> bytes:
        """What can be said to the reader of a stream that ends here without its proper end; nothing inside an event.

        A whole event that was held back goes out before the error, the part of one never does.
        """
        events = self.events
        inside = self._last and not self._last.endswith(_WHOLE_EVENT)
        if events is None or events.finished or self.mode == BARE or self.head_out or inside:
            return b""
        held = events.rest() if self.mode == CHUNKED else b""
        return chunk(held[: held.rfind(b"\n\n") + 2] if b"\n\n" in held else b"") + chunk(
            error_event(refusal)
        )

    def head_can_wait(self, length: int | None) -> bool:
        """Whether the head goes out with the body."""
        return length is None or length <= _HEAD_WAITS

    def judge(
        self,
        exchange: Exchange,
        *,
        whole: bool = False,
        client_left: bool = False,
        timed_out: bool = False,
        broken: bool = False,
    ) -> Outcome:
        """Note how it ended."""
        events = self.events
        if events is None:
            return judge(
                exchange,
                status=self.status,
                whole=whole,
                client_left=client_left,
                timed_out=timed_out,
                broken=broken,
            )
        return judge(
            exchange,
            status=self.status,
            whole=whole,
            finished=events.finished,
            failed=events.failed,
            client_left=client_left,
            timed_out=timed_out,
            broken=broken,
        )
