from __future__ import annotations

import pytest

from exporter.exposition.block import Block
from exporter.exposition.model import Family
from exporter.exposition.page import Format, Page, negotiate
from exporter.web.snapshot import SNAPSHOT_SECONDS, Snapshot

FAMILY = Family("moments_total", "counter", "Moments.")


class Moments:
    def __init__(self) -> None:
        self.now = 1000.0
        self.taken = 0
        self.block = Block()
        self.snapshot = Snapshot(
            Page([self.block]), self.refresh, monotonic=lambda: self.now, wall=lambda: 1e9 + self.now
        )

    def refresh(self) -> None:
        self.taken += 1
        self.block.counter(FAMILY).set(self.taken)


def shape(accept: str = "*/*", encoding: str = "") -> Format:
    return negotiate(accept, encoding)


def test_scrapes_within_a_moment_share_it() -> None:
    moments = Moments()
    first = moments.snapshot.wire(shape(), close=False)
    assert moments.snapshot.wire(shape(), close=False) is first
    moments.now += SNAPSHOT_SECONDS
    assert b"moments_total 2\n" in moments.snapshot.wire(shape(), close=False)
    assert moments.taken == 2


def test_a_change_between_two_moments_is_seen_at_once() -> None:
    moments = Moments()
    moments.snapshot.wire(shape(), close=False)
    moments.block.counter(FAMILY).set(50)
    assert b"moments_total 50\n" in moments.snapshot.wire(shape(), close=False)


def test_the_answer_is_whole_and_tells_its_length_and_date() -> None:
    moments = Moments()
    head, _, body = moments.snapshot.wire(shape(), close=True).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    assert f"Content-Length: {len(body)}" in lines
    assert "Connection: close" in lines
    assert "Date: Sun, 09 Sep 2001 02:03:20 GMT" in lines
    assert "Vary: Accept, Accept-Encoding" in lines


def test_formats_do_not_mix() -> None:
    moments = Moments()
    plain = moments.snapshot.wire(shape(), close=False)
    openmetrics = moments.snapshot.wire(shape("application/openmetrics-text"), close=False)
    packed = moments.snapshot.wire(shape(encoding="gzip"), close=False)
    assert b"# EOF" not in plain
    assert openmetrics.endswith(b"# EOF\n")
    assert b"Content-Encoding: gzip" in packed
    assert b"Content-Encoding" not in plain


def test_no_page_rather_than_an_old_one() -> None:
    moments = Moments()

    def broken() -> None:
        raise RuntimeError("the GPU thread is gone")

    snapshot = Snapshot(Page([moments.block]), broken)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            snapshot.wire(shape(), close=False)
