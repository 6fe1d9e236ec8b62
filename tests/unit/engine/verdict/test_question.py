"""The smallest question: what is sent, and what an answer says."""

from __future__ import annotations

import json

import pytest

from exporter.engine.verdict.question import BEFORE_EVERYONE, Surface, TokenOutcome, TokenStream, refused

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
CHAT = b'data: {"choices":[{"index":0,"delta":{"content":"Yes"},"finish_reason":"length"}]}\n\n'
EMPTY_END = b'data: {"choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}]}\n\n'
TEXT = b'data: {"choices":[{"index":0,"text":"x","finish_reason":"length"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}\n\n'
DONE = b"data: [DONE]\n\n"


def read(data: bytes, size: int = 1 << 20) -> TokenStream:
    stream = TokenStream()
    for start in range(0, len(data), size):
        stream.feed(data[start : start + size])
    return stream


@pytest.mark.parametrize("surface", [Surface.COMPLETIONS, Surface.CHAT])
def test_one_token_is_asked_for_streamed_and_with_its_usage(surface: Surface) -> None:
    body = surface.question("m", "1", first=False)
    assert (body["model"], body["max_tokens"], body["temperature"], body["stream"]) == ("m", 1, 0, True)
    assert body["stream_options"] == {"include_usage": True}
    assert "priority" not in body, "vLLM refuses one where its scheduler has none"


def test_embeddings_are_asked_for_as_a_whole() -> None:
    assert Surface.EMBEDDINGS.question("m", "1", first=False) == {"model": "m", "input": "1"}


@pytest.mark.parametrize("surface", list(Surface))
def test_before_everyone_is_the_least_priority_that_vllm_takes(surface: Surface) -> None:
    assert surface.question("m", "1", first=True)["priority"] == BEFORE_EVERYONE == -(2**63)


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("events", [ROLE + CHAT, ROLE + EMPTY_END, TEXT])
def test_a_token_is_seen_however_the_stream_is_cut(events: bytes, size: int) -> None:
    stream = read(events + USAGE + DONE, size)
    assert stream.has_token
    assert stream.finished
    assert not stream.failed
    assert (stream.input_tokens, stream.output_tokens) == (3, 1)


def test_a_role_and_a_usage_are_no_tokens() -> None:
    assert not read(ROLE + USAGE).has_token


def test_an_end_that_never_came_is_not_there() -> None:
    assert not read(TEXT).finished


@pytest.mark.parametrize(
    "event", [b'data: {"error":{"code":500}}\n\n', b"data: {nonsense\n\n", b"data: 7\n\n"]
)
def test_an_error_in_mid_stream_is_one(event: bytes) -> None:
    assert read(ROLE + event).failed


def test_comments_and_other_fields_are_passed_over() -> None:
    assert not read(b": ping\n\nevent: x\nid: 7\n\n" + TEXT).failed


def test_reasoning_is_a_token_too() -> None:
    event = {"choices": [{"delta": {"reasoning_content": "hm"}, "finish_reason": None}]}
    assert read(b"data: " + json.dumps(event).encode() + b"\n\n").has_token


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (302, TokenOutcome.CLIENT_ERROR),
        (401, TokenOutcome.CLIENT_ERROR),
        (404, TokenOutcome.CLIENT_ERROR),
        (501, TokenOutcome.CLIENT_ERROR),
        (429, TokenOutcome.REJECTED),
        (503, TokenOutcome.REJECTED),
        (502, TokenOutcome.REJECTED),
        (500, TokenOutcome.ENGINE_ERROR),
    ],
)
def test_a_status_says_whose_fault_it_is(status: int, outcome: TokenOutcome) -> None:
    assert refused(status) is outcome
