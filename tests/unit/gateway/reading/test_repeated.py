"""Tokens told at a glance: never otherwise than by reading them."""

from __future__ import annotations

from itertools import pairwise
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from relay_pair import Pair, told
from stream_pieces import COUNTS, HEAD, PIECES, chunk, event

from exporter.gateway.model import Dialect, Endpoint, Exchange
from exporter.gateway.reading.events import EventReader
from exporter.gateway.reading.repeated import is_one_chunk, mould_of
from exporter.gateway.relay.answer import Answer
from exporter.gateway.relay.answer_heads import read_answer_head
from exporter.gateway.relay.bodies import ChunkedBody

END_OF_ALL = chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
END = chunk(event(finish='"stop"')) + chunk(COUNTS) + END_OF_ALL
LATE_END = [chunk(event("", finish='"stop"')), b"0\r\n\r\n"]


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
    for ending in ([], [END], [END[:30], END[30:]], LATE_END):
        for breaks in (False, True):
            both = [told(reads + ending, hides=hides, short=way, breaks=breaks) for way in (True, False)]
            assert both[0] == both[1]
    for more in (b"", chunk(event())):
        whole = [HEAD + b"".join([*pieces, more, END])]
        assert told(whole, hides=hides, short=True) == told(whole, hides=hides, short=False)


FINISHES = st.sampled_from(
    [
        chunk(event(finish='"stop"')),
        chunk(event("", finish='"stop"')),
        chunk(event("", finish='"stop"', more=',"system_fingerprint":"own"')),
        chunk(event("", finish='"stop"').replace(b'"index":0', b'"index":1')),
        chunk(event("", finish='"stop"').replace(b'"index":0', b'"index" :1')),
        chunk(event("", finish='"stop"', more=',"usage":{"prompt_tokens":9,"completion_tokens":9}')),
        chunk(event(r"\u0041", finish='"stop"')),
        chunk(b'data: {"choices":[{"finish_reason":"stop"}]\n\n'),
    ]
)
TOKENS = st.sampled_from(
    [
        chunk(event()),
        chunk(event().replace(b'"index":0', b'"index":1')),
        chunk(event().replace(b'"index":0', b'"index" :1')),
        chunk(event(r"\u0041")),
        chunk(event(key="role")),
        chunk(event("b", finish='"stop"')),
    ]
)
COUNTED = st.sampled_from(
    [
        chunk(COUNTS),
        chunk(COUNTS.replace(b'"usage"', b'"system_fingerprint":"fp","usage"')),
        chunk(COUNTS.replace(b"[]", b"[{}]")),
        chunk(COUNTS.replace(b'"usage"', b'"error":{"code":"x"},"usage"')),
        chunk(b'data: {"choices":[]}\n\n'),
        b"",
    ]
)
DONE = st.sampled_from([chunk(b"data: [DONE]\n\n"), chunk(b"data:\ndata: [DONE]\n\n"), b""])
STREAMS = st.tuples(st.lists(TOKENS, max_size=4).map(b"".join), FINISHES, COUNTED, DONE).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(STREAMS, st.lists(st.integers(1, 900), max_size=2), st.booleans()), max_size=3),
    st.booleans(),
)
def test_streams_one_after_another_are_the_same_whole_and_in_pieces(
    streams: list[tuple[bytes, list[int], bool]], head_alone: bool
) -> None:
    """Connections and backend remember: the fingerprint, the flow, how the engine sends."""
    short, long = Pair(short=True), Pair(short=False)
    for stream, cuts, hides in streams:
        raw = stream + b"0\r\n\r\n"
        edges = [0, *sorted(cuts), len(raw)]
        parts = [raw[a:b] for a, b in pairwise(edges) if raw[a:b]]
        reads = [HEAD, *parts] if head_alone else [HEAD + parts[0], *parts[1:]]
        assert told(reads, hides=hides, short=True, pair=short) == told(
            reads, hides=hides, short=False, pair=long
        )
        if short.client.transport.is_closing() or short.engine.transport.is_closing():
            break


def test_a_stream_that_comes_whole_goes_out_before_it_is_read() -> None:
    counts = COUNTS.replace(b'"usage"', b'"system_fingerprint":"fp","usage"')
    pair = Pair()
    whole = HEAD + chunk(event()) + chunk(event("", finish='"stop"')) + chunk(counts) + END_OF_ALL
    with (
        mock.patch.object(EventReader, "feed", side_effect=RuntimeError),
        mock.patch.object(EventReader, "take", side_effect=RuntimeError),
        pytest.raises(RuntimeError),
    ):
        told([whole], hides=True, short=True, pair=pair)
    stamped = event("", finish='"stop"', more=',"system_fingerprint":"fp"')
    wire = pair.client.transport.written  # type: ignore[attr-defined]
    assert wire.partition(b"\r\n\r\n")[2] == chunk(event()) + chunk(stamped) + END_OF_ALL


def test_what_an_engine_says_after_its_stream_goes_to_nobody() -> None:
    pair = Pair()
    reads = [HEAD + chunk(event()), chunk(event("b")), END]
    told(reads, hides=True, short=True, pair=pair)
    assert not pair.engine.transport.is_closing()
    pair.hear(chunk(event("c")))
    assert pair.engine.transport.is_closing()
    assert chunk(event("c")) not in pair.client.transport.written  # type: ignore[attr-defined]


@pytest.mark.parametrize(("step", "settles"), [(0.001, True), (0.1, False)])
def test_the_tokens_of_a_fast_stream_are_acknowledged_late(step: float, settles: bool) -> None:
    pair = Pair()
    pair.ask(b'{"model":"m","stream":true}')
    pair.hear(HEAD + chunk(event()))
    for number in range(40):
        pair.hear(chunk(event(r"\n" if number == 31 else "b")), after=step)
    assert pair.engine.settled is settles


def test_an_engine_that_waits_for_acknowledgements_gets_them_at_once_from_then_on() -> None:
    pair = Pair()
    for stalled in (False, True):
        pair.ask(b'{"model":"m","stream":true}')
        pair.hear(HEAD + chunk(event()))
        for _ in range(40):
            pair.hear(chunk(event("b")), after=0.001)
        assert pair.engine.settled is not stalled
        pair.hear(chunk(event("b")) * 9, after=0.043)
        for _ in range(40):
            pair.hear(chunk(event("b")), after=0.001)
        pair.hear(END)
    assert not pair.engine.pool.settles


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
    b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"system_fingerprint":"f"}\n\n',
    b': "content":"\ndata: {"choices":[{"delta":{"reasoning":"x"}}]}\n\n',
    b"data: [DONE]\n\n",
]


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("before", [b"", chunk(event(key="reasoning"))])
def test_what_says_more_or_less_than_a_text_is_no_mould(other: bytes, before: bytes) -> None:
    for reads in ([HEAD, before + chunk(other)], [HEAD + before + chunk(other)]):
        told([*reads, chunk(other), chunk(other)], hides=True, short=True)
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
