"""Request and answer heads: policed by llhttp, then passed on as the bytes they came as, less what is meant for one hop.

A head is never taken apart into all its headers and put together again: the dozen that matter to a proxy are found by one pass
of one pattern over the lowered head, and the lines that may not go on are cut out. What llhttp has let through has no bare CR or
LF, no folded line and no space before a colon, so that `CRLF name:` is a header's beginning and nothing else.

Who asks twice over one connection sends the same head twice, but for the digits of its length, and an engine answers alike. So
the last head is kept with what was found in it (`before`, `after`): to see that it has come again takes two comparisons of bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import httptools

from exporter.gateway.model import Endpoint, Outcome, Refusal

HEAD_END: Final = b"\r\n\r\n"
MAX_FIELDS: Final = 128
"""Header fields in a request; real clients send some twenty. Apache's limit is 100, nginx has one on bytes only."""

_REQUEST_FIELDS: Final = re.compile(
    rb"\r\n(connection|keep-alive|proxy-[^:]*|te|trailer|transfer-encoding|upgrade|expect|http2-settings|content-length|host"
    rb"|authorization|x-api-key|x-request-id|x-forwarded-for|x-forwarded-proto|x-priority):[ \t]*([^\r]*)"
)
_ANSWER_FIELDS: Final = re.compile(
    rb"\r\n(connection|keep-alive|proxy-connection|trailer|transfer-encoding|upgrade|content-length|content-type"
    rb"|content-encoding|x-request-id):[ \t]*([^\r]*)"
)
_ONE_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"expect",
        b"http2-settings",
    )
)
"""Headers between two neighbours, RFC 9110 7.6.1; `Expect` is answered here."""
_LENGTH_DIGITS: Final = 16
"""Digits of a length that is recognised, and the CR after it: ten petabytes."""
_NEVER_NAMED: Final = frozenset((b"host", b"content-length", b"close", b"keep-alive", b""))
"""What `Connection` cannot have taken out: without it the request would mean something else."""
_ABSOLUTE: Final = re.compile(rb"(?i)https?://([^/?#@]+)((?:/[^#]*)?)")
_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))


class BadHeadError(Exception):
    """A head that no proxy may pass on; `refusal` is the answer to it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def bad_request(message: str, *, status: int = 400, code: str = "bad_request") -> Refusal:
    """The refusal of a request that breaks HTTP: nothing that follows on its connection can be trusted."""
    return Refusal(status, "invalid_request_error", code, message, Outcome.CLIENT_ERROR, close=True)


class RequestHead:
    """A request's head, as far as a proxy has to know it."""

    __slots__ = (
        "absolute",
        "after",
        "api_key",
        "api_key_at",
        "authorization",
        "authorization_at",
        "before",
        "chunked",
        "cuts",
        "expect",
        "forwarded_for",
        "forwarded_proto",
        "found",
        "host",
        "keep_alive",
        "length",
        "length_at",
        "method",
        "modern",
        "onward",
        "priority",
        "raw",
        "request_id",
        "start",
        "target",
    )

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        """The head with its empty line."""
        self.start = 0
        """Where the request line's CRLF stands."""
        self.method = ""
        self.target = ""
        """In origin form, with the query."""
        self.found: Endpoint | Refusal | None = None
        """Where it leads, once that was looked up."""
        self.before = b""
        self.after = b""
        """What stands before and after the digits of `Content-Length`, where the head may be recognised when it comes again;
        all in `before` where it has no length."""
        self.onward: bytes | None = None
        """What goes on to an engine of it and for it, but for the lines that change from request to request."""
        self.modern = True
        """HTTP/1.1."""
        self.keep_alive = True
        self.length: int | None = None
        """`Content-Length`; None without one."""
        self.length_at = (0, 0)
        self.chunked = False
        self.expect = False
        self.host: bytes | None = None
        self.absolute: bytes | None = None
        """The authority of a target in absolute form, which overrules `Host` (RFC 9112 3.2.2)."""
        self.authorization: bytes | None = None
        self.authorization_at = (0, 0)
        self.api_key: bytes | None = None
        self.api_key_at = (0, 0)
        self.request_id: bytes | None = None
        self.forwarded_for: bytes | None = None
        self.forwarded_proto = False
        self.priority: bytes | None = None
        self.cuts: list[tuple[int, int]] | None = None
        """Spans of the lines that do not go on, each from its CRLF to before the next."""

    def cut(self, start: int, end: int) -> None:
        """Leave the line out that begins with the CRLF at `start`."""
        if self.cuts is None:
            self.cuts = [(start, end)]
        else:
            self.cuts.append((start, end))


class _Nobody:
    """llhttp tells it nothing: a callback costs more than all the parsing."""


_NOBODY: Final = _Nobody()


def read_request_head(raw: bytes) -> RequestHead:
    """Find what matters in a whole head; raises `BadHeadError` for one that no proxy may pass on."""
    try:
        httptools.HttpRequestParser(_NOBODY).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # Nothing is upgraded: it is answered like any other request.
    except httptools.HttpParserError as error:
        raise BadHeadError(bad_request(f"The request's head is not valid HTTP: {error}.")) from None
    head = RequestHead(raw)
    start = head.start = raw.find(b"\r\n")
    try:
        method, target, version = raw[:start].split(b" ")
    except ValueError:
        raise BadHeadError(bad_request("The request line is not METHOD TARGET VERSION.")) from None
    if version != b"HTTP/1.1":
        if version != b"HTTP/1.0":
            raise BadHeadError(
                bad_request("Only HTTP/1.1 and HTTP/1.0 are spoken here.", status=505, code="http_version")
            )
        head.modern = head.keep_alive = False
    if method not in _METHODS:
        raise BadHeadError(bad_request("The method is not known.", status=501, code="method_unknown"))
    head.method = method.decode()
    if target[:1] != b"/":
        target = _origin_form(head, method, target)
    if b"#" in target:
        raise BadHeadError(bad_request("The request target has a fragment."))
    head.target = target.decode("latin-1")
    for match in _REQUEST_FIELDS.finditer(raw.lower(), start):
        _note_request_field(head, match)
    if head.host is None and head.modern:
        raise BadHeadError(bad_request("The request has no Host header."))
    if head.chunked and not head.modern:
        raise BadHeadError(bad_request("HTTP/1.0 has no Transfer-Encoding."))
    if not head.chunked and not head.expect:
        head.before, head.after = _around_length(raw, head.length_at)
    return head


def _around_length(raw: bytes, span: tuple[int, int]) -> tuple[bytes, bytes]:
    """The head before and after the digits of its length; all and nothing where it has none, or not digits to the line's end."""
    start, end = span
    if end == 0:
        return raw, b""
    digits = raw[start:end].rpartition(b" ")[2]
    return (raw[: end - len(digits)], raw[end:]) if digits.isdigit() else (b"", b"")


def recognise(data: bytes, before: bytes, after: bytes) -> tuple[int, int | None]:
    """Whether `data` begins with the head that has `before` and `after`: where it ends, 0 if it does not, and the length in it."""
    if not before or not data.startswith(before):
        return 0, None
    start = len(before)
    if not after:
        return start, None
    end = data.find(b"\r", start, start + _LENGTH_DIGITS)
    digits = data[start:end]
    if end < 0 or not digits.isdigit() or not data.startswith(after, end):
        return 0, None
    return end + len(after), int(digits)


def _origin_form(head: RequestHead, method: bytes, target: bytes) -> bytes:
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        head.absolute = absolute[1]
        path = absolute[2] or b"/"
        return path if path[:1] == b"/" else b"/" + path
    if target == b"*" and method == b"OPTIONS":
        return target
    raise BadHeadError(bad_request("The request target is neither a path nor http://host/path."))


def _note_request_field(head: RequestHead, match: re.Match[bytes]) -> None:
    name, lowered = match.groups()
    if name == b"content-length":
        head.length = int(lowered)
        head.length_at = match.span()
        return
    if name == b"host":
        if head.host is not None:
            raise BadHeadError(bad_request("The request has more than one Host header."))
        head.host = head.raw[match.start(2) : match.end(2)]
        if head.absolute is not None:
            head.cut(match.start(), match.end())
        return
    if name in _ONE_HOP or name.startswith(b"proxy-"):
        head.cut(match.start(), match.end())
        if name == b"connection":
            _note_connection(head, lowered)
        elif name == b"transfer-encoding":
            if lowered.rstrip() != b"chunked" or head.chunked:
                raise BadHeadError(
                    bad_request(
                        "Only chunked is understood as Transfer-Encoding.",
                        status=501,
                        code="transfer_encoding",
                    )
                )
            head.chunked = True
        elif name == b"expect":
            if lowered.rstrip() != b"100-continue":
                raise BadHeadError(
                    bad_request("Only 100-continue can be expected.", status=417, code="expectation")
                )
            head.expect = head.modern
        return
    value = head.raw[match.start(2) : match.end(2)].rstrip()
    if name == b"authorization":
        head.authorization = value
        head.authorization_at = match.span()
    elif name == b"x-api-key":
        head.api_key = value
        head.api_key_at = match.span()
    elif name == b"x-request-id":
        head.request_id = value
    elif name == b"x-forwarded-for":
        head.forwarded_for = value if head.forwarded_for is None else head.forwarded_for + b", " + value
        head.cut(match.start(), match.end())
    elif name == b"x-forwarded-proto":
        head.forwarded_proto = True
    else:
        head.priority = lowered.rstrip()


def _note_connection(head: RequestHead, value: bytes) -> None:
    options = [token.strip() for token in value.split(b",")]
    if b"close" in options:
        head.keep_alive = False
    elif b"keep-alive" in options and not head.modern:
        head.keep_alive = True
    for option in options:
        if option not in _NEVER_NAMED:
            for span in _lines_of(head.raw, head.start, option):
                head.cut(*span)


def _lines_of(raw: bytes, start: int, name: bytes) -> Iterator[tuple[int, int]]:
    """The spans of all lines of a header, each from its CRLF to before the next."""
    lowered = raw.lower()
    at = lowered.find(b"\r\n" + name + b":", start)
    while at >= 0:
        end = lowered.index(b"\r\n", at + 2)
        yield at, end
        at = lowered.find(b"\r\n" + name + b":", end)


def cut_out(raw: bytes, start: int, end: int, cuts: list[tuple[int, int]]) -> bytes:
    """The bytes of `raw` from `start` to `end` without the spans in `cuts`, which may overlap."""
    if len(cuts) > 1:
        cuts.sort()
    pieces = []
    for first, last in cuts:
        if first > start:
            pieces.append(raw[start:first])
        if last > start:
            start = last
    pieces.append(raw[start:end])
    return b"".join(pieces)


def onward_head(head: RequestHead, forwarded: bytes, *, own_credentials: bool) -> bytes:
    """What goes to an engine of a head, without its end: no length, for that is ours to tell, and none of the lines for one hop.

    `forwarded`: the lines about who asks. `own_credentials`: clients' keys end here, and the engine has its own.
    """
    raw = head.raw
    cuts = [] if head.cuts is None else head.cuts.copy()
    if head.length is not None:
        cuts.append(head.length_at)
    if own_credentials:
        cuts += [span for span in (head.authorization_at, head.api_key_at) if span[1]]
    end = len(raw) - 2
    if head.modern and head.absolute is None:
        return cut_out(raw, 0, end, cuts) + forwarded
    line = b"%b %b HTTP/1.1" % (head.method.encode(), head.target.encode("latin-1"))
    if head.absolute is not None:
        forwarded += b"Host: %b\r\n" % head.absolute
    elif head.host is None:
        forwarded += b"Host: localhost\r\n"
    return line + cut_out(raw, head.start, end, cuts) + forwarded


class AnswerHead:
    """An answer's head, as far as a proxy has to know it."""

    __slots__ = (
        "after",
        "before",
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

    @property
    def bodiless(self) -> bool:
        """Whether its status rules a body out."""
        return self.status in (204, 304) or self.status < 200


def read_answer_head(raw: bytes) -> AnswerHead:
    """Find what matters in a whole head; raises `httptools.HttpParserError` for one that is not valid."""
    try:
        httptools.HttpResponseParser(_NOBODY).feed_data(raw)
    except httptools.HttpParserUpgrade:
        raise httptools.HttpParserError("the engine switches protocols, and nobody asked for that") from None
    head = AnswerHead(raw)
    start = head.start = raw.find(b"\r\n")
    if raw[:9] != b"HTTP/1.1 ":
        head.modern = head.keep_alive = False
    head.status = int(raw[9:12])
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
        head.before, head.after = _around_length(raw, length_at)
    return head


def _note_answer_connection(head: AnswerHead, value: bytes) -> None:
    for token in value.split(b","):
        option = token.strip()
        if option == b"close":
            head.keep_alive = False
        elif option == b"keep-alive":
            head.keep_alive = True
        if option not in _NEVER_NAMED and head.cuts is not None:
            head.cuts += _lines_of(head.raw, head.start, option)


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
