"""The head of an engine's answer: policed by llhttp, then passed on as the bytes it came as, less what is meant for one hop."""

from __future__ import annotations

import re
from typing import Final

import httptools

from exporter.gateway.relay.lines import NEVER_NAMED, NOBODY, around_length, cut_out, lines_of

_ANSWER_FIELDS: Final = re.compile(
    rb"\r\n(connection|keep-alive|proxy-connection|trailer|transfer-encoding|upgrade|content-length|content-type"
    rb"|content-encoding|x-request-id):[ \t]*([^\r]*)"
)


class AnswerHead:
    """An answer's head, as far as a proxy has to know it."""

    __slots__ = (
        "after",
        "before",
        "bodiless",
        "chunked",
        "chunked_at",
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
        self.chunked_at = (0, 0)
        self.event_stream = False
        self.json = False
        self.encoded = False
        """Compressed: what stands in it cannot be read."""
        self.request_id = False
        self.before = b""
        self.after = b""
        self.cuts: list[tuple[int, int]] | None = None


def read_answer_head(raw: bytes) -> AnswerHead:
    """Find what matters in a whole head; raises `httptools.HttpParserError` for one that is not valid."""
    try:
        httptools.HttpResponseParser(NOBODY).feed_data(raw)
    except httptools.HttpParserUpgrade:
        raise httptools.HttpParserError("the engine switches protocols, and nobody asked for that") from None
    head = AnswerHead(raw)
    start = head.start = raw.find(b"\r\n")
    if raw[:9] != b"HTTP/1.1 ":
        head.modern = head.keep_alive = False
    head.status = int(raw[9:12])
    head.bodiless = head.status in (204, 304) or head.status < 200
    length_at = (0, 0)
    for match in _ANSWER_FIELDS.finditer(raw.lower(), start):
        name, value = match.groups()
        if name == b"content-type":
            head.event_stream = value.startswith(b"text/event-stream")
            head.json = value.startswith(b"application/json")
        elif name == b"content-length":
            head.length = int(value)
            length_at = match.span()
        elif name == b"x-request-id":
            head.request_id = True
        elif name == b"content-encoding":
            head.encoded = value.rstrip() != b"identity"
        elif name == b"transfer-encoding":
            head.chunked = True
            head.chunked_at = match.span()
        else:
            if head.cuts is None:
                head.cuts = []
            head.cuts.append(match.span())
            if name == b"connection":
                _note_answer_connection(head, value)
    if head.cuts is None:
        head.before, head.after = around_length(raw, length_at)
    return head


def _note_answer_connection(head: AnswerHead, value: bytes) -> None:
    for token in value.split(b","):
        option = token.strip()
        if option == b"close":
            head.keep_alive = False
        elif option == b"keep-alive":
            head.keep_alive = True
        if option not in NEVER_NAMED and head.cuts is not None:
            head.cuts += lines_of(head.raw, head.start, option)


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
            cuts = [head.chunked_at] if cuts is None else [*cuts, head.chunked_at]
    if head.modern:
        if cuts is None:
            return b"%b%b\r\n" % (raw[:end], extra)
        return cut_out(raw, 0, end, cuts) + extra + b"\r\n"
    return b"HTTP/1.1" + cut_out(raw, 8, end, cuts or []) + extra + b"\r\n"
