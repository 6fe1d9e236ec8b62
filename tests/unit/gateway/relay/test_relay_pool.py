"""Connections to an engine that cannot be had."""

from __future__ import annotations

import asyncio

import pytest

from exporter.gateway.admission.fleet import Backend
from exporter.gateway.relay.engine import EngineConnection
from exporter.gateway.relay.polling import Poller
from exporter.gateway.relay.pool import Pool


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "..", "127.0.0.1"])
@pytest.mark.parametrize("polled", [True, False])
async def test_whoever_waits_for_a_connection_is_told_that_there_is_none(host: str, polled: bool) -> None:
    """A host name that IDNA refuses raised a ValueError: the request kept its place for ever."""
    loop = asyncio.get_running_loop()
    poller = Poller(loop) if polled else None
    told: asyncio.Future[EngineConnection | OSError] = loop.create_future()
    pool = Pool(Backend("engine", host, 1), connect_timeout=5.0, loop=loop, poller=poller)
    pool.connect(told.set_result)
    assert isinstance(await asyncio.wait_for(told, 10), OSError)
    pool.close()
    if poller is not None:
        poller.close()
