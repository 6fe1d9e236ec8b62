"""A name server that hangs delays nobody else."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

import pytest

from exporter.notify.receivers.http import HttpClient, Transport
from exporter.notify.receivers.resolving import Resolver, address_of


async def test_the_systems_resolver_is_asked() -> None:
    found = await Resolver().resolve("127.0.0.1", 80)
    assert [(one["hostname"], one["host"], one["port"]) for one in found] == [("127.0.0.1", "127.0.0.1", 80)]


async def test_an_endpoint_whose_name_hangs_ends_in_time_and_soon_says_so_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    def hang(*_: Any, **__: Any) -> Any:
        answered.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "later")

    monkeypatch.setattr("exporter.notify.receivers.resolving.socket.getaddrinfo", hang)
    client = HttpClient(Transport(timeout=0.05))
    try:
        problems = [(await client.post("http://hook.test/x", b"", {}, now=0.0)).problem for _ in range(5)]
        assert problems[:4] == ["hook.test:80 gave no answer within 0.05 s"] * 4
        assert problems[4] == "the name of hook.test:80 does not resolve"
        assert await asyncio.to_thread(lambda: True), "the threads that all share are free"
    finally:
        answered.set()
        await client.close()


def test_a_link_local_address_keeps_its_zone() -> None:
    assert address_of(("fe80::1", 80, 0, 2)) == "fe80::1%2"
    assert address_of(("fe80::1%eth0", 80, 0, 2)) == "fe80::1%eth0"
    assert address_of(("::1", 80, 0, 0)) == "::1"
    assert address_of(("10.0.0.1", 80)) == "10.0.0.1"
