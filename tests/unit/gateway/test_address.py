"""Where the gateway listens, which engines make room for it, and who is in the way."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from exporter.engine.command import EngineCommand, read_command
from exporter.errors import ConfigError
from exporter.gateway.address import (
    AddressTakenError,
    Candidate,
    GatewayOff,
    GatewayOn,
    listen,
    listen_when_free,
    plan,
)
from exporter.settings import GatewaySettings


def command(line: str, url: str | None = None) -> EngineCommand:
    return read_command(line.split(), {}, url=url, read_file=lambda name: "")


def engine(line: str, name: str = "engine", **more: Any) -> Candidate:
    return Candidate(name, command(line), **more)


ATTACHED = Candidate("there", None)


def on(*engines: Candidate, **settings: Any) -> GatewayOn:
    found = plan(GatewaySettings(**settings), engines)
    assert isinstance(found, GatewayOn), found
    return found


def off(*engines: Candidate, **settings: Any) -> str:
    found = plan(GatewaySettings(**settings), engines)
    assert isinstance(found, GatewayOff), found
    return found.reason


def test_the_gateway_takes_the_engines_own_address_and_the_engine_moves() -> None:
    assert on(engine("vllm serve M")) == GatewayOn("0.0.0.0", 8000, moves=frozenset({"engine"}))
    assert on(engine("vllm serve M --host ::1 --port 9")) == GatewayOn("::1", 9, moves=frozenset({"engine"}))
    assert on(engine("python -m exporter simulate --port 9")).host == "127.0.0.1"


def test_several_engines_that_would_listen_on_one_port_get_ports_of_their_own() -> None:
    a, b, c = (
        engine("vllm serve M", "a"),
        engine("vllm serve M", "b"),
        engine("vllm serve N --port 9", "c"),
    )
    assert on(a, b, c) == GatewayOn("0.0.0.0", 8000, moves=frozenset({"a", "b"}))
    assert on(a, b, c, listen=":9").moves == {"a", "b", "c"}
    assert on(a, b, c, listen=":7").moves == {"a", "b"}  # also the first one: two are told to be at 8000
    assert on(a, c, listen=":7").moves == frozenset()


def test_of_engines_with_one_port_the_one_that_cannot_move_keeps_it() -> None:
    fixed = engine("docker run vllm serve M", "fixed")
    assert on(fixed, engine("vllm serve M", "b"), listen=":7").moves == {"b"}
    left = engine("vllm serve M", "left", kept_at="http://127.0.0.1:8000")
    assert on(engine("vllm serve M", "b"), left, listen=":7").moves == {"b"}
    with pytest.raises(ConfigError, match="fixed and other both listen on port 8000, and neither can"):
        on(fixed, engine("docker run vllm serve M", "other"), listen=":7")


def test_an_engine_left_on_another_port_moves_off_the_gateways_when_it_starts_again() -> None:
    kept = engine("vllm serve M", kept_at="http://127.0.0.1:9")
    assert on(kept).moves == {"engine"}


def test_off_is_off_and_an_engine_that_is_only_watched_has_no_gateway_by_itself() -> None:
    assert off(engine("vllm serve M"), mode="off") == ""
    assert off(ATTACHED) == ""
    assert off(ATTACHED, listen=":9000") == ""


def test_an_engine_that_is_only_watched_gets_one_by_settings() -> None:
    assert on(ATTACHED, mode="on", listen=":9000") == GatewayOn("::", 9000)
    with pytest.raises(ConfigError, match=r"gateway\.mode: cannot be on: .* set gateway\.listen"):
        plan(GatewaySettings(mode="on"), [ATTACHED])


def test_on_a_port_of_its_own_the_gateway_leaves_the_engine_where_it_is() -> None:
    assert on(engine("vllm serve M"), listen="127.0.0.1:9000") == GatewayOn("127.0.0.1", 9000)
    assert on(engine("docker run vllm"), listen=":9000").moves == frozenset()
    assert on(engine("vllm serve M"), listen="127.0.0.1:8000").moves == {"engine"}


def test_an_engine_that_cannot_leave_its_port_keeps_the_gateway_off_and_the_log_says_why() -> None:
    reason = off(engine("docker run x vllm serve M"))
    assert reason == (
        "port 8000 is the engine's own, and it cannot be given another: docker may give it a network of its own; "
        "set gateway.listen to another port"
    )
    with pytest.raises(ConfigError, match=r"gateway\.listen: port 8000 is the engine's own"):
        plan(GatewaySettings(mode="on"), [engine("docker run x vllm serve M")])
    by_url = Candidate("e", command("vllm serve M --uds /s", url="http://127.0.0.1:7000"))
    assert "set gateway.listen" in off(by_url)
    assert "engine.url says" in off(by_url, listen=":7000")
    assert on(by_url, listen=":9000").moves == frozenset()


def test_an_engine_that_was_kept_on_the_port_is_not_stopped_for_the_gateway() -> None:
    assert "left it running at http://127.0.0.1:8000" in off(
        engine("vllm serve M", kept_at="http://127.0.0.1:8000")
    )
    elsewhere = engine("vllm serve M", kept_at="http://127.0.0.1:8000")
    assert on(elsewhere, listen=":9000").moves == frozenset()


def test_the_engines_certificate_becomes_the_gateways() -> None:
    tls = "vllm serve M --ssl-certfile c.pem --ssl-keyfile k.pem"
    found = on(engine(tls))
    assert (found.tls_cert_file, found.tls_key_file) == (Path("c.pem"), Path("k.pem"))
    own = on(engine(tls), tls_cert_file="o.pem", tls_key_file="p.pem")
    assert (own.tls_cert_file, own.tls_key_file) == (Path("o.pem"), Path("p.pem"))
    assert on(engine(tls), listen=":9000").tls_cert_file is None
    assert "go together" in off(engine("vllm serve M --ssl-certfile c.pem"))


def test_of_several_engines_those_on_the_gateways_port_move() -> None:
    a, b, c = (
        engine("vllm serve A", "a"),
        engine("vllm serve B", "b"),
        engine("vllm serve C --port 8001", "c"),
    )
    assert on(a, b, c, ATTACHED) == GatewayOn("0.0.0.0", 8000, moves=frozenset({"a", "b"}))
    assert on(c, a).port == 8001
    assert "docker" in off(c, engine("docker run x vllm serve D --port 8001", "d"))


def port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


def test_who_has_the_address_is_said() -> None:
    with listen("127.0.0.1", 0) as listener:
        with pytest.raises(
            AddressTakenError, match=rf"taken by process {os.getpid()}; .* set gateway\.listen"
        ) as caught:
            listen("127.0.0.1", port_of(listener))
        assert caught.value.holder is not None
        assert caught.value.holder.pid == os.getpid()
        with pytest.raises(AddressTakenError):
            listen("0.0.0.0", port_of(listener))


def test_all_interfaces_are_those_of_both_kinds() -> None:
    with listen("::", 0) as listener, socket.create_connection(("127.0.0.1", port_of(listener)), timeout=5):
        pass
    with listen("localhost", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert not listener.getblocking()


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1:0: .*no interface of this machine has this address"):
        listen("192.0.2.1", 0)
    with pytest.raises(ConfigError, match="cannot resolve the host"):
        listen("no such host", 0)


async def test_a_port_that_is_still_held_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.gateway.address.LOOK_SECONDS", 0.01)
    held = listen("127.0.0.1", 0)
    port = port_of(held)
    waiting = asyncio.create_task(listen_when_free("127.0.0.1", port))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    held.close()
    async with asyncio.timeout(10):
        with await waiting as listener:
            assert port_of(listener) == port
