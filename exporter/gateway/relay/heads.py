"""A request's head: policed by llhttp, then passed on line by line as it came, less what is meant for one hop.

Most lines of most heads mean nothing to a proxy, and have been seen before: those are told by one look into a set. llhttp polices
what is left, the request line, new lines, and those that say how the message is framed; a line that it has let pass once, and that
means nothing here, cannot change its mind about another head. What it has let pass has no bare CR or LF and no space before a colon.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from exporter.gateway.model import Endpoint, Refusal
from exporter.gateway.relay.lines import HEAD_END, NOBODY, around, name_of, recognise
from exporter.gateway.relay.notes import NOTES
from exporter.gateway.relay.refusals import BadHeadError, bad_request

MAX_FIELDS: Final = 128
"""Header fields in a request; real clients send some twenty. Apache's limit is 100, nginx has one on bytes only."""

_ABSOLUTE: Final = re.compile(rb"(?i)https?://([^/?#@]+)((?:[/?][^#]*)?)")
_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))


class RequestHead:
    """A request's head, as far as a proxy has to know it."""

    __slots__ = (
        "_around_onward",
        "_first",
        "_id_at",
        "_length_at",
        "_only_length",
        "_rest",
        "absolute",
        "api_key",
        "authorization",
        "chunked",
        "credentials",
        "dropped",
        "expect",
        "forwarded_for",
        "forwarded_proto",
        "found",
        "host",
        "keep_alive",
        "length",
        "length_line",
        "lines",
        "method",
        "modern",
        "named",
        "onward",
        "priority",
        "raw",
        "request_id",
        "target",
        "varying",
    )

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        """The head with its empty line, as it came first."""
        self.lines: list[bytes] = []
        """The header lines that go on, in their order."""
        self.method = ""
        self.target = ""
        """In origin form, with the query."""
        self.found: Endpoint | Refusal | None = None
        """Where it leads, once that was looked up."""
        self.onward: bytes | None = None
        """What goes on to an engine of it and for it, but for the lines that change from request to request."""
        self.modern = True
        """HTTP/1.1."""
        self.keep_alive = True
        self.length: int | None = None
        """`Content-Length`; None without one."""
        self.length_line: bytes | None = None
        self.chunked = False
        self.expect = False
        self.host: bytes | None = None
        self.absolute: bytes | None = None
        """The authority of a target in absolute form, which overrules `Host` (RFC 9112 3.2.2)."""
        self.authorization: bytes | None = None
        self.api_key: bytes | None = None
        self.credentials: list[bytes] | None = None
        """The lines of both."""
        self.request_id: bytes | None = None
        self.forwarded_for: bytes | None = None
        self.forwarded_proto = False
        self.priority: bytes | None = None
        self.dropped: list[bytes] = []
        """Lines that do not go on."""
        self.named: set[bytes] | None = None
        """Headers that `Connection` names, which do not go on either."""
        self.varying: list[bytes] = []
        """Lines that go on and will have another value next time."""
        self._first = b""
        self._rest: tuple[bytes, ...] = ()
        self._length_at: int | None = None
        self._only_length = False
        """Whether that is all that varies."""
        self._id_at: int | None = None
        self._around_onward: tuple[bytes, tuple[bytes, ...]] | None = None

    def expect_again(self) -> None:
        """Keep what is needed to tell the head when it comes again."""
        varying = self.varying
        if len(varying) > 1 and len({name_of(line) for line in varying}) < len(varying):
            return
        lines = varying
        if self.length_line is not None:
            lines = [*varying, self.length_line]
            if varying:
                lines.sort(key=lambda line: self.raw.index(b"\r\n%b\r\n" % line))
            self._length_at = lines.index(self.length_line)
        for at, line in enumerate(varying):
            if name_of(line) == b"x-request-id":
                self._id_at = at
        self._first, self._rest = around(self.raw, lines)
        self._only_length = not varying and len(self._rest) == 1

    def again(self, data: bytes) -> int:
        """Where this head ends in `data`, if that begins with it, with other values maybe, which are noted; 0 if it does not."""
        first = self._first
        if self._only_length:
            # As most come: nothing but the length varies.
            if not data.startswith(first):
                return 0
            at = len(first)
            line_end = data.find(b"\r", at, at + 17)
            after = self._rest[0]
            if line_end > at and data.startswith(after, line_end):
                digits = data[at:line_end]
                if digits.isdigit():
                    self.length = int(digits)
                    return line_end + len(after)
            return 0
        end, values, length = recognise(data, first, self._rest, self._length_at)
        if end:
            if length is not None:
                self.length = length
            if values and not self._vary(values):
                return 0
        return end

    def _vary(self, values: list[bytes]) -> bool:
        """Have these values go on."""
        pieces = self._around_onward
        if pieces is None:
            if self.onward is None:
                return False
            pieces = self._around_onward = around(self.onward, self.varying)
        if self._id_at is not None:
            self.request_id = values[self._id_at]
        first, rest = pieces
        self.onward = first + b"".join(map(bytes.__add__, values, rest))
        return True


def read_request_head(raw: bytes) -> RequestHead:
    """Find what matters in a whole head; raises `BadHeadError` for one that no proxy may pass on."""
    head = RequestHead(raw)
    start = raw.find(b"\r\n")
    lines = head.lines = raw[start + 2 : -4].split(b"\r\n") if start < len(raw) - 4 else []
    telling = [line for line in lines if line not in _meaningless]
    try:
        httptools.HttpRequestParser(NOBODY).feed_data(b"\r\n".join((raw[:start], *telling)) + HEAD_END)
    except httptools.HttpParserUpgrade:
        pass  # Nothing is upgraded: it is answered like any other request.
    except httptools.HttpParserError as error:
        raise BadHeadError(bad_request(f"The request's head is not valid HTTP: {error}.")) from None
    _read_request_line(head, raw[:start])
    for line in telling:
        name, _, value = line.partition(b":")
        name = name.lower()
        note = NOTES.get(name)
        if note is not None:
            note(head, line, value.strip(b" \t"))
        elif name[:6] == b"proxy-":
            head.dropped.append(line)
        else:
            _remember(line)
    if head.host is None and head.modern:
        raise BadHeadError(bad_request("The request has no Host header."))
    if head.chunked and not head.modern:
        raise BadHeadError(bad_request("HTTP/1.0 has no Transfer-Encoding."))
    if not head.chunked and not head.expect and head.named is None:
        head.expect_again()
    for line in head.dropped:
        lines.remove(line)
    if head.named is not None:
        head.lines = [line for line in lines if name_of(line) not in head.named]
    return head


def _read_request_line(head: RequestHead, line: bytes) -> None:
    try:
        method, target, version = line.split(b" ")
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


def _origin_form(head: RequestHead, method: bytes, target: bytes) -> bytes:
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is not None:
        head.absolute = absolute[1]
        path = absolute[2]
        return path if path[:1] == b"/" else b"/" + path
    if target == b"*" and method == b"OPTIONS":
        return target
    raise BadHeadError(bad_request("The request target is neither a path nor http://host/path."))


# Lines that mean nothing here

_MOST_REMEMBERED: Final = 4096
_LONGEST_REMEMBERED: Final = 512
_meaningless: Final[set[bytes]] = set()
"""Lines of clients' heads that llhttp has let pass and no proxy cares about. At most 2 MiB; where clients send ever new ones it is
filled anew, and they pay for it with some microseconds."""


def _remember(line: bytes) -> None:
    if line[:1] in b" \t":
        raise BadHeadError(bad_request("A line of the request's head is folded."))
    if len(line) <= _LONGEST_REMEMBERED:
        if len(_meaningless) >= _MOST_REMEMBERED:
            _meaningless.clear()
        _meaningless.add(line)


def onward_head(head: RequestHead, forwarded: bytes, *, own_credentials: bool) -> bytes:
    """What goes to an engine of a head, without its end: no length, for that is ours to tell, and none of the lines for one hop.

    `forwarded`: the lines about who asks. `own_credentials`: clients' keys end here, and the engine has its own.
    """
    lines = head.lines
    if own_credentials and head.credentials is not None:
        lines = [line for line in lines if line not in head.credentials]
    request_line = b"%b %b HTTP/1.1" % (head.method.encode(), head.target.encode("latin-1"))
    if head.absolute is not None:
        forwarded += b"Host: %b\r\n" % head.absolute
    elif head.host is None:
        forwarded += b"Host: localhost\r\n"
    return b"\r\n".join((request_line, *lines, forwarded))
