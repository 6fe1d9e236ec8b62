"""Each way in which a request can end has one outcome; the first cause counts."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.gateway.model import Dialect, Endpoint, Exchange, Outcome
from exporter.gateway.reading.outcome import counts_for_ttft, judge


def an_exchange(first_token: float | None = None, *, stream: bool = True) -> Exchange:
    exchange = Exchange(Endpoint("/v1/some", Dialect.CHAT, frozenset()), "POST", "0123", "127.0.0.1", 100.0)
    exchange.stream = stream
    exchange.first_token = first_token
    return exchange


OK: dict[str, Any] = {"status": 200, "whole": True}
STREAM: dict[str, Any] = {"status": 200, "finished": False}
NOTHING: dict[str, Any] = {"status": None}


@pytest.mark.parametrize(
    ("facts", "outcome", "reason"),
    [
        # whole answers
        (OK, Outcome.SUCCESS, ""),
        ({**OK, "status": 204}, Outcome.SUCCESS, ""),
        ({**OK, "status": 307}, Outcome.SUCCESS, ""),
        ({**OK, "status": 400}, Outcome.CLIENT_ERROR, "status_400"),
        ({**OK, "status": 401}, Outcome.CLIENT_ERROR, "status_401"),
        ({**OK, "status": 404}, Outcome.CLIENT_ERROR, "status_404"),
        ({**OK, "status": 429}, Outcome.CLIENT_ERROR, "status_429"),
        ({**OK, "status": 500}, Outcome.ENGINE_ERROR, "status_500"),
        ({**OK, "status": 503}, Outcome.REJECTED, "status_503"),
        ({**OK, "status": 504}, Outcome.ENGINE_ERROR, "status_504"),
        # streams
        ({**OK, "finished": True}, Outcome.SUCCESS, ""),
        ({**OK, "finished": False}, Outcome.TRUNCATED, "no_end"),
        (STREAM, Outcome.TRUNCATED, "reset"),
        ({**STREAM, "finished": True}, Outcome.SUCCESS, ""),
        ({**OK, "finished": True, "failed": "InternalServerError"}, Outcome.ENGINE_ERROR, "InternalServerError"),
        ({**STREAM, "failed": "internal_error"}, Outcome.ENGINE_ERROR, "internal_error"),
        # the client leaves
        ({**NOTHING, "client_left": True}, Outcome.ABORTED, "before_token"),
        ({"status": 200, "client_left": True}, Outcome.ABORTED, "before_token"),
        ({**OK, "client_left": True}, Outcome.ABORTED, "before_token"),
        ({**STREAM, "client_left": True}, Outcome.ABORTED, "before_token"),
        ({**STREAM, "finished": True, "client_left": True}, Outcome.SUCCESS, ""),
        ({**STREAM, "failed": "error", "client_left": True}, Outcome.ENGINE_ERROR, "error"),
        ({"status": 500, "client_left": True}, Outcome.ENGINE_ERROR, "status_500"),
        ({"status": 400, "client_left": True}, Outcome.CLIENT_ERROR, "status_400"),
        ({**NOTHING, "client_left": True, "connected": False}, Outcome.ABORTED, "before_token"),
        # the engine is silent
        ({**NOTHING, "timed_out": True}, Outcome.TIMEOUT, "silent"),
        ({**STREAM, "timed_out": True}, Outcome.TIMEOUT, "silent"),
        ({**STREAM, "finished": True, "timed_out": True}, Outcome.SUCCESS, ""),
        # the engine is gone
        ({**NOTHING, "connected": False}, Outcome.ENGINE_UNREACHABLE, "connect"),
        (NOTHING, Outcome.ENGINE_UNREACHABLE, "reset"),
        ({"status": 200}, Outcome.TRUNCATED, "reset"),
        ({"status": 500}, Outcome.ENGINE_ERROR, "status_500"),
        # what it said was not HTTP
        ({**NOTHING, "broken": True}, Outcome.ENGINE_ERROR, "protocol"),
        ({**STREAM, "broken": True}, Outcome.ENGINE_ERROR, "protocol"),
        ({**STREAM, "finished": True, "broken": True}, Outcome.SUCCESS, ""),
    ],
)  # fmt: skip
def test_facts_have_one_outcome(facts: dict[str, Any], outcome: Outcome, reason: str) -> None:
    exchange = an_exchange()
    assert judge(exchange, **facts) is outcome
    assert exchange.outcome is outcome
    assert exchange.reason == reason


def test_one_who_left_with_tokens_left_after_them() -> None:
    exchange = an_exchange(first_token=101.0)
    judge(exchange, status=200, finished=False, client_left=True)
    assert exchange.reason == "after_token"


def test_the_first_token_counts_from_the_first_byte_of_the_request() -> None:
    assert counts_for_ttft(an_exchange(first_token=100.5), patience=2.0) == 0.5


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_token_counts_however_the_answer_ended(outcome: Outcome) -> None:
    exchange = an_exchange(first_token=100.5)
    exchange.outcome = outcome
    exchange.ended = 200.0
    assert counts_for_ttft(exchange, patience=2.0) == 0.5


@pytest.mark.parametrize(("waited", "counts"), [(30.0, True), (2.0, True), (1.9, False), (0.0, False)])
def test_one_who_gave_up_counts_with_the_wait_if_it_was_long(waited: float, counts: bool) -> None:
    exchange = an_exchange()
    exchange.outcome = Outcome.ABORTED
    exchange.ended = 100.0 + waited
    assert counts_for_ttft(exchange, patience=2.0) == (waited if counts else None)


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.ABORTED])
def test_other_ends_without_a_token_say_nothing(outcome: Outcome) -> None:
    exchange = an_exchange()
    exchange.outcome = outcome
    exchange.ended = 200.0
    assert counts_for_ttft(exchange, patience=2.0) is None


def test_an_answer_that_is_not_streamed_has_no_first_token() -> None:
    exchange = an_exchange(stream=False)
    exchange.outcome = Outcome.ABORTED
    exchange.ended = 200.0
    assert counts_for_ttft(exchange, patience=2.0) is None
