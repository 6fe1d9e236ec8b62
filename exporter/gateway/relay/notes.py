"""The header lines of a request that mean something to a proxy: what each of them notes in the head."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from exporter.gateway.relay.lines import NEVER_NAMED, number
from exporter.gateway.relay.refusals import BadHeadError, bad_request

if TYPE_CHECKING:
    from exporter.gateway.relay.heads import RequestHead

_MAX_OPTIONS: Final = 32
"""Options of `Connection`; real clients send one."""
_PRINTABLE: Final = bytes(range(0x20, 0x7F))


def _host(head: RequestHead, line: bytes, value: bytes) -> None:
    if head.host is not None:
        raise BadHeadError(bad_request("The request has more than one Host header."))
    head.host = value
    if head.absolute is not None:
        head.dropped.append(line)


def _content_length(head: RequestHead, line: bytes, value: bytes) -> None:
    head.length = number(value)
    if head.length is None:
        raise BadHeadError(bad_request("The request's Content-Length is no number, or none that can be."))
    head.length_line = line
    head.dropped.append(line)


def _connection(head: RequestHead, line: bytes, value: bytes) -> None:
    head.dropped.append(line)
    options = {option.strip(b" \t") for option in value.lower().split(b",", _MAX_OPTIONS)}
    if len(options) > _MAX_OPTIONS:
        raise BadHeadError(bad_request("The request's Connection header has too many options."))
    if b"close" in options:
        head.keep_alive = False
    elif b"keep-alive" in options and not head.modern:
        head.keep_alive = True
    named = options - NEVER_NAMED
    if named:
        head.named = named if head.named is None else head.named | named


def _transfer_encoding(head: RequestHead, line: bytes, value: bytes) -> None:
    if value.lower() != b"chunked" or head.chunked:
        raise BadHeadError(
            bad_request(
                "Only chunked is understood as Transfer-Encoding.", status=501, code="transfer_encoding"
            )
        )
    head.chunked = True
    head.dropped.append(line)


def _expect(head: RequestHead, line: bytes, value: bytes) -> None:
    if value.lower() != b"100-continue":
        raise BadHeadError(bad_request("Only 100-continue can be expected.", status=417, code="expectation"))
    head.expect = head.modern
    head.dropped.append(line)


def _one_hop(head: RequestHead, line: bytes, value: bytes) -> None:
    head.dropped.append(line)


def _authorization(head: RequestHead, line: bytes, value: bytes) -> None:
    head.authorization = value
    head.credentials = [*(head.credentials or ()), line]


def _api_key(head: RequestHead, line: bytes, value: bytes) -> None:
    head.api_key = value
    head.credentials = [*(head.credentials or ()), line]


def _request_id(head: RequestHead, line: bytes, value: bytes) -> None:
    if head.request_id is not None or not value or value.translate(None, _PRINTABLE):
        head.dropped.append(line)  # no name, a second one, or one that would do things to a terminal
    else:
        head.request_id = value
        head.varying.append(line)


def _forwarded_for(head: RequestHead, line: bytes, value: bytes) -> None:
    head.forwarded_for = value if head.forwarded_for is None else head.forwarded_for + b", " + value
    head.dropped.append(line)


def _forwarded_proto(head: RequestHead, line: bytes, value: bytes) -> None:
    head.forwarded_proto = True


def _priority(head: RequestHead, line: bytes, value: bytes) -> None:
    head.priority = value.lower()


def _varying(head: RequestHead, line: bytes, value: bytes) -> None:
    head.varying.append(line)


NOTES: Final[dict[bytes, Callable[[RequestHead, bytes, bytes], None]]] = {
    b"host": _host,
    b"content-length": _content_length,
    b"transfer-encoding": _transfer_encoding,
    b"expect": _expect,
    b"connection": _connection,
    # between two neighbours, RFC 9110 7.6.1
    b"keep-alive": _one_hop,
    b"te": _one_hop,
    b"trailer": _one_hop,
    b"upgrade": _one_hop,
    b"http2-settings": _one_hop,
    b"authorization": _authorization,
    b"x-api-key": _api_key,
    b"x-forwarded-for": _forwarded_for,
    b"x-forwarded-proto": _forwarded_proto,
    b"x-priority": _priority,
    b"x-request-id": _request_id,
    # names of a trace or a request, another one each time
    b"traceparent": _varying,
    b"tracestate": _varying,
    b"b3": _varying,
    b"x-b3-traceid": _varying,
    b"x-b3-spanid": _varying,
    b"x-b3-parentspanid": _varying,
    b"x-correlation-id": _varying,
    b"x-amzn-trace-id": _varying,
    b"x-cloud-trace-context": _varying,
    b"x-datadog-trace-id": _varying,
    b"x-datadog-parent-id": _varying,
    b"sentry-trace": _varying,
    b"uber-trace-id": _varying,
    b"idempotency-key": _varying,
}
