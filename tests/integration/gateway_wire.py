"""A plain engine and a plain client on the wire, and a relay between them, for tests of the gateway's HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from exporter.gateway.admission.fleet import Backend, Fleet, Standing
from exporter.gateway.admission.gate import Gate
from exporter.gateway.keys.check import Keys
from exporter.gateway.model import Exchange, Refusal
from exporter.gateway.relay.server import Relay
from exporter.gateway.routes import Routes
from exporter.settings.gateway import GatewaySettings

PATIENCE = 10.0
"""Seconds for anything that a test waits for."""
JSON_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@dataclass
class Message:
    """One message, as it came."""

    head: bytes
    body: bytes = b""
    trailers: bytes = b""
    whole: bool = True

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    def all(self, name: str) -> list[str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [
            value.strip() for key, _, value in (line.partition(":") for line in lines) if key.lower() == name
        ]

    def __getitem__(self, name: str) -> str:
        values = self.all(name)
        assert len(values) == 1, (name, self.head)
        return values[0]

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))


async def read_message(reader: asyncio.StreamReader, *, to_head: bool = False, answer: bool) -> Message:
    """Raises IncompleteReadError where the other side closes before a head is whole; a cut body is told by `whole`."""
    head = await reader.readuntil(b"\r\n\r\n")
    message = Message(head)
    if to_head or (answer and message.status in (100, 204, 304)):
        return message
    try:
        if "transfer-encoding" in message:
            while True:
                size = int((await reader.readuntil(b"\r\n")).split(b";")[0], 16)
                if not size:
                    break
                message.body += (await reader.readexactly(size + 2))[:-2]
            while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
                message.trailers += line
        elif "content-length" in message:
            message.body = await reader.readexactly(int(message["content-length"]))
        elif answer:
            message.body = await reader.read()
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        message.whole = False
        message.body += getattr(error, "partial", b"")
    return message


class Wire:
    """One side of a connection, with a time limit on everything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), PATIENCE)

    async def answer(self, *, to_head: bool = False) -> Message:
        return await asyncio.wait_for(read_message(self.reader, to_head=to_head, answer=True), PATIENCE)

    async def ask(self, data: bytes, *, to_head: bool = False) -> Message:
        await self.send(data)
        return await self.answer(to_head=to_head)

    async def some(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(1 << 20), PATIENCE)

    async def rest(self) -> bytes:
        """All until the other side closes, however it does that."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while piece := await self.some():
                data += piece
        return data

    async def is_closed(self) -> bool:
        return await self.rest() == b""

    def close(self) -> None:
        self.writer.close()

    def abort(self) -> None:
        self.writer.transport.abort()


Respond = Callable[[Message, Wire], Awaitable[object]]


@dataclass
class Engine:
    """An upstream that answers each request by `respond`, which gets the request and the connection."""

    respond: Respond
    requests: list[Message] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the gateway closes a connection."""

    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections += 1
        wire = Wire(reader, writer)
        try:
            stream = getattr(self.respond, "stream", None)
            while stream is not None:
                await stream(Message(await reader.readuntil(b"\r\n\r\n")), wire)
            while True:
                request = await read_message(reader, answer=False)
                self.requests.append(request)
                if request.whole:
                    await self.respond(request, wire)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.left.set()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()  # else its transport may outlive the event loop


def answering(answer: bytes) -> Respond:
    async def respond(request: Message, wire: Wire) -> None:
        await wire.send(answer)

    return respond


class Ledger:
    """A recorder that keeps what ended."""

    def __init__(self) -> None:
        self.begun = 0
        self.refusals: list[str] = []
        self.ended: list[Exchange] = []
        self._waiting: list[tuple[int, asyncio.Event]] = []

    def begin(self, exchange: Exchange) -> None:
        self.begun += 1

    def gap(self, model: str) -> Callable[[float], None]:
        return lambda seconds: None

    def refused(self, reason: str) -> None:
        self.refusals.append(reason)

    def end(self, exchange: Exchange) -> None:
        self.ended.append(exchange)
        for count, event in self._waiting:
            if len(self.ended) >= count:
                event.set()

    async def wait(self, count: int = 1) -> Exchange:
        """The last of `count` exchanges."""
        if len(self.ended) < count:
            event = asyncio.Event()
            self._waiting.append((count, event))
            await asyncio.wait_for(event.wait(), PATIENCE)
        return self.ended[count - 1]


class Clock:
    """Time that goes on, and can be moved."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


@dataclass
class Gateway:
    """A relay in front of engines of the test."""

    relay: Relay
    engines: list[Engine]
    ledger: Ledger
    clock: Clock
    port: int
    gate: Gate
    fleet: Fleet
    wires: list[Wire]

    @property
    def engine(self) -> Engine:
        return self.engines[0]

    async def client(self, tls: ssl.SSLContext | None = None) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22, ssl=tls))
        self.wires.append(wire)
        return wire

    async def ask(self, data: bytes, *, to_head: bool = False) -> Message:
        return await (await self.client()).ask(data, to_head=to_head)


@contextlib.asynccontextmanager
async def gateway(
    *responds: Respond,
    keys: Keys | None = None,
    local: Callable[[Exchange, str], bytes | Refusal | None] = lambda exchange, target: None,
    dead: int = 0,
    tls: ssl.SSLContext | None = None,
    engine_tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    **settings: Any,
) -> AsyncIterator[Gateway]:
    """A relay; one engine for each of `responds`, and `dead` further ones that nobody listens at, which come first."""
    clock = Clock()
    engines = [Engine(respond) for respond in responds]
    servers = [
        await asyncio.start_server(
            engine.serve, "127.0.0.1", 0, limit=1 << 22, ssl=None if engine_tls is None else engine_tls[0]
        )
        for engine in engines
    ]
    holes = []
    backends = []
    for number in range(dead):
        hole = socket.socket()
        hole.bind(("127.0.0.1", 0))  # bound and not listening: a connection to it is refused
        holes.append(hole)
        backends.append(
            Backend(
                f"dead{number}", "127.0.0.1", hole.getsockname()[1], models=["m"], standing=Standing.READY
            )
        )
    for number, (engine, server) in enumerate(zip(engines, servers, strict=True)):
        engine.port = server.sockets[0].getsockname()[1]
        backends.append(
            Backend(f"engine{number}", "127.0.0.1", engine.port, models=["m"], standing=Standing.READY)
        )
    if engine_tls is not None:
        for backend in backends:
            backend.tls = engine_tls[1]
    parsed = GatewaySettings(**settings)
    fleet = Fleet(backends)
    ledger = Ledger()
    gate = Gate(parsed, fleet, later=asyncio.get_running_loop().call_later, clock=clock)
    relay = Relay(
        parsed,
        routes=Routes(parsed.routes),
        keys=keys,
        gate=gate,
        fleet=fleet,
        recorder=ledger,
        local=local,
        clock=clock,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    await relay.start([listener], tls)
    wires: list[Wire] = []
    try:
        yield Gateway(relay, engines, ledger, clock, listener.getsockname()[1], gate, fleet, wires)
    finally:
        for wire in wires:
            wire.close()
        await relay.stop()
        await asyncio.sleep(0.01)  # a connection that the relay has just made is taken up, and then closed
        for server in servers:
            server.close()
        for hole in holes:
            hole.close()
        for engine in engines:
            if engine.tasks:
                await asyncio.wait(engine.tasks, timeout=PATIENCE)
        await asyncio.sleep(0)


def get(path: str = "/health", *lines: str, version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"GET {path} {version}", "Host: g", *lines, "", ""]).encode("latin-1")


def post(
    body: bytes = b'{"model":"m"}', *lines: str, path: str = "/v1/completions", length: int | None = None
) -> bytes:
    size = len(body) if length is None else length
    head = [
        f"POST {path} HTTP/1.1",
        "Host: g",
        "Content-Type: application/json",
        f"Content-Length: {size}",
        *lines,
        "",
        "",
    ]
    return "\r\n".join(head).encode("latin-1") + body


def chunked(*pieces: bytes, trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"


def sse(*events: bytes, end: bool = True) -> bytes:
    """An answer that streams events, each in a chunk."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events)
    return head + body + (b"0\r\n\r\n" if end else b"")


def token(text: str = "a") -> bytes:
    return b'data: {"id":"c","choices":[{"index":0,"text":"%b","finish_reason":null}]}\n\n' % text.encode()


DONE = b"data: [DONE]\n\n"
USAGE = (
    b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2}}\n\n'
)
