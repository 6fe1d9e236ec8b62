"""Tokens told at a glance: never otherwise than by reading them."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_pieces import HEAD, PIECES, chunk, event

from exporter.gateway.model import Dialect, Endpoint, Exchange
from exporter.gateway.reading.repeated import is_one_chunk, repeated
from exporter.gateway.relay.answer import Answer
from exporter.gateway.relay.answer_heads import read_answer_head
from exporter.gateway.relay.bodies import ChunkedBody

CHAT = Endpoint("/v1/chat/completions", Dialect.CHAT, frozenset({"POST"}))


def told(reads: list[bytes], *, hides: bool, glances: bool) -> tuple[object, ...]:
    exchange = Exchange(CHAT, "POST", "id", "127.0.0.1", 0.0)
    head = read_answer_head(HEAD)
    gaps: list[float] = []
    answer = Answer(
        exchange, head, HEAD, None, modern=True, asked_usage=hides, extra=b"",
        gaps=lambda model: gaps.append, fingerprints={},
    )  # fmt: skip
    body = ChunkedBody()
    out = b""
    glanced = 0
    for at, raw in enumerate(reads):
        now = float(at)
        if glances and answer.repeated is not None and answer.repeated.is_again(raw):
            answer.token(raw, now)
            out += raw
            glanced += 1
            continue
        try:
            content = body.feed(raw)
        except httptools.HttpParserError:
            break
        out += answer.came(raw, content, False, now)
    told.glanced = glanced  # type: ignore[attr-defined]
    events = answer.events
    assert events is not None
    return (
        out, events.rest(), events.finished, events.failed, gaps, exchange.tokens_seen, exchange.first_token,
        exchange.last_token, exchange.input_tokens, exchange.output_tokens,
    )  # fmt: skip


@settings(max_examples=300)
@given(st.lists(PIECES, max_size=12), st.booleans(), st.lists(st.integers(1, 600), max_size=6))
def test_a_glance_says_what_reading_says(pieces: list[bytes], hides: bool, cuts: list[int]) -> None:
    reads = [chunk(event(text)) for text in "abcdefg"]
    for number, piece in enumerate(pieces):
        cut = cuts[number % len(cuts)] if cuts and number % 3 == 2 else len(piece)
        reads += [part for part in (piece[:cut], piece[cut:]) if part]
        reads.append(chunk(event("again")))
    assert told(reads, hides=hides, glances=True) == told(reads, hides=hides, glances=False)


def test_the_tokens_of_an_ordinary_stream_are_told_at_a_glance() -> None:
    reads = [chunk(event(text)) for text in ("", *"abcdefgh", "é", "日本", "x" * 200, r"\n", "i", "j")]
    told(reads, hides=True, glances=True)
    assert told.glanced == 9  # type: ignore[attr-defined]


def test_a_chunk_of_no_possible_size_is_none() -> None:
    mould = repeated(event())
    assert mould is not None
    for size in range(1, 600):
        whole = chunk(event("x" * size))
        assert mould.is_again(whole)
        for wrong in (-1, 1):
            said = b"%x\r\n%b\r\n" % (len(event("x" * size)) + wrong, event("x" * size))
            assert not mould.is_again(said)


@pytest.mark.parametrize(
    "other",
    [
        event(finish='"stop"'),
        event(""),
        event(r"\u0041"),
        event(more=',"usage":{"prompt_tokens":1}'),
        event(key="role"),
        event("a", more=',"content":"b"'),
        b'data: {"choices":[{"delta":{"content":"a"}},{"delta":{"content":"a"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a","reasoning":"a"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a","tool_calls":[{"function":{"name":"f"}}]}}]}\n\n',
        b"data: [DONE]\n\n",
        event() + event(),
    ],
)
def test_what_says_more_than_a_text_is_no_mould(other: bytes) -> None:
    assert repeated(other) is None


def test_one_chunk_is_one_in_our_own_spelling() -> None:
    assert is_one_chunk(chunk(event()), event())
    assert not is_one_chunk(b"0" + chunk(event()), event())
    assert not is_one_chunk(b"d\r\nd\r\n\r\n\r\n\r\n\r\n\r\n", b"d\r\n\r\n\r\n\r\n\r\n\r\n")


def test_nothing_is_told_at_a_glance_that_reading_takes_for_no_token() -> None:
    """Chat's chunks where another dialect was asked for: passed on, and counted as nothing."""
    of = Exchange(Endpoint("/v1/messages", Dialect.MESSAGES, frozenset({"POST"})), "POST", "id", "::1", 0.0)
    answer = Answer(
        of, read_answer_head(HEAD), HEAD, None, modern=True, asked_usage=False, extra=b"",
        gaps=lambda model: [].append, fingerprints={},
    )  # fmt: skip
    body = ChunkedBody()
    for at in range(20):
        raw = chunk(event("a"))
        assert answer.repeated is None
        answer.came(raw, body.feed(raw), False, float(at))
    assert of.tokens_seen == 0
