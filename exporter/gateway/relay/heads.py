"""A request's head: policed by llhttp, then passed on as the bytes it came as, less what is meant for one hop."""

from __future__ import annotations

import re
from typing import Final

import httptools

from exporter.gateway.model import Endpoint, Refusal
from exporter.gateway.relay.lines import NEVER_NAMED, NOBODY, around_length, cut_out, lines_of
from exporter.gateway.relay.refusals import bad_request

MAX_FIELDS: Final = 128
"""Header fields in a request; real clients send some twenty. Apache's limit is 100, nginx has one on bytes only."""

_REQUEST_FIELDS: Final = re.compile(
    rb"\r\n(connection|keep-alive|proxy-[^:]*|te|trailer|transfer-encoding|upgrade|expect|http2-settings|content-length|host"
    rb"|authorization|x-api-key|x-request-id|x-forwarded-for|x-forwarded-proto|x-priority):[ \t]*([^\r]*)"
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
_ABSOLUTE: Final = re.compile(rb"(?i)https?://([^/?#@]+)((?:[/?][^#]*)?)")
_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))


class BadHeadError(Exception):
    """A head that no proxy may pass on; `refusal` is the answer to it."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


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


def read_request_head(raw: bytes) -> RequestHead:
    """Find what matters in a whole head; raises `BadHeadError` for one that no proxy may pass on."""
    try:
        httptools.HttpRequestParser(NOBODY).feed_data(raw)
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
        head.before, head.after = around_length(raw, head.length_at)
    return head


def _origin_form(head: RequestHead, method: bytes, target: bytes) -> bytes:
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        head.absolute = absolute[1]
        path = absolute[2]
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
        if option not in NEVER_NAMED:
            for span in lines_of(head.raw, head.start, option):
                head.cut(*span)


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
