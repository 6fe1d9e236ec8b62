"""The events of a streamed answer: which ones are tokens, how it ended, and the counts that a client did not ask for.

What vLLM sends (0.32, `vllm/entrypoints/`): chat and completions one `data: {…}` line per event, then `data: [DONE]`;
responses and messages an `event: NAME` line before it. `stream_options.include_usage` adds one chunk with `"choices":[]`
before `[DONE]`, and moves `system_fingerprint` into it from the chunk that finishes a choice.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping

from exporter.gateway.model import Dialect, Endpoint, Exchange
from exporter.gateway.reading.frames import OVERLAP, event_data, event_end, event_name
from exporter.gateway.reading.plain import may_go_ahead
from exporter.gateway.reading.tokens import (
    COUNTED,
    COUNTS,
    FINISH,
    LAST_FINISH,
    PLAIN,
    Story,
    look_at_chunk,
    look_at_message,
    look_at_name,
    look_at_response,
)
from exporter.gateway.reading.usage import TAIL_LIMIT, note_from_tail

EVENT_LIMIT = 1 << 20
"""Longest event that is kept to be read, in bytes; a longer one passes through."""
_START_LIMIT = 256
"""Bytes kept of the start of a longer one, for its name."""
_DONE = b"data: [DONE]\n\n"
_LOOKS = {Dialect.RESPONSES: look_at_response, Dialect.MESSAGES: look_at_message}


class EventReader:
    """Reads one answer of Content-Type `text/event-stream`, its transfer coding undone.

    Any split of the bytes gives the same result. Nothing is held back but what may have to be changed: with `hide_usage`
    the incomplete event at the end, and the chunk that finishes the last choice until the next event, which vLLM sends at
    once. `fingerprints` remembers each backend's `system_fingerprint` from answer to answer, for choices that finish
    before the last one does: only the end of an answer tells it.
    """

    __slots__ = (
        "_buffer",
        "_calm",
        "_fingerprints",
        "_finish",
        "_hide",
        "_look",
        "_now",
        "_passed",
        "_returns",
        "_searched",
        "_start",
        "_story",
        "_typed",
        "told_token",
    )

    def __init__(
        self,
        exchange: Exchange,
        *,
        hide_usage: bool,
        gaps: Callable[[float], None],
        fingerprints: MutableMapping[str, bytes] | None = None,
    ) -> None:
        dialect = exchange.endpoint.dialect
        self._typed = dialect in _LOOKS
        self._look = _LOOKS.get(dialect, look_at_chunk)
        self._story = Story(exchange, gaps)
        self._hide = hide_usage and not self._typed
        self._fingerprints = fingerprints
        self._now = 0.0
        self._calm = True
        """Whether nothing is held and the last event was whole."""
        self.told_token = False
        """Whether the last event was a token, and neither finished anything nor told counts."""
        self._buffer: bytes | bytearray = b""
        """The incomplete event at the end; of one too long to be read, its end so far."""
        self._passed = 0
        """How many bytes of it were passed on."""
        self._searched = 0
        """How many bytes of it hold no end of an event."""
        self._returns = False
        """Whether carriage returns have come since the last event was whole."""
        self._start = b""
        """The start of an event that is too long to be read, while it comes."""
        self._finish = b""
        """The chunk that finished the last choice, held until the next event."""

    @property
    def finished(self) -> bool:
        """Whether the stream came to its proper end: `[DONE]`, `response.completed`, `message_stop` or their like."""
        return self._story.finished

    @property
    def failed(self) -> str | None:
        """The kind of error that the engine told of in mid-stream; None as long as it did not."""
        return self._story.failed

    @property
    def calm(self) -> bool:
        """Whether nothing is held, and the next byte begins an event."""
        return self._calm

    def feed(self, data: bytes, now: float) -> bytes:
        """Read what has come at `now`; the bytes to pass on: `data` itself where nothing is held or hidden."""
        if self._calm and data.endswith(b"\n\n") and b"\r" not in data:
            # One whole event, as it nearly always comes. All else goes the patient way, to the same result.
            last_line = len(data) - 2
            seen = self._story.exchange.tokens_seen
            if not self._typed:
                if data.startswith(b"data: ") and data.find(b"\n") == last_line < EVENT_LIMIT - 1:
                    meaning = self._look(self._story, data[6:], now)
                    self.told_token = meaning == PLAIN and self._story.exchange.tokens_seen > seen
                    if meaning == PLAIN or not self._hide:
                        return data
                    out: list[bytes] = []
                    self._pass(data, meaning, out)
                    return b"".join(out) if out[:1] != [data] else data
            elif data.startswith(b"event: "):
                line = data.find(b"\n") + 1
                if data.startswith(b"data: ", line) and data.find(b"\n", line) == last_line < EVENT_LIMIT - 1:
                    self._look(self._story, data[line + 6 :], now)
                    self.told_token = self._story.exchange.tokens_seen > seen
                    return data
        return self._read(data, now, last=False)

    def take(self, events: list[bytes], now: float) -> list[bytes]:
        """The same for whole events, where `feed` has left none incomplete; `events` itself where nothing is held or hidden."""
        look, story, hides = self._look, self._story, self._hide
        exchange = story.exchange
        self._now = now
        meaning = seen = 0
        out: list[bytes] = []
        for event in events:
            seen = exchange.tokens_seen
            content = _content(event)
            meaning = PLAIN if content is None else look(story, content, now)
            if not hides:
                continue
            if meaning == PLAIN and not self._finish:
                out.append(event)
            else:
                self._pass(event, meaning, out)
        self.told_token = meaning == PLAIN and exchange.tokens_seen > seen
        self._calm = not self._finish
        return events if not hides or out == events else out

    def rest(self) -> bytes:
        """The bytes still held, at the end of the body."""
        out = [self._read(b"", self._now, last=True)] if self._returns else []
        if self._finish:
            out.append(_stamped(self._finish, self._known_fingerprint()))
            self._finish = b""
        out.append(bytes(self._buffer[self._passed :]))
        self._buffer = b""
        self._passed = self._searched = 0
        return b"".join(out)

    def _read(self, data: bytes, now: float, *, last: bool) -> bytes:
        """Any bytes: parts of events, several, blank lines, comments, giants."""
        hiding = self._hide
        out: list[bytes] = []
        self._now = now
        self.told_token = False
        self._returns = self._returns or b"\r" in data
        buffer = self._joined(data)
        begin = 0
        search = self._searched
        while (end := event_end(buffer, search, returns=self._returns, last=last)) >= 0:
            unsent = bytes(buffer[max(begin, self._passed) : end])
            if self._start or end - begin > EVENT_LIMIT:
                self._read_giant(buffer, begin, end)
                meaning = PLAIN
            else:
                content = event_data(unsent if begin >= self._passed else bytes(buffer[begin:end]))
                meaning = self._look(self._story, content, now) if content is not None else PLAIN
            if hiding:
                self._pass(unsent, meaning, out)
            begin = search = end
        self._keep(buffer, begin, out)
        if not hiding:
            return data
        passed_on = b"".join(out)
        return data if passed_on == data else passed_on

    def _joined(self, data: bytes) -> bytes | bytearray:
        if not self._buffer:
            return data
        if not isinstance(self._buffer, bytearray):
            self._buffer = bytearray(self._buffer)
        self._buffer += data
        return self._buffer

    def _keep(self, buffer: bytes | bytearray, begin: int, out: list[bytes]) -> None:
        """Keep the incomplete event at the end, and no more of it than is needed."""
        passed = max(self._passed - begin, 0)
        if begin:
            buffer = buffer[begin:]
            self._returns = self._returns and bool(buffer)
        if not self._start and len(buffer) > EVENT_LIMIT:
            self._start = bytes(buffer[:_START_LIMIT])
        if self._start or not self._hide:
            if passed < len(buffer):
                self._pass(bytes(buffer[passed:]), PLAIN, out)
            passed = len(buffer)
        if self._start and len(buffer) > 2 * TAIL_LIMIT:
            buffer = buffer[-TAIL_LIMIT:]
            passed = len(buffer)
        self._buffer = buffer
        self._passed = passed
        self._searched = max(len(buffer) - OVERLAP, 0)
        self._calm = not buffer and not self._finish

    def _read_giant(self, buffer: bytes | bytearray, begin: int, end: int) -> None:
        look_at_name(self._story, event_name(self._start or bytes(buffer[begin : begin + _START_LIMIT])))
        note_from_tail(self._story.exchange, bytes(buffer[max(begin, end - TAIL_LIMIT) : end]))
        self._start = b""

    def _pass(self, event: bytes, meaning: int, out: list[bytes]) -> None:
        """Append what goes on now: as it would have come without `include_usage`."""
        finish = self._finish
        if meaning == COUNTS and self._hide:
            self._hide = False
            self._learn_fingerprint()
            if finish:
                out.append(_stamped(finish, self._story.fingerprint))
            self._finish = b""
            return
        if finish:
            out.append(_stamped(finish, self._known_fingerprint()))
            self._finish = b""
        if not self._hide:
            out.append(event)
        elif meaning == LAST_FINISH:
            self._finish = event
            self._calm = False
        elif meaning == FINISH:
            out.append(_stamped(event, self._known_fingerprint()))
        else:
            self._hide = meaning != COUNTED
            out.append(event)

    def _known_fingerprint(self) -> bytes:
        if self._fingerprints is None:
            return b""
        return self._fingerprints.get(self._story.exchange.backend, b"")

    def _learn_fingerprint(self) -> None:
        if self._fingerprints is not None:
            self._fingerprints[self._story.exchange.backend] = self._story.fingerprint


def without_counts(events: list[bytes], endpoint: Endpoint) -> tuple[list[bytes], bytes] | None:
    """What goes to a client that did not ask for counts, where plain `events` are a whole stream of one choice, and its fingerprint;
    None where it takes reading all of them to know.
    """
    if len(events) < 4 or events[-2] != _DONE or endpoint.dialect in _LOOKS:
        return None
    *told, finish, counts = events[:-2]
    before = b"".join(told)
    if not may_go_ahead(before) or before.count(b'"index"') != before.count(b'"index":0'):
        return None
    story = Story(Exchange(endpoint, "", "", "", 0.0), gaps=lambda seconds: None)
    for event, meaning in ((finish, LAST_FINISH), (counts, COUNTS)):
        content = _content(event)
        if content is None or look_at_chunk(story, content, 0.0) != meaning:
            return None
    return [*told, _stamped(finish, story.fingerprint), _DONE], story.fingerprint


def _content(event: bytes) -> bytes | None:
    """Its data, as JSON is read; None where it has none."""
    line = 0
    if event.startswith(b"event: "):
        line = event.find(b"\n") + 1
    if event.startswith(b"data: ", line) and event.find(b"\n", line) == len(event) - 2 < EVENT_LIMIT - 1:
        return event[line + 6 :]
    return event_data(event)


def _stamped(event: bytes, fingerprint: bytes) -> bytes:
    """The chunk with `system_fingerprint` where vLLM has it: the last member."""
    if not fingerprint or not event.endswith(b"}\n\n"):
        return event
    return b"".join((event[:-3], b',"system_fingerprint":', fingerprint, b"}\n\n"))
