"""The head of an engine's answer: policed by llhttp, then passed on as the bytes it came as, less what is meant for one hop."""

from __future__ import annotations

import re
from typing import Final

import httptools

from exporter.gateway.relay.lines import NEVER_NAMED, NOBODY, around, cut_out, recognise, spans_of

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])[ \r]")
_ANSWER_FIELDS: Final = re.compile(
    rb"\r\n(connection|keep-alive|proxy-connection|trailer|transfer-encoding|upgrade|content-length|content-type"
    rb"|content-encoding|x-request-id):[ \t]*([^\r]*)"
)


class AnswerHead:
    """An answer's head, as far as a proxy has to know it."""

    __slots__ = (
        "_first",
        "_length_at",
        "_rest",
        "bodiless",
        "chunked",
        "cuts",
        "encoded",
        "event_stream",
        "json",
        "keep_alive",
        "length",
        "modern",
        "raw",
        "request_id",
        "start",
        "status",
    )

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.start = 0
        self.status = 0
        self.bodiless = False
        """Whether its status rules a body out."""
        self.modern = True
        self.keep_alive = True
        self.length: int | None = None
        self.chunked = False
        self.event_stream = False
        self.json = False
        self.encoded = False
        """Compressed: what stands in it cannot be read."""
        self.request_id = False
        self.cuts: list[tuple[int, int]] | None = None
        self._first = b""
        self._rest: tuple[bytes, ...] = ()
        self._length_at: int | None = None

    def expect_again(self, lines: list[bytes], length_at: int | None) -> None:
        """Keep what is needed to tell the head when it comes again. `lines`: those that vary, the length at `length_at`."""
        self._first, self._rest = around(self.raw, lines)
        self._length_at = length_at

    def again(self, data: bytes) -> tuple[int, int | None]:
        """Where this head ends in `data`, if that begins with it, and the length that stands in it this time; 0 if it does not."""
        first = self._first
        if not self._rest:
            return (len(first) if data.startswith(first) else 0), None
        end, _, length = recognise(data, first, self._rest, self._length_at)
        return end, length


def read_answer_head(raw: bytes) -> AnswerHead:
    """Find what matters in a whole head; raises `httptools.HttpParserError` for one that is not valid."""
    try:
        httptools.HttpResponseParser(NOBODY).feed_data(raw)
    except httptools.HttpParserUpgrade:
        raise httptools.HttpParserError("the engine switches protocols, and nobody asked for that") from None
    line = _STATUS_LINE.match(raw)
    if line is None:
        raise httptools.HttpParserError("the answer does not begin with a status")
    head = AnswerHead(raw)
    start = head.start = raw.find(b"\r\n")
    head.modern = head.keep_alive = line[1] == b"1"
    head.status = int(line[2])
    head.bodiless = head.status in (204, 304) or head.status < 200
    varying: list[bytes] = []
    length_at = None
    for match in _ANSWER_FIELDS.finditer(raw.lower(), start):
        name, value = match.groups()
        if name == b"content-type":
            head.event_stream = value.startswith(b"text/event-stream")
            head.json = value.startswith(b"application/json")
        elif name == b"content-length":
            head.length = int(value)
            length_at = len(varying)
            varying.append(raw[match.start() + 2 : match.end()])
        elif name == b"x-request-id":
            if not head.request_id:
                varying.append(raw[match.start() + 2 : match.end()])
            head.request_id = True
        elif name == b"content-encoding":
            head.encoded = value.rstrip() != b"identity"
        elif name == b"transfer-encoding":
            if value.rstrip() != b"chunked" or head.chunked or not head.modern:
                raise httptools.HttpParserError("only chunked is understood as Transfer-Encoding")
            head.chunked = True
        else:
            if head.cuts is None:
                head.cuts = []
            head.cuts.append(match.span())
            if name == b"connection":
                _note_answer_connection(head, value)
    if head.cuts is None:
        head.expect_again(varying, length_at)
    return head


def _note_answer_connection(head: AnswerHead, value: bytes) -> None:
    options = {option.strip() for option in value.split(b",")}
    if b"close" in options:
        head.keep_alive = False
    elif b"keep-alive" in options:
        head.keep_alive = True
    named = options - NEVER_NAMED
    if named and head.cuts is not None:
        head.cuts += spans_of(head.raw, head.start, named)


def answer_head(head: AnswerHead, raw: bytes, *, chunked: bool, extra: bytes) -> bytes:
    """The head that goes to the client, in HTTP/1.1. `raw`: as it came this time; `chunked`: whether its body goes in chunks;
    `extra`: further lines.
    """
    end = len(raw) - 2
    cuts = head.cuts
    if chunked is not head.chunked:
        if chunked:
            extra += b"Transfer-Encoding: chunked\r\n"
        else:
            cuts = [*(cuts or ()), *spans_of(raw, raw.find(b"\r\n"), (b"transfer-encoding",))]
    if head.modern:
        if cuts is None:
            return raw[:end] + extra + b"\r\n"
        return cut_out(raw, 0, end, cuts) + extra + b"\r\n"
    return b"HTTP/1.1" + cut_out(raw, 8, end, cuts or []) + extra + b"\r\n"
