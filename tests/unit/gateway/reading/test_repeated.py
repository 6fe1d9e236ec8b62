"""Tokens told at a glance: never otherwise than by reading them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relay_pair import Pair, told
from stream_pieces import COUNTS, HEAD, PIECES, chunk, event

from exporter.gateway.model import Dialect, Endpoint, Exchange
from exporter.gateway.reading.repeated import is_one_chunk, mould_of
from exporter.gateway.relay.answer import Answer
from exporter.gateway.relay.answer_heads import read_answer_head
from exporter.gateway.relay.bodies import ChunkedBody

END = chunk(event(finish='"stop"')) + chunk(COUNTS) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=12), st.booleans(), st.lists(st.integers(1, 600), max_size=6), st.booleans())
def test_a_glance_says_what_reading_says(
    pieces: list[bytes], hides: bool, cuts: list[int], together: bool
) -> None:
    reads = [HEAD, chunk(event("a"))]
    for number, piece in enumerate(pieces):
        cut = cuts[number % len(cuts)] if cuts and number % 3 == 2 else len(piece)
        reads += [part for part in (piece[:cut], piece[cut:]) if part]
        reads.append(chunk(event("again")))
    if together:
        reads = [b"".join(reads[:3]), *reads[3:]]
    for ending in ([], [END], [END[:30], END[30:]]):
        assert told(reads + ending, hides=hides, short=True) == told(reads + ending, hides=hides, short=False)
    whole = [HEAD + b"".join([*pieces, END])]
    assert told(whole, hides=hides, short=True) == told(whole, hides=hides, short=False)


def test_the_tokens_of_an_ordinary_stream_are_told_at_a_glance() -> None:
    reads = [chunk(event(text)) for text in ("", *"ab", "é", "日本", "x" * 200, r"\n", "i", "j")]
    told([HEAD, *reads], hides=True, short=True)
    assert told.glanced == 6  # type: ignore[attr-defined]


def test_a_chunk_of_no_possible_size_is_none() -> None:
    for size in range(1, 600):
        whole = chunk(event("x" * size))
        for wrong in (-1, 0, 1):
            pair = Pair()
            pair.ask(b'{"model":"m","stream":true}')
            pair.hear(HEAD + chunk(event()))
            pair.hear(b"%x\r\n%b\r\n" % (len(event("x" * size)) + wrong, event("x" * size)))
            assert pair.glanced == (wrong == 0), whole


OTHERS = [
    event(finish='"stop"'),
    event(""),
    event(r"\u0041"),
    event(more=',"usage":{"prompt_tokens":1}'),
    event(key="role"),
    b'data: {"choices":[{"delta":{"content":"","tool_calls":[{"function":{"name":"f"}}]}}]}\n\n',
    b'data: {"error":{"text":"a"}}\n\n',
    b": comment\n\n",
    b"data: [DONE]\n\n",
]


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("before", [b"", chunk(event(key="reasoning"))])
def test_what_says_more_or_less_than_a_text_is_no_mould(other: bytes, before: bytes) -> None:
    told([HEAD, before + chunk(other), chunk(other), chunk(other)], hides=True, short=True)
    assert told.glanced == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "other",
    [
        event("a", more=',"content":"b"'),
        b'data: {"choices":[{"delta":{"content":"a"}},{"delta":{"content":"a"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"a","reasoning":"a"}}]}\n\n',
        b'data: {"choices":[{"delta":{"reasoning":"a","content":""}}]}\n\n',
    ],
)
def test_a_token_is_one_with_another_text_in_its_place(other: bytes) -> None:
    mould = mould_of(other)
    assert mould is not None
    reads = [HEAD, chunk(other), *[chunk(mould.before + text + mould.after[:-2]) for text in (b"b", b"cd")]]
    assert told(reads, hides=True, short=True) == told(reads, hides=True, short=False)
    told(reads, hides=True, short=True)
    assert told.glanced == 2  # type: ignore[attr-defined]


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
        answer.came(raw, body.feed(raw), False, float(at))
        assert answer.mould_after(event("a")) is None
    assert of.tokens_seen == 0
