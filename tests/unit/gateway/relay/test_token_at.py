"""When an engine last gave a user a token, as the relay sees it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from exporter.gateway.admission.fleet import Backend, Fleet
from exporter.gateway.admission.gate import Gate
from exporter.gateway.relay.server import Relay
from exporter.gateway.routes import Routes
from exporter.settings.gateway import GatewaySettings


class Idle:
    passage = None


class Running:
    def __init__(self, backend: str, last_token: float | None) -> None:
        self.passage = SimpleNamespace(exchange=SimpleNamespace(backend=backend, last_token=last_token))


async def test_the_latest_token_of_what_runs_at_an_engine_counts_and_nothing_of_another_engines() -> None:
    settings = GatewaySettings()
    fleet = Fleet([Backend("a", "127.0.0.1", 1), Backend("b", "127.0.0.1", 2)])
    recorder: Any = None
    relay = Relay(
        settings,
        routes=Routes(()),
        keys=None,
        gate=Gate(settings, fleet, later=asyncio.get_running_loop().call_later),
        fleet=fleet,
        recorder=recorder,
        local=lambda exchange, target: None,
    )
    assert relay.token_at("a") is None
    told = (("a", 3.0), ("a", 5.0), ("a", None), ("b", 9.0))
    relay._connections |= {Idle(), *(Running(backend, at) for backend, at in told)}  # type: ignore[arg-type]
    assert relay.token_at("a") == 5.0
    assert relay.token_at("b") == 9.0
    assert relay.token_at("c") is None
