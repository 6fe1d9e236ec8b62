from __future__ import annotations

import pytest

from exporter.web.head import read_head

PLAIN = (
    b"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: text/plain;version=0.0.4\r\nAccept-Encoding: gzip\r\n\r\n"
)


def test_a_plain_scrape_is_read() -> None:
    head = read_head(PLAIN)
    assert head is not None
    assert (head.path, head.close, head.accept, head.accept_encoding, head.authorization) == (
        "/metrics", False, "text/plain;version=0.0.4", "gzip", None,
    )  # fmt: skip


def test_the_alias_is_read_with_its_own_path() -> None:
    head = read_head(PLAIN.replace(b"/metrics", b"/metrics/prometheus"))
    assert head is not None
    assert head.path == "/metrics/prometheus"


def test_repeated_accept_fields_are_one_list() -> None:
    head = read_head(PLAIN.replace(b"\r\n\r\n", b"\r\naccept: application/openmetrics-text\r\n\r\n"))
    assert head is not None
    assert head.accept == "text/plain;version=0.0.4, application/openmetrics-text"


@pytest.mark.parametrize(
    ("connection", "close"), [(b"close", True), (b"Keep-Alive", False), (b"CLOSE", True)]
)
def test_connection_says_whether_the_client_stays(connection: bytes, close: bool) -> None:
    head = read_head(PLAIN.replace(b"\r\n\r\n", b"\r\nConnection: " + connection + b"\r\n\r\n"))
    assert head is not None
    assert head.close is close


@pytest.mark.parametrize(
    "head",
    [
        PLAIN[:-2],
        PLAIN.replace(b"GET", b"HEAD"),
        PLAIN.replace(b"GET", b"get"),
        PLAIN.replace(b"1.1", b"1.0"),
        PLAIN.replace(b"/metrics", b"/metrics?name=up"),
        PLAIN.replace(b"/metrics", b"http://a/metrics"),
        PLAIN.replace(b"/metrics", b"/metrics/"),
        PLAIN.replace(b"GET /metrics", b"GET  /metrics"),
        PLAIN.replace(b"Host: a\r\n", b""),
        PLAIN.replace(b"Host: a", b"Host:"),
        PLAIN.replace(b"Host: a", b"Host: a\r\nHost: b"),
        PLAIN.replace(b"Host: a", b"Host : a"),
        PLAIN.replace(b"Host: a", b"Host: a\r\n folded: b"),
        PLAIN.replace(b"Host: a", b"Host: a\nX: b"),
        PLAIN.replace(b"Host: a", b"Host: a\x00"),
        PLAIN.replace(b"Host: a", b"Host: \xff"),
        PLAIN.replace(b"Host: a", b"Host: a\r\nContent-Length: 3"),
        PLAIN.replace(b"Host: a", b"Host: a\r\ntransfer-encoding: chunked"),
        PLAIN.replace(b"Host: a", b"Host: a\r\nExpect: 100-continue"),
        PLAIN.replace(b"Host: a", b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket"),
        PLAIN.replace(b"Host: a", b"Host: a\r\nAuthorization: Bearer x\r\nAuthorization: Bearer y"),
        PLAIN.replace(b"Host: a", b"Host: a\r\n" + b"X: y\r\n" * 100 + b"Z: z"),
        PLAIN.replace(b"Host: a", b"Host: a\r\nX: " + b"y" * 9000),
        b"\r\n\r\n",
        b"\r\n" + PLAIN,
    ],
)
def test_whatever_is_unusual_is_left_to_the_general_parser(head: bytes) -> None:
    assert read_head(head) is None
