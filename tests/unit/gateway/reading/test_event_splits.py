"""Whatever way the bytes are cut, a stream reads the same, and passes on the same bytes."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.gateway.model import Dialect, Endpoint, Exchange
from exporter.gateway.reading import events
from exporter.gateway.reading.events import EventReader

DIALECTS = (Dialect.CHAT, Dialect.COMPLETION, Dialect.RESPONSES, Dialect.MESSAGES)
USAGE = {"prompt_tokens": 3, "completion_tokens": 4}


def chunk(**members: Any) -> dict[str, Any]:
    return {"id": "x", **members}


def choice(words: str, finish: str | None = None, index: int = 0) -> dict[str, Any]:
    delta = {"content": words, "text": words}
    return {"index": index, "delta": delta, "text": words, "finish_reason": finish}


payloads = st.sampled_from(
    [
        *(json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode() for data in (
            chunk(choices=[choice("")]),
            chunk(choices=[choice("é")]),
            chunk(choices=[choice("a", index=1)]),
            chunk(choices=[choice("", "stop")]),
            chunk(choices=[choice("b", "length", 1)], usage=USAGE),
            chunk(choices=[], usage=USAGE, system_fingerprint="f"),
            chunk(choices=[], usage=USAGE),
            chunk(error={"type": "InternalServerError"}),
            {"type": "response.output_text.delta", "delta": "a"},
            {"type": "response.completed", "response": {"usage": {"input_tokens": 1, "output_tokens": 2}}},
            {"type": "content_block_delta", "delta": {"text": "a"}},
            {"type": "message_delta", "usage": {"input_tokens": 5, "output_tokens": 6}},
            {"type": "message_stop"},
            {"pad": "p" * 500, "usage": {"prompt_tokens": 7}},
        )),
        b"[DONE]",
        b"\xff\xfe",
        b'{"choices":[{"delta":{"content":"\xe2\x82"}}]}',
        b"",
        b"{",
    ]
)  # fmt: skip
line_ends = st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b"\r"])


@st.composite
def blocks(draw: st.DrawFn) -> bytes:
    """One event, or something that is not quite one."""
    end = draw(line_ends)
    kind = draw(st.integers(0, 9))
    data = draw(payloads)
    if kind < 5:
        return b"data: " + data + end + end
    if kind == 5:
        return b"data:" + data + end + draw(line_ends)
    if kind == 6:
        middle = len(data) // 2
        return b"data: " + data[:middle] + end + b"data:" + data[middle:] + end + end
    if kind == 7:
        name = draw(st.sampled_from([b"response.completed", b"error", b"message_stop", b"x"]))
        return b"event: " + name + end + b"data: " + data + end + end
    if kind == 8:
        return draw(
            st.sampled_from([b": keep-alive\n\n", b"\n", b"\r", b"\r\n", b"id: 1\n", b"data\n", b": x\r\n"])
        )
    return draw(st.binary(max_size=12))


blocks_of_a_stream = st.lists(blocks(), max_size=9)
streams = blocks_of_a_stream.map(b"".join)


def read(parts: list[bytes], dialect: Dialect, hide: bool) -> tuple[object, ...]:
    exchange = Exchange(Endpoint("/v1/some", dialect, frozenset()), "POST", "0123", "127.0.0.1", 0.0)
    exchange.backend = "one"
    gaps: list[float] = []
    fingerprints = {"one": b'"known"'}
    reader = EventReader(exchange, hide_usage=hide, gaps=gaps.append, fingerprints=fingerprints)
    passed = b"".join([*(reader.feed(part, 1.0) for part in parts), reader.rest()])
    assert reader.rest() == b""
    return (
        passed,
        reader.finished,
        reader.failed,
        exchange.tokens_seen,
        exchange.input_tokens,
        exchange.output_tokens,
        exchange.first_token,
        exchange.last_token,
        gaps,
        fingerprints,
    )


def cut(stream: bytes, at: list[int]) -> list[bytes]:
    places = sorted({0, len(stream), *(place % (len(stream) + 1) for place in at)})
    return [stream[a:b] for a, b in itertools.pairwise(places)]


@pytest.fixture(autouse=True, scope="module")
def _small_limits() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "EVENT_LIMIT", 300)
        patch.setattr(events, "TAIL_LIMIT", 64)
        patch.setattr(events, "_START_LIMIT", 40)
        yield


@given(
    blocks_of_a_stream,
    st.lists(st.integers(0, 10_000), max_size=20),
    st.sampled_from(DIALECTS),
    st.booleans(),
)
def test_any_cut_gives_the_same_result(
    parts: list[bytes], at: list[int], dialect: Dialect, hide: bool
) -> None:
    stream = b"".join(parts)
    whole = read([stream], dialect, hide)
    assert read(parts, dialect, hide) == whole
    assert read(cut(stream, at), dialect, hide) == whole
    assert read([stream[i : i + 1] for i in range(len(stream))], dialect, hide) == whole


@given(
    st.lists(blocks(), min_size=1, max_size=4),
    st.lists(blocks(), min_size=1, max_size=2),
    st.sampled_from([Dialect.CHAT, Dialect.RESPONSES]),
    st.booleans(),
)
def test_an_event_begun_and_one_that_comes_whole_stay_apart(
    before: list[bytes], after: list[bytes], dialect: Dialect, hide: bool
) -> None:
    """The quick way for a whole event is not for one that lands in the middle of another, or behind a held one."""
    parts = [*before, b'data: {"choices":[{"index":0,', *after, b"id: 1\n", *after, *after]
    assert read(parts, dialect, hide) == read([b"".join(parts)], dialect, hide)


@given(streams, st.lists(st.integers(0, 10_000), max_size=20), st.sampled_from(DIALECTS))
def test_without_hiding_every_read_passes_untouched(stream: bytes, at: list[int], dialect: Dialect) -> None:
    exchange = Exchange(Endpoint("/v1/some", dialect, frozenset()), "POST", "0123", "127.0.0.1", 0.0)
    reader = EventReader(exchange, hide_usage=False, gaps=lambda seconds: None)
    for part in cut(stream, at):
        assert reader.feed(part, 1.0) is part
    assert reader.rest() == b""


@given(streams, st.sampled_from(DIALECTS))
def test_hiding_changes_nothing_of_what_is_read(stream: bytes, dialect: Dialect) -> None:
    shown, hidden = read([stream], dialect, False), read([stream], dialect, True)
    assert hidden[1:-1] == shown[1:-1]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda v: (
        st.lists(v, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "text",
                    "content",
                    "tool_calls",
                    "function",
                    "name",
                    "index",
                    "usage",
                    "prompt_tokens",
                    "error",
                    "type",
                    "code",
                    "object",
                    "response",
                    "message",
                    "finish_reason",
                    "system_fingerprint",
                    "thinking",
                ]
            ),
            v,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    anything,
    st.sampled_from(["response.failed", "message_start", "x", 7]),
    st.sampled_from(DIALECTS),
    st.booleans(),
)
def test_no_event_makes_it_fail(data: Any, kind: object, dialect: Dialect, hide: bool) -> None:
    if isinstance(data, dict):
        data.setdefault("type", kind)
    event = b"data: " + json.dumps(data).encode() + b"\n\n"
    spoiled = event.replace(b'"', b"\xff", 7).replace(b"\xff", b'"', 6)
    assert read([event], dialect, hide) == read([event[:9], event[9:]], dialect, hide)
    assert read([spoiled], dialect, hide) == read([spoiled[:9], spoiled[9:]], dialect, hide)


words = st.text(st.characters(codec="utf-8"), max_size=5)


@given(
    st.lists(st.lists(words, min_size=1, max_size=4), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
    st.sampled_from([None, '"vllm-0.32.0-898ad63b"', '"a\\"b"']),
    st.lists(st.integers(0, 100_000), max_size=30),
    st.booleans(),
    st.sampled_from([Dialect.CHAT, Dialect.COMPLETION]),
)
def test_hidden_counts_leave_the_bytes_of_a_direct_call(
    choices: list[list[str]],
    random: Any,
    fingerprint: str | None,
    at: list[int],
    cut_short: bool,
    dialect: Dialect,
) -> None:
    """An engine as vLLM 0.32 writes, asked with and without `include_usage`, over any mix of choices."""
    order = [index for index, said in enumerate(choices) for _ in said]
    random.shuffle(order)

    def line(index: int, said: str, last: bool, stamp: str | None) -> bytes:
        text = json.dumps(said, ensure_ascii=False)
        reason = '"stop"' if last else "null"
        body = f'"delta":{{"content":{text}}}' if dialect is Dialect.CHAT else f'"text":{text}'
        more = f',"system_fingerprint":{stamp}' if stamp is not None and last else ""
        head = f'{{"id":"x","choices":[{{"index":{index},{body},"logprobs":null,"finish_reason":{reason}}}]'
        return f"data: {head}{more}}}\n\n".encode()

    def roles() -> bytes:
        return b"".join(
            f'data: {{"id":"x","choices":[{{"index":{i},"delta":{{"role":"assistant","content":""}}}}]}}\n\n'.encode()
            for i in range(len(choices))
        )

    def answer(stamp: str | None) -> list[bytes]:
        left = [list(said) for said in choices]
        return [roles(), *(line(i, left[i].pop(0), not left[i], stamp) for i in order)]

    more = f',"system_fingerprint":{fingerprint}' if fingerprint is not None else ""
    counts = f'data: {{"id":"x","choices":[],"usage":{{"prompt_tokens":3,"completion_tokens":9}}{more}}}\n\n'
    direct = b"".join(answer(fingerprint))
    asked = b"".join(answer(None))
    if not cut_short:
        direct += b"data: [DONE]\n\n"
        asked += counts.encode() + b"data: [DONE]\n\n"
    exchange = Exchange(Endpoint("/v1/some", dialect, frozenset()), "POST", "0123", "127.0.0.1", 0.0)
    exchange.backend = "one"
    known = {} if fingerprint is None else {"one": fingerprint.encode()}
    reader = EventReader(exchange, hide_usage=True, gaps=lambda seconds: None, fingerprints=known)
    passed = b"".join(reader.feed(part, 1.0) for part in cut(asked, at)) + reader.rest()
    assert passed == direct
    assert reader.finished is not cut_short
    assert exchange.tokens_seen == sum(bool(word) for said in choices for word in said)
    if not cut_short:
        assert (exchange.input_tokens, exchange.output_tokens) == (3, 9)
