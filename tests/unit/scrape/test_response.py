"""Responses in every way of arriving, and the wrong ones."""

from __future__ import annotations

import gzip

import pytest
from yarl import URL

from exporter.errors import ScrapeError
from exporter.scrape.page import FetchedPage
from exporter.scrape.response import HEAD_LIMIT, Response

PAGE = b"a 1\nb 2\n"
URL_OF_PAGE = URL("http://127.0.0.1:8000/metrics")


def answer(body: bytes, *fields: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *fields]).encode() + b"\r\n\r\n" + body


def chunked(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def read(*pieces: bytes, limit: int = 1000, end: bool = False) -> Response:
    response = Response(URL_OF_PAGE, limit)
    for piece in pieces:
        response.feed(piece)
    if end:
        response.end()
    return response


WHOLE = [
    answer(PAGE, "Content-Length: 8", "Content-Type: application/openmetrics-text; version=1.0.0"),
    answer(chunked(PAGE, 3), "Content-Type:application/OpenMetrics-text", "transfer-encoding: Chunked "),
    answer(b"0008 ; a=b\r\n" + PAGE + b"\r\n000\r\nA: b\r\nC: d\r\n\r\n", "Transfer-Encoding: chunked"),
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100\r\n\r\n" + answer(PAGE, "Content-Length: 8"),
    answer(gzip.compress(PAGE, mtime=0), "Content-Length: 28", "Content-Encoding: gzip"),
]


@pytest.mark.parametrize("whole", WHOLE)
def test_a_response_may_be_split_at_every_byte(whole: bytes):
    for cut in range(1, len(whole)):
        early = read(whole[:cut])
        assert not early.complete
        early.feed(whole[cut:])
        assert early.complete
        assert early.reusable
        assert early.page() == FetchedPage(PAGE, b"openmetrics" in whole.lower())
    assert read(*[bytes([byte]) for byte in whole]).page().body == PAGE


@pytest.mark.parametrize("whole", WHOLE)
def test_a_response_that_ends_early_is_an_error_wherever_it_ends(whole: bytes):
    for cut in range(len(whole)):
        with pytest.raises(ScrapeError, match="closed before") as caught:
            read(whole[:cut], end=True)
        assert caught.value.reason == "protocol"


@pytest.mark.parametrize("whole", WHOLE)
def test_what_follows_a_response_makes_the_connection_useless_and_not_the_page(whole: bytes):
    response = read(whole + b"H")
    assert response.complete
    assert not response.reusable
    assert response.page().body == PAGE


def test_a_body_without_a_length_ends_with_the_connection():
    response = read(answer(PAGE))
    assert not response.complete
    response.end()
    assert response.complete
    assert not response.reusable
    assert response.page().body == PAGE


@pytest.mark.parametrize(
    ("version", "wish", "reusable"),
    [
        ("1.1", "keep-alive", True),
        ("1.1", "X, Close", False),
        ("1.0", "Keep-Alive", True),
        ("1.0", "", False),
    ],
)
def test_a_connection_is_kept_when_both_want_it(version: str, wish: str, reusable: bool):
    fields = ("Content-Length: 8", f"Connection: {wish}")
    assert read(answer(PAGE, *fields, status=f"HTTP/{version} 200 OK")).reusable is reusable


@pytest.mark.parametrize(
    "text",
    [
        b"SSH-2.0-OpenSSH",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n folded\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno field\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * HEAD_LIMIT,
        b"HTTP/1.1 100 Continue\r\n\r\n" * HEAD_LIMIT,
        *[
            answer(b"", *fields)
            for fields in (
                ("Content-Length: 8", "Content-Length: 8"),
                ("Content-Length: 8, 8",),
                ("Content-Length: +8",),
                ("Content-Length: 0x8",),
                ("Content-Length: ",),
                ("Content-Length: 8", "Transfer-Encoding: chunked"),
                ("Transfer-Encoding: gzip, chunked",),
                ("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
                ("Transfer-Encoding: ",),
            )
        ],
        *[
            answer(body, "Transfer-Encoding: chunked")
            for body in (
                b"-1\r\n",
                b"0x4\r\n",
                b" 4\r\n",
                b"\r\n",
                b"4\n",
                b"4\na 1\n\r\n",
                b"4\r\na 1\n5\r\n",
                b"f" * 16 + b"\r\n",
                b"4;" + b"x" * 2000,
                b"0\r\n" + b"A: b\r\n" * HEAD_LIMIT,
            )
        ],
    ],
)
def test_what_could_be_understood_in_two_ways_is_not_understood_at_all(text: bytes):
    with pytest.raises(ScrapeError, match=r"127\.0\.0\.1:8000") as caught:
        read(text, end=True)
    assert caught.value.reason == "protocol"
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "start",
    [
        answer(b"", "Content-Length: 1001"),
        answer(b"x" * 1001),
        answer(chunked(b"x" * 1001, 7), "Transfer-Encoding: chunked"),
        answer(gzip.compress(b"x" * 1001), "Content-Encoding: gzip"),
    ],
)
def test_the_limit_holds_as_soon_as_it_is_passed(start: bytes):
    with pytest.raises(ScrapeError) as caught:
        read(start)
    assert caught.value.reason == "body_limit"


def test_a_body_of_just_the_limit_is_no_error():
    assert len(read(answer(b"x" * 1000, "Content-Length: 1000")).page().body) == 1000


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (answer(b"", "Location: http://169.254.169.254/", status="HTTP/1.1 302 Found"), "redirect"),
        (answer(b"", status="HTTP/1.1 101 Switching Protocols"), "status"),
        (answer(b"", status="HTTP/1.1 503 Service Unavailable"), "status"),
        (answer(b"", "Content-Type: text/html"), "content_type"),
        (answer(b"", "Content-Encoding: br"), "encoding"),
        (answer(b"", "Content-Encoding: gzip", "Content-Encoding: gzip"), "encoding"),
    ],
)
def test_a_head_tells_at_once_that_there_is_no_page(text: bytes, reason: str):
    with pytest.raises(ScrapeError) as caught:
        read(text)
    assert caught.value.reason == reason
