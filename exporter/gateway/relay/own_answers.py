"""Answers of the gateway's own: refusals in OpenAI's error JSON, the event that ends a broken stream, small whole answers."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final

import msgspec

from exporter.gateway.model import Refusal

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


def whole_answer(
    status: int,
    body: bytes,
    *,
    extra: bytes = b"",
    content_type: bytes = b"application/json",
    with_body: bool = True,
) -> bytes:
    """Head and body of an answer; `with_body=False` leaves the body out, for HEAD, but tells its length."""
    head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n" % (
        status,
        _PHRASES.get(status, b"Unknown"),
        content_type,
        len(body),
        extra,
    )
    return head + body if with_body else head


def error_json(refusal: Refusal) -> bytes:
    """OpenAI's error object, as its clients parse it."""
    return msgspec.json.encode(
        {"error": {"message": refusal.message, "type": refusal.kind, "param": None, "code": refusal.code}}
    )


def refusal_answer(refusal: Refusal, *, extra: bytes = b"", with_body: bool = True) -> bytes:
    """The whole answer that turns a request away; `Retry-After` in whole seconds, rounded up, at least one."""
    if refusal.retry_after is not None:
        extra += b"Retry-After: %d\r\n" % max(1, math.ceil(refusal.retry_after))
    if refusal.status == 401:
        extra += b"WWW-Authenticate: Bearer\r\n"
    if refusal.allow:
        extra += b"Allow: %b\r\n" % ", ".join(sorted(refusal.allow)).encode()
    return whole_answer(refusal.status, error_json(refusal), extra=extra, with_body=with_body)


def error_event(refusal: Refusal) -> bytes:
    """The event that tells the reader of a stream why it ends here, as vLLM itself words errors in mid-stream."""
    return b"data: %b\n\n" % error_json(refusal)


def chunk(data: bytes) -> bytes:
    """`data` as one chunk of chunked coding; nothing for nothing, because an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
