"""What a sample of requests said and was told."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
import structlog

from exporter.gateway.measuring.content import KEPT, MOST_AT_ONCE, SHOWN, ContentLog
from exporter.gateway.model import Dialect, Endpoint, Exchange, Outcome
from exporter.gateway.relay.answer import Answer
from exporter.gateway.relay.answer_heads import AnswerHead

CHAT = Endpoint("/v1/chat/completions", Dialect.CHAT, frozenset({"POST"}))
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def exchange(endpoint: Endpoint = CHAT) -> Exchange:
    return Exchange(endpoint, "POST", "request-1", "10.0.0.1", 100.0)


def head(*, stream: bool = False, encoded: bool = False, status: int = 200) -> AnswerHead:
    made = AnswerHead(EVENTS)
    made.status, made.event_stream, made.json, made.encoded = status, stream, not stream, encoded
    made.chunked = stream
    return made


def answered(log: ContentLog, of: Exchange, *pieces: bytes, **kind: Any) -> Answer:
    answer = log.answer(
        of, head(**kind), EVENTS, None, modern=True, asked_usage=False, extra=b"",
        gaps=lambda model: lambda seconds: None, fingerprints={},
    )  # fmt: skip
    for piece in pieces:
        answer.came(piece, piece, False, 101.0)
    return answer


def written(log: ContentLog, of: Exchange) -> dict[str, Any] | None:
    of.outcome = Outcome.SUCCESS
    with structlog.testing.capture_logs() as lines:
        log.ended(of)
    return dict(lines[0]) if lines else None


def event(**delta: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()


def test_a_stream_is_written_down_as_the_text_that_was_in_it_whatever_its_pieces():
    log, of = ContentLog(1.0, Random(1)), exchange()
    log.asked(of, b'{"messages": [{"role": "user", "content": "Moin"}]}')
    stream = (
        event(role="assistant", content="")
        + event(content="Guten ")
        + event(content="Täg.")
        + b"data: [DONE]\n\n"
    )
    answered(log, of, stream[:70], stream[70:], stream=True)
    line = written(log, of)
    assert line is not None
    assert line["event"] == "request_content"
    assert line["request_id"] == "request-1"
    assert line["prompt"] == '{"messages": [{"role": "user", "content": "Moin"}]}'
    assert line["reply"] == "Guten Täg."
    assert line["reply_bytes"] == len(stream)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"choices": [{"text": "of a completion"}]}, "of a completion"),
        ({"choices": [{"delta": {"reasoning_content": "hm"}}]}, "hm"),
        ({"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}}]}, "f{}"),
        ({"type": "response.output_text.delta", "delta": "of responses"}, "of responses"),
        ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "of messages"}}, "of messages"),
        ({"choices": [None, {"delta": 3}, {"delta": {"tool_calls": [None]}}], "delta": []}, 'data: {"choices"'),
    ],
)  # fmt: skip
def test_the_text_is_found_in_every_dialect(data: dict[str, Any], text: str):
    log, of = ContentLog(1.0, Random(1)), exchange()
    log.asked(of, b"{}")
    answered(log, of, b"data: %b\n\n" % json.dumps(data).encode(), stream=True)
    line = written(log, of)
    assert line is not None
    assert line["reply"].startswith(text)


def test_an_answer_that_comes_whole_is_written_down_as_it_is_and_an_error_too():
    log, of = ContentLog(1.0, Random(1)), exchange()
    log.asked(of, b"{}")
    answered(log, of, b'{"error": {"message": "no"}}', status=400)
    line = written(log, of)
    assert line is not None
    assert line["reply"] == '{"error": {"message": "no"}}'


def test_prompt_and_reply_are_cut():
    log, of = ContentLog(1.0, Random(1)), exchange()
    log.asked(of, b"x" * 10_000)
    answered(log, of, *[event(content="y" * 100)] * 5000, stream=True)
    line = written(log, of)
    assert line is not None
    assert line["prompt"] == "x" * SHOWN
    assert line["prompt_bytes"] == 10_000
    assert line["reply"] == "y" * SHOWN
    assert line["reply_bytes"] > KEPT


def test_what_cannot_be_read_is_left_out():
    """A body that streamed through, and a compressed answer."""
    log, of = ContentLog(1.0, Random(1)), exchange()
    log.asked(of, None)
    answered(log, of, b"\x1f\x8b\x08", encoded=True)
    line = written(log, of)
    assert line is not None
    assert line["prompt"] is None
    assert line["reply"] is None


def test_a_request_that_no_engine_answered_has_its_prompt_all_the_same():
    log, of = ContentLog(1.0, Random(1)), exchange()
    log.asked(of, b"{}")
    line = written(log, of)
    assert line is not None
    assert (line["prompt"], line["reply"], line["reply_bytes"]) == ("{}", None, 0)


def test_a_share_of_the_users_requests_is_written_down_and_no_others():
    log = ContentLog(0.25, Random(1))
    lines = 0
    for _ in range(1000):
        of = exchange()
        log.asked(of, b"{}")
        assert type(answered(log, of)) is Answer or written(log, of) is not None
        lines += of.outcome is not None
    assert 200 < lines < 300
    for endpoint in (
        Endpoint("/health", Dialect.OPAQUE, frozenset({"GET"}), counted=False),
        Endpoint("/v1/audio/transcriptions", Dialect.OPAQUE, frozenset({"POST"})),
    ):
        everything = ContentLog(1.0, Random(1))
        of = exchange(endpoint)
        everything.asked(of, b"audio")
        assert written(everything, of) is None


def test_so_many_are_listened_to_at_once_and_no_more():
    log = ContentLog(1.0, Random(1))
    running = [exchange() for _ in range(MOST_AT_ONCE + 1)]
    for of in running:
        log.asked(of, b"{}")
    assert written(log, running[-1]) is None
    assert written(log, running[0]) is not None
    later = exchange()
    log.asked(later, b"{}")
    assert written(log, later) is not None
