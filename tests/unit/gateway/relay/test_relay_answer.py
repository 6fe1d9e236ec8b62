"""An answer on its way to the client: the same bytes whatever pieces it comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.gateway.model import Dialect, Endpoint, Exchange, Outcome, Refusal
from exporter.gateway.relay.answer import BARE, CHUNKED, RAW, Answer
from exporter.gateway.relay.answer_heads import read_answer_head
from exporter.gateway.relay.bodies import ChunkedBody

CUT = Refusal(502, "server_error", "engine_lost", "Lost.", Outcome.TRUNCATED)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = b'data: {"choices":[{"index":0,"text":"a","finish_reason":null}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n'
DONE = b"data: [DONE]\n\n"


def exchange(method: str = "POST") -> Exchange:
    return Exchange(
        Endpoint("/v1/completions", Dialect.COMPLETION, frozenset({"POST"})), method, "id", "127.0.0.1", 0.0
    )


def answer(
    raw: bytes, *, modern: bool = True, asked_usage: bool = False, of: Exchange | None = None
) -> Answer:
    head = read_answer_head(raw)
    return Answer(
        of or exchange(),
        head,
        raw,
        head.length,
        modern=modern,
        asked_usage=asked_usage,
        extra=b"",
        gaps=lambda model: lambda seconds: None,
        fingerprints={},
    )


def wire(events: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


def relayed(data: bytes, step: int, **how: bool) -> tuple[bytes, Exchange]:
    of = exchange()
    out, body, passed = b"", ChunkedBody(), answer(STREAM, of=of, **how)
    for at in range(0, len(data), step):
        raw = data[at : at + step]
        content = body.feed(raw)
        out += passed.came(raw, content, body.complete, at / 100)
    passed.judge(of, whole=True)
    return out, of


@given(st.integers(1, 400), st.booleans(), st.booleans())
def test_a_stream_is_the_same_in_any_pieces(step: int, asked_usage: bool, modern: bool) -> None:
    out, of = relayed(wire([TOKEN, TOKEN, USAGE, DONE]), step, asked_usage=asked_usage, modern=modern)
    head, _, body = out.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    if modern:
        read = ChunkedBody()
        body = read.feed(body)
        assert read.complete
    assert body == TOKEN * 2 + (b"" if asked_usage else USAGE) + DONE
    assert (of.outcome, of.tokens_seen, of.output_tokens) == (Outcome.SUCCESS, 2, 1)


def test_where_nothing_is_hidden_the_bytes_are_the_engines_own() -> None:
    data = b"5;ext=1\r\ndata:\r\n" + wire([TOKEN])
    assert relayed(data, 7)[0] == STREAM + data


@pytest.mark.parametrize(
    ("raw", "how", "mode"),
    [
        (STREAM, {}, RAW),
        (STREAM, {"asked_usage": True}, CHUNKED),
        (STREAM, {"modern": False}, BARE),
        (b"HTTP/1.1 200 OK\r\n\r\n", {}, CHUNKED),
        (b"HTTP/1.1 200 OK\r\n\r\n", {"modern": False}, BARE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", {"asked_usage": True}, BARE),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n", {}, BARE),
    ],
)
def test_how_a_body_goes_out(raw: bytes, how: dict[str, bool], mode: int) -> None:
    assert answer(raw, **how).mode == mode


def test_only_a_stream_that_stands_between_two_events_gets_a_last_word() -> None:
    for asked_usage in (False, True):
        passed = answer(STREAM, asked_usage=asked_usage)
        assert passed.last_words(CUT) == b""  # not even its head has gone out
        passed.head_out = b""
        assert b'data: {"error":{"message":"Lost."' in passed.last_words(CUT)
        chunk = b"%x\r\n%b\r\n" % (len(TOKEN), TOKEN)
        passed.came(chunk, TOKEN, False, 0.0)
        assert b'data: {"error":{"message":"Lost."' in passed.last_words(CUT)
        passed.came(chunk[:20], chunk[4:20], False, 0.0)
        assert asked_usage == bool(passed.last_words(CUT))  # what is held back was not begun
    whole = answer(STREAM)
    whole.came(b"e\r\ndata: [DONE]\n\n\r\n", DONE, False, 0.0)
    assert whole.last_words(CUT) == b""
    assert answer(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").last_words(CUT) == b""


def test_the_head_goes_out_with_the_first_of_the_body() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    passed = answer(raw)
    assert passed.came(b"", b"", False, 0.0) == b""
    assert passed.came(b"abc", b"abc", True, 0.0) == raw + b"abc"
    assert passed.head_can_wait(65536)
    assert not passed.head_can_wait(65537)
