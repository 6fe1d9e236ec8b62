from __future__ import annotations

import pytest

from exporter.gateway.admission.limits import settled_priority
from exporter.gateway.keys.key import Key
from exporter.gateway.model import Dialect, Endpoint, Exchange, Priority

CHAT = Endpoint("/v1/chat/completions", Dialect.CHAT, frozenset({"POST"}))
I, B = Priority.INTERACTIVE, Priority.BATCH  # noqa: E741


@pytest.mark.parametrize(
    ("asked", "key", "settled"),
    [(None, None, I), (None, I, I), (None, B, B), (I, None, I), (I, I, I), (I, B, B), (B, None, B), (B, I, B), (B, B, B)],
)  # fmt: skip
def test_a_client_may_lower_itself_but_not_raise_itself_above_its_key(
    asked: Priority | None, key: Priority | None, settled: Priority
):
    exchange = Exchange(CHAT, "POST", "id", "10.0.0.1", 0.0)
    exchange.asked_priority = asked
    limits = None if key is None else Key("k", priority=key)
    assert settled_priority(exchange, limits) is settled
    exchange.priority = settled
    assert settled_priority(exchange, limits) is settled, "settled once is settled"
