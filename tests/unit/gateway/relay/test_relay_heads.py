"""Heads: what is found in them, what goes on, and how one that comes again is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.gateway.relay.answer_heads import answer_head, read_answer_head
from exporter.gateway.relay.heads import BadHeadError, onward_head, read_request_head
from exporter.gateway.relay.lines import cut_out, recognise

FORWARDED = b"X-Forwarded-For: 10.0.0.1\r\n"


def head(*lines: str, first: str = "POST /v1/completions HTTP/1.1", host: bool = True) -> bytes:
    return "\r\n".join([first, *(["Host: g"] if host else []), *lines, "", ""]).encode("latin-1")


def onward(raw: bytes, *, own_credentials: bool = False) -> bytes:
    return onward_head(read_request_head(raw), FORWARDED, own_credentials=own_credentials)


def test_lines_go_on_in_their_order_and_case_without_those_for_one_hop() -> None:
    raw = head(
        "A: 1", "connection: X-B , close", "x-b: 2", "X-b: 3", "C:4", "Content-Length: 5", "Te: x", "D:   6  "
    )
    assert onward(raw) == (
        b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nA: 1\r\nC:4\r\nD:   6  \r\nX-Forwarded-For: 10.0.0.1\r\n"
    )


def test_connection_cannot_take_out_what_the_request_means() -> None:
    raw = head(
        "Connection: host, content-length, authorization", "Authorization: Bearer x", "Content-Length: 0"
    )
    assert b"\r\nHost: g\r\n" in onward(raw)
    assert read_request_head(raw).length == 0


def test_credentials_of_clients_do_not_go_on_where_they_are_checked_here() -> None:
    raw = head("Authorization: Bearer sk", "A: 1", "X-Api-Key: sk")
    assert (
        onward(raw, own_credentials=True)
        == b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nA: 1\r\n" + FORWARDED
    )
    assert b"Bearer sk" in onward(raw)


def test_credentials_do_not_come_back_when_the_client_names_them_for_one_hop() -> None:
    raw = head("Authorization: Bearer sk", "Connection: authorization")
    assert b"sk" not in onward(raw, own_credentials=True)


def test_the_absolute_form_becomes_the_origin_form() -> None:
    assert onward(head("A: 1", first="GET HTTP://h:1/p?q HTTP/1.1")) == (
        b"GET /p?q HTTP/1.1\r\nA: 1\r\nX-Forwarded-For: 10.0.0.1\r\nHost: h:1\r\n"
    )
    assert read_request_head(head(first="GET http://h HTTP/1.1")).target == "/"
    assert read_request_head(head(first="GET http://h?q HTTP/1.1")).target == "/?q"
    for target in ("http://u@h/", "http:///x", "https:h/", "//h/x#y", "x"):
        with pytest.raises(BadHeadError):
            read_request_head(head(first=f"GET {target} HTTP/1.1"))


def test_http_1_0_goes_on_as_1_1_with_a_host() -> None:
    raw = head(first="GET /p HTTP/1.0", host=False)
    assert onward(raw) == b"GET /p HTTP/1.1\r\nX-Forwarded-For: 10.0.0.1\r\nHost: localhost\r\n"
    assert not read_request_head(raw).keep_alive
    assert read_request_head(head("Connection: Keep-Alive", first="GET /p HTTP/1.0")).keep_alive
    assert not read_request_head(head("Connection: close, keep-alive", first="GET /p HTTP/1.0")).keep_alive


@given(
    lengths=st.lists(st.integers(0, 10**12), min_size=2, max_size=4),
    after=st.sampled_from(["", "A: 1", "Accept: */*"]),
)
def test_a_head_that_comes_again_is_recognised_with_its_length(lengths: list[int], after: str) -> None:
    lines = [after] if after else []
    known = read_request_head(head(f"Content-Length: {lengths[0]}", *lines))
    for length in lengths[1:]:
        raw = head(f"Content-Length: {length}", *lines)
        assert recognise(raw + b"body", known.before, known.after) == (len(raw), length)


@given(
    known=st.sampled_from(["Content-Length: 12", "Content-Length: 12 ", "A: 1", "Transfer-Encoding: chunked", "Expect: 100-continue"]),
    cut=st.integers(0, 60),
    insert=st.sampled_from([b"", b"0", b"+", b" ", b"\r\n", b"\r\nContent-Length: 1", b"_", b"\xb2", b"9" * 20]),
)  # fmt: skip
def test_what_is_recognised_is_what_would_have_been_read(known: str, cut: int, insert: bytes) -> None:
    first = head(known)
    read = read_request_head(first)
    other = first[: len(first) - cut] + insert + first[len(first) - cut :]
    end, length = recognise(other, read.before, read.after)
    if end:
        assert read_request_head(other[:end]).length == length
        assert other[:end].endswith(b"\r\n\r\n")
        assert other[:end].count(b"\r\n\r\n") == 1


def test_heads_that_announce_a_body_in_another_way_are_read_each_time() -> None:
    for line in ("Transfer-Encoding: chunked", "Expect: 100-continue"):
        assert read_request_head(head(line)).before == b""
    assert recognise(b"", b"", b"") == (0, None)


@given(st.binary(max_size=60), st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=4))
def test_spans_are_cut_out_however_they_overlap(raw: bytes, spans: list[tuple[int, int]]) -> None:
    spans = [(min(span), max(span)) for span in spans]
    kept = [byte for at, byte in enumerate(raw) if not any(start <= at < end for start, end in spans)]
    assert cut_out(raw, 0, len(raw), list(spans)) == bytes(kept)


def answered(raw: bytes, *, chunked: bool) -> bytes:
    return answer_head(read_answer_head(raw), raw, chunked=chunked, extra=b"X: y\r\n")


def test_an_answers_lines_come_back_as_they_are() -> None:
    raw = b"HTTP/1.1 200 Fine\r\nDate: x\r\nContent-Length: 3\r\n\r\n"
    assert (
        answered(raw, chunked=False) == b"HTTP/1.1 200 Fine\r\nDate: x\r\nContent-Length: 3\r\nX: y\r\n\r\n"
    )


def test_an_answers_framing_is_told_as_it_goes_out() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: 1\r\n\r\n"
    assert answered(raw, chunked=False) == b"HTTP/1.1 200 OK\r\nA: 1\r\nX: y\r\n\r\n"
    assert answered(raw, chunked=True) == raw[:-2] + b"X: y\r\n\r\n"
    old = b"HTTP/1.0 200 OK\r\nA: 1\r\nConnection: keep-alive\r\n\r\n"
    assert (
        answered(old, chunked=True)
        == b"HTTP/1.1 200 OK\r\nA: 1\r\nX: y\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert read_answer_head(old).keep_alive


def test_what_an_answer_is_can_be_told_from_its_head() -> None:
    stream = read_answer_head(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n")
    assert stream.event_stream
    assert not stream.json
    zipped = read_answer_head(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n\r\n"
    )
    assert zipped.json
    assert zipped.encoded
    assert read_answer_head(b"HTTP/1.1 204 No Content\r\n\r\n").bodiless
    assert not read_answer_head(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").keep_alive
