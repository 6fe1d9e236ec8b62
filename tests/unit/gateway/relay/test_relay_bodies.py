"""Bodies: the same whatever pieces they come in."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.gateway.relay.bodies import ChunkedBody, SizedBody


def chunked(pieces: list[bytes], trailers: bytes = b"") -> bytes:
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]
    return b"".join(chunks) + b"0\r\n" + trailers + b"\r\n"


@given(st.binary(max_size=50), st.binary(max_size=20), st.integers(1, 9))
def test_a_body_of_known_length_ends_where_it_ends(content: bytes, after: bytes, step: int) -> None:
    body = SizedBody(len(content))
    data = content + after
    got, at = b"", 0
    while at < len(data) and not body.complete:
        got += body.feed(data[at : at + step])
        at += step
    assert body.complete
    assert got == content
    assert body.ahead == data[len(content) : at]


@given(st.lists(st.binary(max_size=20), max_size=5), st.integers(1, 40))
def test_chunks_are_undone_however_they_are_split(pieces: list[bytes], step: int) -> None:
    data = chunked(pieces, b"X-Sum: 1\r\nY: 2\r\n")
    body = ChunkedBody()
    got = b""
    for at in range(0, len(data), step):
        assert not body.complete
        got += body.feed(data[at : at + step])
    assert body.complete
    assert not body.overrun
    assert got == b"".join(pieces)
    assert body.trailers == b"X-Sum: 1\r\nY: 2\r\n"


@pytest.mark.parametrize(
    "after", [b"GET / HTTP/1.1\r\n\r\n", b"garbage", b"0", b"\x00", b"\r\nHTTP/1.1 200 OK"]
)
def test_bytes_after_the_last_chunk_are_noticed(after: bytes) -> None:
    body = ChunkedBody()
    assert body.feed(chunked([b"abc"]) + after) == b"abc"
    assert body.complete
    assert body.overrun


@pytest.mark.parametrize(
    "data",
    [b"g\r\n", b"+1\r\na\r\n", b"0x1\r\na\r\n", b"1 \r\na\r\n", b"1\na\n", b"1\r\nab\r\n", b"1;a\nb\r\na\r\n",
     b"-1\r\n", b"fffffffffffffffff\r\n", b"\r\n", b"1\r\na\n0\r\n\r\n", b"0\r\nBad Name: x\r\n\r\n"],
)  # fmt: skip
def test_bad_chunks_are_refused(data: bytes) -> None:
    with pytest.raises(httptools.HttpParserError):
        ChunkedBody().feed(data)
