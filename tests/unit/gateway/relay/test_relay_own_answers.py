"""Answers of the gateway's own."""

from __future__ import annotations

import json

from exporter.gateway.model import Outcome, Refusal
from exporter.gateway.relay.own_answers import chunk, error_event, refusal_answer, whole_answer


def refusal(status: int = 429, retry_after: float | None = None) -> Refusal:
    return Refusal(
        status, "rate_limit_error", "queue_full", "Full ä.", Outcome.REJECTED, retry_after=retry_after
    )


def test_a_refusal_is_openais_error_object() -> None:
    head, _, body = refusal_answer(refusal()).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n")
    assert b"Content-Length: %d" % len(body) in head
    error = {"message": "Full ä.", "type": "rate_limit_error", "param": None, "code": "queue_full"}
    assert json.loads(body) == {"error": error}
    assert b"Retry-After" not in head


def test_retry_after_is_whole_seconds_and_never_too_early() -> None:
    assert b"Retry-After: 3\r\n" in refusal_answer(refusal(retry_after=2.01))
    assert b"Retry-After: 1\r\n" in refusal_answer(refusal(retry_after=0.0))


def test_head_gets_no_body_but_its_length() -> None:
    assert whole_answer(200, b"abc", with_body=False).endswith(b"Content-Length: 3\r\n\r\n")


def test_an_error_event_is_one_event() -> None:
    event = error_event(refusal())
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2


def test_no_chunk_is_empty_because_that_would_be_the_last() -> None:
    assert chunk(b"") == b""
    assert chunk(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"
