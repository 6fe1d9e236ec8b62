"""Lines of the access log."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from exporter.gateway.measuring.access_log import AccessLog
from exporter.gateway.model import Dialect, Endpoint, Exchange, Outcome

CHAT = Endpoint("/v1/chat/completions", Dialect.CHAT, frozenset({"POST"}))
HEALTH = Endpoint("/health", Dialect.OPAQUE, frozenset({"GET"}), counted=False)


def exchange(endpoint: Endpoint = CHAT, outcome: Outcome = Outcome.SUCCESS, **facts: Any) -> Exchange:
    made = Exchange(endpoint, "POST", "req-1", "10.0.0.1", 100.0)
    made.outcome, made.ended = outcome, 101.5
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def test_a_line_says_who_what_how_long_and_how_it_ended() -> None:
    with structlog.testing.capture_logs() as lines:
        AccessLog("all").ended(
            exchange(
                key="team-a", model="模型", backend="engine", status=200, first_token=100.25, received=100.0,
                sent_at=100.125, input_tokens=5, output_tokens=6, stream=True,
            )
        )  # fmt: skip
    assert lines == [
        {
            "event": "request", "log_level": "info", "request_id": "req-1", "client": "10.0.0.1",
            "route": "/v1/chat/completions", "status": 200, "outcome": "success", "seconds": 1.5, "key": "team-a",
            "model": "模型", "engine": "engine", "ttft": 0.25, "queued": 0.125, "input_tokens": 5, "output_tokens": 6,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("which", "one", "written"),
    [
        ("all", exchange(), True),
        ("all", exchange(HEALTH), False),
        ("all", exchange(HEALTH, Outcome.ENGINE_UNREACHABLE), True),
        ("errors", exchange(), False),
        ("errors", exchange(outcome=Outcome.ABORTED), False),
        ("errors", exchange(outcome=Outcome.REJECTED), True),
        ("off", exchange(outcome=Outcome.REJECTED), False),
    ],
)
def test_who_gets_a_line(which: Any, one: Exchange, written: bool) -> None:
    assert AccessLog(which).wants(one) is written
