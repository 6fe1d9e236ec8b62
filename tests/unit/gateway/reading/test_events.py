"""What a streamed answer tells: tokens and their times, its end, failures, and counts that stay hidden."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from exporter.gateway.model import Dialect, Endpoint, Exchange
from exporter.gateway.reading.events import EVENT_LIMIT, EventReader

CAPTURES = Path(__file__).parent / "captures"
DIALECTS = {
    "chat": Dialect.CHAT,
    "completion": Dialect.COMPLETION,
    "responses": Dialect.RESPONSES,
    "messages": Dialect.MESSAGES,
}
DONE = b"data: [DONE]\n\n"
FINGERPRINT = b'"vllm-0.32.0-898ad63b"'


def capture(name: str) -> bytes:
    return (CAPTURES / f"{name}.sse").read_bytes()


def events_of(stream: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in stream.split(b"\n\n")[:-1]]


def sse(data: Any, name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    return sse({"id": "x", "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **more})


class Reading:
    """A reader, the exchange that it fills in, and the gaps that it told of."""

    def __init__(
        self,
        dialect: Dialect = Dialect.CHAT,
        *,
        hide: bool = False,
        fingerprints: dict[str, bytes] | None = None,
    ) -> None:
        endpoint = Endpoint("/v1/some", dialect, frozenset(("POST",)))
        self.exchange = Exchange(endpoint, "POST", "0123", "127.0.0.1", 0.0)
        self.exchange.backend = "one"
        self.gaps: list[float] = []
        self.reader = EventReader(
            self.exchange, hide_usage=hide, gaps=self.gaps.append, fingerprints=fingerprints
        )
        self.passed = b""

    def feed(self, *parts: bytes, now: float = 1.0) -> Reading:
        for part in parts:
            self.passed += self.reader.feed(part, now)
        return self

    def end(self) -> Reading:
        self.passed += self.reader.rest()
        return self

    @property
    def counts(self) -> tuple[int | None, int | None]:
        return self.exchange.input_tokens, self.exchange.output_tokens


# tokens


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "a"},
        {"content": " "},
        {"role": "assistant", "content": "a"},
        {"reasoning": "a"},
        {"reasoning_content": "a", "content": None},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
    ],
)
def test_words_of_a_chat_are_a_token(delta: dict[str, Any]) -> None:
    assert Reading().feed(chunk(delta)).exchange.tokens_seen == 1
    assert Reading().feed(chunk(delta, "stop")).exchange.tokens_seen == 1


@pytest.mark.parametrize(
    "event",
    [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": None}),
        chunk({}, "stop"),
        chunk({"tool_calls": []}),
        chunk({"tool_calls": [{"index": 0, "id": "call_1", "function": {"arguments": ""}}]}),
        sse({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}),
        sse({"error": {"message": "x"}}),
        DONE,
        b": keep-alive\n\n",
        b"data: \n\n",
        b"data: nonsense\n\n",
        b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
        b'data: {"choices":7}\n\n',
        b'data: {"object":"\xff"}\n\n',
        b'data: {"type":"\xff","error":null}\n\n',
        b'data: {"usage":{"prompt_tokens":"\xff"}}\n\n',
        b"\n\n",
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS.values())
def test_what_has_no_words_is_none(event: bytes, dialect: Dialect) -> None:
    reading = Reading(dialect).feed(event)
    assert reading.exchange.tokens_seen == 0
    assert reading.exchange.first_token is None
    assert reading.passed == event


def test_token_ids_are_words_only_where_there_is_no_text() -> None:
    choices = [{"index": 0, "token_ids": [7]}, {"index": 0, "token_ids": []}]
    choices += [{"index": 0, "token_ids": [7], "text": ""}, {"index": 0, "token_ids": [7], "delta": {}}]
    reading = Reading(Dialect.JSON).feed(*(sse({"choices": [choice]}) for choice in choices))
    assert reading.exchange.tokens_seen == 1


def test_the_first_token_is_not_the_role_and_gaps_lie_between_tokens() -> None:
    reading = Reading()
    reading.feed(chunk({"role": "assistant", "content": ""}), now=1.0)
    reading.feed(chunk({"content": "a"}), now=2.0)
    reading.feed(chunk({"content": "b"}), now=2.25)
    reading.feed(chunk({}, "stop"), now=5.0)
    reading.feed(chunk({"content": "c"}) + chunk({"content": "d"}), now=3.0)
    assert reading.exchange.first_token == 2.0
    assert reading.exchange.last_token == 3.0
    assert reading.gaps == [0.25, 0.75, 0.0]
    assert reading.exchange.tokens_seen == 4


def test_a_token_in_two_reads_comes_with_its_last_byte() -> None:
    event = chunk({"content": "a"})
    reading = Reading().feed(event[:40], now=1.0)
    assert reading.exchange.first_token is None
    assert reading.feed(event[40:], now=2.0).exchange.first_token == 2.0


@pytest.mark.parametrize(
    ("name", "data", "tokens"),
    [
        ("response.output_text.delta", {"delta": "a"}, 1),
        ("response.output_text.delta", {"delta": ""}, 0),
        ("response.reasoning_text.delta", {"delta": "a"}, 1),
        ("response.function_call_arguments.delta", {"delta": "{"}, 1),
        ("response.output_text.done", {"text": "a"}, 0),
        ("response.output_item.added", {"item": {"content": []}}, 0),
        ("response.created", {"response": {"usage": None}}, 0),
    ],
)
def test_deltas_of_responses_are_tokens(name: str, data: dict[str, Any], tokens: int) -> None:
    event = sse({**data, "type": name}, name)
    assert Reading(Dialect.RESPONSES).feed(event).exchange.tokens_seen == tokens


@pytest.mark.parametrize(
    ("delta", "tokens"),
    [
        ({"type": "text_delta", "text": "a"}, 1),
        ({"type": "text_delta", "text": ""}, 0),
        ({"type": "thinking_delta", "thinking": "a"}, 1),
        ({"type": "input_json_delta", "partial_json": "{"}, 1),
        ({"type": "signature_delta", "signature": "a"}, 0),
    ],
)
def test_deltas_of_messages_are_tokens(delta: dict[str, Any], tokens: int) -> None:
    event = sse({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")
    assert Reading(Dialect.MESSAGES).feed(event).exchange.tokens_seen == tokens


# what vLLM really sends


@pytest.mark.parametrize(
    ("name", "tokens", "counts"),
    [
        ("chat", 1, (None, None)),
        ("chat-usage", 1, (33, 4)),
        ("chat-continuous", 1, (33, 4)),
        ("chat-two-usage", 0, (33, 8)),
        ("completion", 1, (None, None)),
        ("completion-usage", 1, (4, 4)),
        ("responses", 1, (21, 4)),
        ("messages", 1, (33, 4)),
    ],
)
def test_vllms_streams_are_read_to_their_end(name: str, tokens: int, counts: tuple[int, int]) -> None:
    """The tiny model's tokens are mostly parts of characters, whose text is empty until one is whole."""
    stream = capture(name)
    reading = Reading(DIALECTS[name.split("-")[0]]).feed(*events_of(stream)).end()
    assert reading.passed == stream
    assert reading.exchange.tokens_seen == tokens
    assert reading.counts == counts
    assert reading.reader.finished
    assert reading.reader.failed is None


@pytest.mark.parametrize("known", [None, {}, {"one": FINGERPRINT}])
@pytest.mark.parametrize("name", ["chat", "completion"])
def test_hidden_counts_leave_what_a_direct_call_gets(name: str, known: dict[str, bytes] | None) -> None:
    """`include_usage` takes `system_fingerprint` from the chunk that finishes: it is put back."""
    reading = Reading(DIALECTS[name], hide=True, fingerprints=known)
    reading.feed(*events_of(capture(f"{name}-usage"))).end()
    assert reading.passed == capture(name)
    assert reading.counts == (33 if name == "chat" else 4, 4)


def test_choices_that_finish_early_get_the_fingerprint_that_the_backend_is_known_by() -> None:
    fingerprints: dict[str, bytes] = {}
    Reading(hide=True, fingerprints=fingerprints).feed(capture("chat-usage"))
    assert fingerprints == {"one": FINGERPRINT}
    reading = Reading(hide=True, fingerprints=fingerprints).feed(*events_of(capture("chat-two-usage"))).end()
    assert reading.passed == capture("chat-two")
    assert reading.counts == (33, 8)


def test_only_the_last_of_the_choices_to_finish_is_held() -> None:
    first, second = chunk({"content": "a"}), chunk({"content": "b"}, index=1)
    early, late = chunk({}, "stop", 1), chunk({}, "stop")
    reading = Reading(hide=True).feed(first, second, early)
    assert reading.passed == first + second + early
    assert reading.feed(late).passed == first + second + early


def test_the_end_of_an_answer_corrects_a_fingerprint_that_is_no_longer_true() -> None:
    fingerprints = {"one": b'"vllm-0.31.0-00000000"', "two": b'"x"'}
    reading = Reading(hide=True, fingerprints=fingerprints).feed(*events_of(capture("chat-usage"))).end()
    assert reading.passed == capture("chat")
    assert fingerprints == {"one": FINGERPRINT, "two": b'"x"'}


def test_an_engine_without_fingerprints_gets_none() -> None:
    bare = b"".join(capture("chat").split(b',"system_fingerprint":' + FINGERPRINT))
    asked = b"".join(capture("chat-usage").split(b',"system_fingerprint":' + FINGERPRINT))
    reading = Reading(hide=True, fingerprints={}).feed(*events_of(asked)).end()
    assert reading.passed == bare
    assert reading.counts == (33, 4)


def test_counts_that_the_engine_shows_unasked_are_not_hidden() -> None:
    """`--enable-force-include-usage` puts counts into every chunk of every stream."""
    stream = capture("chat-continuous")
    reading = Reading(hide=True).feed(*events_of(stream)).end()
    assert reading.passed == stream
    assert reading.counts == (33, 4)


def test_only_a_chunk_without_choices_is_hidden() -> None:
    odd = sse({"usage": {"prompt_tokens": 1}}) + sse({"choices": [], "usage": None}) + sse({"choices": []})
    assert Reading(hide=True).feed(*events_of(odd)).end().passed == odd


@pytest.mark.parametrize("dialect", [Dialect.RESPONSES, Dialect.MESSAGES])
def test_nothing_is_hidden_where_counts_belong_to_the_stream(dialect: Dialect) -> None:
    stream = capture(dialect.value)
    assert Reading(dialect, hide=True).feed(stream).end().passed == stream


# ends


def test_a_stream_that_ends_without_done_is_not_finished() -> None:
    assert not Reading().feed(capture("chat").removesuffix(DONE)).end().reader.finished
    assert not Reading().feed(DONE[:-1]).end().reader.finished


@pytest.mark.parametrize(
    ("kind", "failed"),
    [
        ("response.completed", None),
        ("response.incomplete", None),
        ("response.failed", "server_error"),
    ],
)
def test_a_response_ends_in_one_of_three_ways(kind: str, failed: str | None) -> None:
    usage = {"input_tokens": 3, "output_tokens": 5}
    error = {"code": "server_error", "message": "private words"} if failed else None
    reading = Reading(Dialect.RESPONSES)
    reading.feed(sse({"type": kind, "response": {"usage": usage, "error": error}}, kind))
    assert reading.reader.finished
    assert reading.reader.failed == failed
    assert reading.counts == (3, 5)


def test_tokens_from_the_cache_are_input_tokens_of_messages_too() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 30}
    usage["cache_creation_input_tokens"] = 400
    reading = Reading(Dialect.MESSAGES).feed(sse({"type": "message_delta", "usage": usage}, "message_delta"))
    assert reading.counts == (431, 2)


def test_a_message_that_is_cut_short_has_told_what_it_took_in() -> None:
    reading = Reading(Dialect.MESSAGES).feed(events_of(capture("messages"))[0])
    assert reading.counts == (33, 0)


# failures


def test_an_engine_that_dies_in_mid_stream_says_so_before_done() -> None:
    reading = Reading(hide=True).feed(*events_of(capture("chat-killed"))).end()
    assert reading.reader.failed == "InternalServerError"
    assert reading.reader.finished
    assert reading.passed == capture("chat-killed")


def test_and_in_messages_instead_of_their_end() -> None:
    reading = Reading(Dialect.MESSAGES).feed(*events_of(capture("messages-killed")))
    assert reading.reader.failed == "internal_error"
    assert not reading.reader.finished


@pytest.mark.parametrize(
    ("dialect", "event", "failed"),
    [
        (Dialect.CHAT, sse({"object": "error", "message": "x", "type": "EngineError", "code": 500}), "EngineError"),
        (Dialect.CHAT, sse({"error": "private words"}), "error"),
        (Dialect.CHAT, sse({"error": {"message": "private words", "type": "private words"}}), "error"),
        (Dialect.CHAT, sse({"error": {"code": 500}}), "500"),
        (Dialect.CHAT, sse({"error": None, "choices": []}), None),
        (Dialect.RESPONSES, sse({"error": {"type": "InternalServerError"}}), "InternalServerError"),
        (Dialect.RESPONSES, sse({"type": "error", "code": "server_error"}, "error"), "server_error"),
        (Dialect.MESSAGES, sse({"type": "error"}, "error"), "error"),
    ],
)  # fmt: skip
def test_failures_are_told_by_their_kind_never_by_their_message(
    dialect: Dialect, event: bytes, failed: str | None
) -> None:
    assert Reading(dialect).feed(event).reader.failed == failed


# bytes


@pytest.mark.parametrize("name", ["chat", "completion", "responses", "messages"])
@pytest.mark.parametrize("hide", [False, True])
def test_a_whole_event_passes_as_the_same_object(name: str, hide: bool) -> None:
    reader = Reading(DIALECTS[name], hide=hide).reader
    for event in events_of(capture(name)):
        assert reader.feed(event, 1.0) is event
    assert reader.rest() == b""


def test_without_hiding_every_byte_passes_at_once() -> None:
    reading = Reading()
    for byte in capture("chat-usage"):
        part = bytes((byte,))
        assert reading.reader.feed(part, 1.0) is part
    assert reading.reader.finished
    assert reading.counts == (33, 4)


def test_a_finish_is_held_only_until_the_next_event_whatever_it_is() -> None:
    finish = chunk({"content": "z"}, "stop")
    reading = Reading(hide=True).feed(finish)
    assert reading.passed == b""
    assert reading.exchange.tokens_seen == 1
    assert reading.feed(b": keep-alive\n\n").passed == finish + b": keep-alive\n\n"


def test_held_bytes_are_given_back_at_the_end() -> None:
    finish = chunk({}, "stop")
    assert Reading(hide=True).feed(finish).end().passed == finish
    assert Reading(hide=True).feed(b"data: {").end().passed == b"data: {"
    assert Reading(hide=True).feed(finish, b"data: {").end().passed == finish + b"data: {"
    known = Reading(hide=True, fingerprints={"one": FINGERPRINT}).feed(finish).end()
    assert known.passed == chunk({}, "stop", system_fingerprint=json.loads(FINGERPRINT)).replace(
        b', "system_fingerprint": ', b',"system_fingerprint":'
    )


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_line_ends_of_all_kinds(end: bytes) -> None:
    stream = capture("chat-usage").replace(b"\n", end)
    reading = Reading(hide=True).feed(stream).end()
    assert reading.reader.finished
    assert reading.counts == (33, 4)
    assert b"usage" not in reading.passed
    assert reading.passed.endswith(b"data: [DONE]" + end * 2)


def test_an_event_of_several_lines_is_one() -> None:
    event = b': why\nid: 7\ndata:{"choices":[{"index":0,\ndata: "delta":{"content":"a"}}]}\nretry: 5\n\n'
    reading = Reading().feed(event)
    assert reading.exchange.tokens_seen == 1
    assert reading.passed == event


# giants


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize("size", [1 << 10, 100_003, 9 << 20])
def test_an_event_too_long_to_be_read_passes_in_bounded_memory(hide: bool, size: int) -> None:
    stream = b'data: {"choices":[{"delta":{"content":"' + b"a" * (8 << 20) + b'"}}]}\n\n'
    parts = [stream[at : at + size] for at in range(0, len(stream), size)]
    reader = Reading(hide=hide).reader
    passed = 0
    tracemalloc.start()
    try:
        for part in parts:
            passed += len(reader.feed(part, 1.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert passed == len(stream)
    assert peak < (5 << 20 if size < len(stream) else 3 * len(stream))
    tail = Reading(hide=hide)
    tail.feed(stream, chunk({"content": "a"}), DONE)
    assert tail.exchange.tokens_seen == 1
    assert tail.reader.finished


def test_an_event_of_just_the_limit_is_read() -> None:
    empty = b'data: {"choices":[{"delta":{"content":""}}]}\n\n'
    for extra, tokens in ((0, 1), (1, 0)):
        words = b"a" * (EVENT_LIMIT - len(empty) + extra)
        event = empty.replace(b'""', b'"' + words + b'"')
        assert Reading().feed(event).exchange.tokens_seen == tokens
        assert Reading().feed(event[:1000], event[1000:]).exchange.tokens_seen == tokens


def test_the_end_of_a_response_counts_however_long_it_is() -> None:
    words = "a" * EVENT_LIMIT
    usage = {"input_tokens": 3, "output_tokens": 5}
    data = {"response": {"output": [words], "usage": usage, "user": None}, "type": "response.completed"}
    event = sse(data, "response.completed")
    for parts in ([event], [event[:20], event[20:700_000], event[700_000:-1], event[-1:]]):
        reading = Reading(Dialect.RESPONSES).feed(*parts)
        assert reading.reader.finished
        assert reading.counts == (3, 5)


@pytest.mark.parametrize(
    ("dialect", "name", "finished", "failed"),
    [
        (Dialect.RESPONSES, "response.failed", True, "error"),
        (Dialect.RESPONSES, "response.output_text.done", False, None),
        (Dialect.MESSAGES, "message_stop", True, None),
        (Dialect.MESSAGES, "error", False, "error"),
    ],
)
def test_a_giant_is_known_by_its_name(
    dialect: Dialect, name: str, finished: bool, failed: str | None
) -> None:
    reader = Reading(dialect).feed(sse({"words": "a" * EVENT_LIMIT}, name)).reader
    assert (reader.finished, reader.failed) == (finished, failed)


def test_a_held_finish_goes_before_a_giant() -> None:
    finish = chunk({}, "stop")
    giant = b"data: " + b"a" * (2 * EVENT_LIMIT)
    reading = Reading(hide=True).feed(finish, giant[:EVENT_LIMIT], giant[EVENT_LIMIT:], b"\n\n", DONE)
    assert reading.passed == finish + giant + b"\n\n" + DONE
