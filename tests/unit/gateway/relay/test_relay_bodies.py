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


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"2\r\n{}\r\n0\r\nX: ", b"a" * 1000),
        (b"2\r\n{}\r\n0\r\n", b"X: a\r\n" * 100),
        (b"2;a=", b"a" * 1000),
        (b"1;", b"a" * 1000 + b"\r\n \r\n1;"),
    ],
    ids=["one trailer", "trailers", "one extension", "extensions"],
)
def test_what_comes_around_chunks_is_bounded(start: bytes, more: bytes) -> None:
    body = ChunkedBody()
    body.feed(start)
    with pytest.raises(httptools.HttpParserError):
        for _ in range(1000):
            body.feed(more)


def test_small_chunks_may_be_as_many_as_they_like() -> None:
    body = ChunkedBody()
    for _ in range(200):
        assert len(body.feed(b"00000001\r\nx\r\n" * 1000)) == 1000
    body.feed(b"0\r\n\r\n")
    assert body.complete


def test_what_must_not_stand_in_trailers_does_not_go_on() -> None:
    body = ChunkedBody()
    body.feed(
        chunked(
            [b"a"],
            b"Authorization: x\r\nX-Sum: 1\r\nhost: g\r\nX-Forwarded-For: a\r\nProxy-A: 1\r\n",
        )
    )
    assert body.trailers == b"X-Sum: 1\r\n"
