"""What the short way accepts, the general parser reads the same way: no request means two things."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.web.head import read_head

NAMES = st.sampled_from(
    ["Host", "host", "Accept", "ACCEPT", "Accept-Encoding", "Authorization", "Connection", "X-A", "Content-Length",
     "Transfer-Encoding", "X_b", "Accept ", " Accept", "", "A:b", "Proxy-Connection", "Keep-Alive"]
)  # fmt: skip
VALUES = st.sampled_from(
    ["a", "", " ", "close", "keep-alive", "Close", "close, keep-alive", "gzip", "text/plain;q=0.5", "\t x \t", "0",
     "chunked", "a\r\n b", "a\nb", "a\rb", "é", "\x00", "\x7f", "Bearer x", "upgrade"]
)  # fmt: skip
LINES = st.sampled_from(
    ["GET /metrics HTTP/1.1", "GET /metrics/prometheus HTTP/1.1", "GET /metrics HTTP/1.0", "GET /metrics HTTP/1.1 ",
     "GET /metrics  HTTP/1.1", "POST /metrics HTTP/1.1", "GET /metrics/ HTTP/1.1", "GET /metrics"]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(line=LINES, fields=st.lists(st.tuples(NAMES, VALUES), max_size=5), first=st.booleans())
@example(line="GET /metrics HTTP/1.1", fields=[("Accept", "a"), ("Accept", "b")], first=True)
@example(line="GET /metrics HTTP/1.1", fields=[("Host", "a"), ("Proxy-Connection", "close")], first=False)
def test_a_head_accepted_here_reads_the_same_there(
    line: str, fields: list[tuple[str, str]], first: bool
) -> None:
    fields = [("Host", "a"), *fields] if first else fields
    raw = "\r\n".join([line, *(f"{name}: {value}" for name, value in fields)]).encode() + b"\r\n\r\n"
    head = read_head(raw)
    if head is None:
        return
    message = _general(raw)
    assert message.method == "GET"
    assert message.path == head.path
    assert message.should_close is head.close
    for name, value in (
        ("Accept", head.accept),
        ("Accept-Encoding", head.accept_encoding),
        ("Authorization", head.authorization),
    ):
        there = message.headers.getall(name, None)
        assert value == (None if there is None else ", ".join(there))


def _general(raw: bytes) -> Any:
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16)
        messages, upgraded, tail = parser.feed_data(raw)
    finally:
        loop.close()
    assert len(messages) == 1
    assert not upgraded
    assert tail == b""
    return messages[0][0]
