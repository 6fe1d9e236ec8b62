"""Heads: what is found in them, what goes on, and how one that comes again is told."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.gateway.relay import heads
from exporter.gateway.relay.answer_heads import answer_head, read_answer_head
from exporter.gateway.relay.heads import onward_head, read_request_head
from exporter.gateway.relay.lines import cut_out, recognise
from exporter.gateway.relay.refusals import BadHeadError

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


def test_what_connection_names_does_not_go_on_but_for_what_the_request_cannot_do_without() -> None:
    raw = head(
        "Connection: x-request-id, X-Mine,host", "X-Request-Id: 7", "x-mine: 1", "X-MINE: 2", "X-Min: 3"
    )
    assert onward(raw) == (
        b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nX-Request-Id: 7\r\nX-Min: 3\r\n" + FORWARDED
    )


def test_connection_with_thousands_of_options_is_refused() -> None:
    with pytest.raises(BadHeadError):
        read_request_head(head("Connection: " + ",".join(f"x{number}" for number in range(10_000))))


def test_of_several_keys_none_goes_on_where_they_are_checked_here() -> None:
    raw = head("Authorization: Bearer a", "x-api-key: b", "authorization: Bearer c", "X-API-Key: d", "A: 1")
    assert onward(raw, own_credentials=True) == (
        b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nA: 1\r\n" + FORWARDED
    )


@pytest.mark.parametrize("value", ["", " ", "\x85[2J", "a\tb", "\xe9"])
def test_a_request_id_that_is_none_does_not_go_on(value: str) -> None:
    raw = head(f"X-Request-Id: {value}", "A: 1")
    assert read_request_head(raw).request_id is None
    assert onward(raw) == b"POST /v1/completions HTTP/1.1\r\nHost: g\r\nA: 1\r\n" + FORWARDED


def test_of_two_request_ids_the_first_goes_on() -> None:
    raw = head("X-Request-Id: 1", "X-Request-ID: 2")
    assert read_request_head(raw).request_id == b"1"
    assert b"2\r\n" not in onward(raw).removesuffix(FORWARDED)


@pytest.mark.parametrize(
    "lines", [("A: 1", " folded"), ("A: 1", "\tB: 2"), ("A : 1",), ("A: \x00",), ("A: 1\rB: 2",), ("A: 1\nB: 2",), (": 1",), ("A",), ("",)]
)  # fmt: skip
@pytest.mark.parametrize("known", [False, True])
def test_lines_that_are_none_are_refused_whatever_lines_are_known(
    lines: tuple[str, ...], known: bool
) -> None:
    raw = head(*lines) if lines != ("",) else head()[:-4] + b"\r\n \r\n\r\n"
    if known:
        read_request_head(head("A: 1", "B: 2"))
    with pytest.raises(BadHeadError):
        read_request_head(raw)


def test_a_known_line_is_no_request_line() -> None:
    read_request_head(head("GET: /p HTTP/1.1"))
    for first in ("GET: /p HTTP/1.1", "A: 1"):
        with pytest.raises(BadHeadError):
            read_request_head(head("A: 1", first=first))


def test_lines_are_remembered_up_to_a_bound() -> None:
    for number in range(10_000):
        read_request_head(head(f"X-{number}: 1", "X-Long: " + "y" * number))
    remembered = heads._meaningless
    assert len(remembered) <= 4096
    assert max(map(len, remembered)) <= 512


LINE = st.sampled_from(
    ["Content-Length: %d", "traceparent: 00-%d-01", "X-Request-Id: %d", "X-Request-ID: r%d", "tracestate: a=%d,b=%d", "Accept: */*",
     "Connection: keep-alive", "Authorization: Bearer x", "b3: %d", "Idempotency-Key:%d", "X-Forwarded-For: 10.0.0.2"]
)  # fmt: skip


@given(st.lists(LINE, unique=True), st.lists(st.integers(0, 10**12), min_size=2, max_size=4), st.booleans())
def test_a_head_that_comes_again_with_other_values_means_what_it_would_mean_read(
    lines: list[str], values: list[int], whole: bool
) -> None:
    raws = [head(*(line.replace("%d", str(value)) for line in lines)) for value in values]
    known = read_request_head(raws[0])
    known.onward = onward_head(known, FORWARDED, own_credentials=whole)
    twice = len([line for line in lines if line.lower().startswith("x-request-id")]) > 1
    for raw in raws[1:]:
        read = read_request_head(raw)
        end = known.again(raw + b"body")
        if end == 0:
            assert twice
            break
        assert end == len(raw)
        assert (known.length, known.request_id) == (read.length, read.request_id)
        assert known.onward == onward_head(read, FORWARDED, own_credentials=whole)


def test_a_head_that_has_not_gone_on_is_read_again_where_it_varies() -> None:
    known = read_request_head(head("traceparent: 1"))
    assert known.again(head("traceparent: 2")) == 0


@given(
    known=st.sampled_from(["Content-Length: 12", "Content-Length: 12 ", "A: 1", "Transfer-Encoding: chunked", "Expect: 100-continue",
                           "traceparent: 1", "X-Request-Id: 1"]),
    cut=st.integers(0, 60),
    insert=st.sampled_from([b"", b"0", b"+", b" ", b"\r\n", b"\r\nContent-Length: 1", b"_", b"\xb2", b"9" * 20, b"\n", b"\r", b"\0", b"\t"]),
)  # fmt: skip
def test_what_is_recognised_is_what_would_have_been_read(known: str, cut: int, insert: bytes) -> None:
    first = head(known)
    read = read_request_head(first)
    read.onward = onward_head(read, FORWARDED, own_credentials=False)
    other = first[: len(first) - cut] + insert + first[len(first) - cut :]
    end = read.again(other)
    if end:
        fresh = read_request_head(other[:end])
        assert (fresh.length, fresh.request_id) == (read.length, read.request_id)
        assert onward_head(fresh, FORWARDED, own_credentials=False) == read.onward
        assert other[:end].endswith(b"\r\n\r\n")
        assert other[:end].count(b"\r\n\r\n") == 1


def test_heads_that_announce_a_body_in_another_way_are_read_each_time() -> None:
    for line in ("Transfer-Encoding: chunked", "Expect: 100-continue", "Connection: x-mine"):
        assert read_request_head(head(line)).again(head(line)) == 0
    assert recognise(b"", b"", ()) == (0, [], None)


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


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0",
        b"HTTP/1.1 099 No\r\nContent-Length: 0",
        b"HTTP/1.1 000 No\r\nContent-Length: 0",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
    ],
)
def test_answers_that_others_may_read_otherwise_are_none(raw: bytes) -> None:
    with pytest.raises(httptools.HttpParserError):
        read_answer_head(raw + b"\r\n\r\n")


def test_an_answers_connection_header_takes_out_neither_its_framing_nor_its_name() -> None:
    raw = b"HTTP/1.1 200 OK\r\nConnection: transfer-encoding, x-request-id, x-mine\r\nX-Mine: 1\r\nX-Request-Id: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert (
        answered(raw, chunked=True)
        == b"HTTP/1.1 200 OK\r\nX-Request-Id: 2\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
    )


def test_an_answer_like_the_last_one_loses_its_own_framing_line_for_an_old_client() -> None:
    raw = b"HTTP/1.1 200 OK\r\nX-Request-Id: %d\r\nTransfer-Encoding: chunked\r\nA: 1\r\n\r\n"
    known = read_answer_head(raw % 1)
    assert known.again(raw % 1234567 + b"0\r\n") == (len(raw % 1234567), None)
    assert answer_head(known, raw % 1234567, chunked=False, extra=b"") == (
        b"HTTP/1.1 200 OK\r\nX-Request-Id: 1234567\r\nA: 1\r\n\r\n"
    )


def test_an_answer_like_the_last_one_is_recognised_with_its_length() -> None:
    raw = b"HTTP/1.1 200 OK\r\nX-Request-Id: %d\r\nContent-Length: %d\r\n\r\n"
    known = read_answer_head(raw % (1, 5))
    assert known.again(raw % (22, 1234)) == (len(raw % (22, 1234)), 1234)
    assert known.again(raw.replace(b"%d", b"%b") % (b"22", b"12a")) == (0, None)
