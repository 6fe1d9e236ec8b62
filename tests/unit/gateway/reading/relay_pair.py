"""A client's connection and an engine's with nothing between but the gateway's own code, to compare its short ways with its long one."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple
from unittest import mock

import httptools

from exporter.exposition.block import Block
from exporter.gateway.admission.fleet import Backend, Fleet, Standing
from exporter.gateway.admission.gate import Gate
from exporter.gateway.measuring.recorder import Recorder
from exporter.gateway.model import Exchange
from exporter.gateway.relay import engine as engine_module
from exporter.gateway.relay import passage as passage_module
from exporter.gateway.relay.bodies import ChunkedBody
from exporter.gateway.relay.client import ClientConnection
from exporter.gateway.relay.engine import EngineConnection
from exporter.gateway.relay.pool import Pool
from exporter.gateway.relay.server import Relay
from exporter.gateway.routes import Routes
from exporter.settings import SliSettings
from exporter.settings.gateway import GatewaySettings


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 50000) if name == "peername" else default

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    abort = close


class CountedConnection(EngineConnection):
    """Counts what goes the long way."""

    reads = 0

    def read(self, data: bytes) -> None:
        self.reads += 1
        super().read(data)


class Pair:
    """The two connections. `short` False: all that is read goes the long way, byte by byte through the parser of chunks."""

    def __init__(self, *, short: bool = True) -> None:
        settings = GatewaySettings()
        backend = Backend("engine", "127.0.0.1", 1, models=["m"], standing=Standing.READY)
        fleet = Fleet([backend])
        loop = asyncio.new_event_loop()
        self.ended: list[Exchange] = []
        self.gaps: list[float] = []
        recorder = Recorder(
            Block(), Block(), SliSettings(), model_limit=9, patience=2.0, ended=self.ended.append
        )
        recorder.gap = lambda model: self.gaps.append  # type: ignore[method-assign]
        self.now = 100.0
        relay = Relay(
            settings,
            routes=Routes(),
            keys=None,
            gate=Gate(settings, fleet, later=loop.call_later),
            fleet=fleet,
            recorder=recorder,
            local=lambda exchange, target: None,
            clock=lambda: self.now,
        )
        relay.loop = loop
        pool = backend.pool = Pool(backend, connect_timeout=1.0, loop=loop, poller=None)
        loop.close()
        self.engine = CountedConnection(pool)
        self.engine.connection_made(Wire())
        pool.put(self.engine, 0.0)
        self.client = ClientConnection(relay)
        self.client.connection_made(Wire())
        self.short = short
        self.glanced = 0

    def ask(self, body: bytes) -> Exchange:
        """The client asks."""
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.client.data_received(head + body)
        assert self.client.passage is not None
        return self.client.passage.exchange

    def hear(self, data: bytes, after: float = 1.0) -> None:
        """The engine answers, so many seconds later."""
        self.now += after
        if self.engine.transport.is_closing():
            return
        if self.short:
            before, reads = self.client.transport.written, self.engine.reads  # type: ignore[attr-defined]
            self.engine.data_received(data)
            if self.engine.reads == reads:
                self.glanced += 1
                assert self.client.transport.written == before + data  # type: ignore[attr-defined]
            return
        with (
            mock.patch.object(engine_module, "plain_events", return_value=None),
            mock.patch.object(passage_module, "is_one_chunk", return_value=False),
        ):
            self.engine.data_received(data)


class Told(NamedTuple):
    """What came of it."""

    content: bytes
    cut: bool
    facts: tuple[object, ...]
    gaps: list[float]


def told(
    reads: list[bytes], *, hides: bool, short: bool, pair: Pair | None = None, breaks: bool = False
) -> Told:
    """What the client gets, and is measured, of an answer in these reads; `hides`: it did not ask for counts; `breaks`: then the
    engine is gone. `pair`: connections that have had answers before.
    """
    pair = pair or Pair(short=short)
    wire = pair.client.transport
    assert isinstance(wire, Wire)
    wire.written = b""
    pair.gaps.clear()
    pair.glanced = 0
    asked = b"" if hides else b',"stream_options":{"include_usage":true}'
    of = pair.ask(b'{"model":"m","stream":true%b}' % asked)
    began = pair.now
    for raw in reads:
        pair.hear(raw)
    if breaks and not pair.engine.transport.is_closing():
        pair.engine.connection_lost(None)
    heard = 0.0 if pair.client.passage is None else pair.client.passage.last_heard() - began
    head, _, rest = wire.written.partition(b"\r\n\r\n")
    body = ChunkedBody()
    content = b""
    try:
        content = body.feed(rest)
    except httptools.HttpParserError:
        assert wire.is_closing()
    told.glanced = pair.glanced  # type: ignore[attr-defined]
    times = [None if time is None else time - began for time in (of.first_token, of.last_token)]
    facts = (
        head.partition(b"X-Request-Id")[0], of.status, of.outcome, of.reason, of.tokens_seen, *times, heard,
        of.input_tokens, of.output_tokens, len(pair.ended), body.complete, pair.engine.transport.is_closing(),
    )  # fmt: skip
    assert of.response_bytes == len(wire.written)
    return Told(content, wire.is_closing(), facts, pair.gaps[:])
