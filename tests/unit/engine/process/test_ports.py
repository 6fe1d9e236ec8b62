"""Who listens on a port."""

from __future__ import annotations

import os
import socket

import pytest

from exporter.engine.process.ports import port_holder, port_is_free


@pytest.mark.parametrize(
    ("bound", "asked", "free"),
    [
        ("127.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "localhost", False),
        ("127.0.0.1", "0.0.0.0", False),
        ("0.0.0.0", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.2", True),
    ],
)
def test_a_port_is_free_unless_the_address_overlaps(bound: str, asked: str, free: bool) -> None:
    with socket.socket() as listener:
        listener.bind((bound, 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert port_is_free(asked, port) is free
        holder = port_holder(asked, port)
        assert (holder.pid if holder else None) == (None if free else os.getpid())
    assert port_is_free(asked, port)
    assert port_holder(asked, port) is None


def test_ipv6_counts_for_ipv4_when_it_faces_everything() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError:
        pytest.skip("no IPv6")
    with listener:
        port = listener.getsockname()[1]
        assert not port_is_free("127.0.0.1", port)
        assert not port_is_free("[::1]", port)


def test_a_bound_port_without_a_listener_and_an_unknown_host_are_free() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert port_is_free("127.0.0.1", bound.getsockname()[1])
    assert port_is_free("no-such-host.invalid", 1)
