"""All client connections of the gateway: where they are accepted, watched over and, in the end, closed."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import select
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from exporter.gateway.model import Exchange, Refusal
from exporter.gateway.relay.client import ClientConnection
from exporter.gateway.relay.polling import Poller
from exporter.gateway.relay.pool import Pool
from exporter.gateway.relay.sockets import SocketTransport
from exporter.ticks import next_tick

if TYPE_CHECKING:
    from exporter.gateway.admission.fleet import Backend, Fleet
    from exporter.gateway.admission.gate import Gate
    from exporter.gateway.keys.check import Keys
    from exporter.gateway.relay.answer import Answer
    from exporter.gateway.relay.answer_heads import AnswerHead
    from exporter.gateway.routes import Routes
    from exporter.settings.gateway import GatewaySettings

SWEEP_EVERY: Final = 0.25
"""Seconds between two looks for what takes too long: no request has a timer of its own."""
_SWEEP_QUIET: Final = 1.0
"""The same while there is no client at all: no more often than the daemon wakes up anyhow."""
HELD_LIMIT: Final = 256 << 20
"""Bytes of request bodies that are held, of all clients together."""
_BACKLOG: Final = 1024
_ROOM: Final = 16
"""Idle connections that are closed at a time where no more files may be opened."""
_HANDSHAKES: Final = 256
"""TLS handshakes under way, at 300 KB each in asyncio, and never more than a quarter of what may be connected: they take
milliseconds. One more, and the oldest is given up."""
_HANDSHAKE_SECONDS: Final = 10.0


class Recorder(Protocol):
    """Who is told of each request."""

    def begin(self, exchange: Exchange) -> None: ...
    def gap(self, model: str) -> Callable[[float], None]: ...
    def end(self, exchange: Exchange) -> None: ...
    def refused(self, reason: str) -> None: ...


class Content(Protocol):
    """Who listens to what some requests say and are told, for debugging: `exporter.gateway.measuring.content`."""

    def asked(self, exchange: Exchange, body: bytes | None) -> None: ...
    def answer(self, exchange: Exchange, head: AnswerHead, *rest: Any, **more: Any) -> Answer: ...


class Relay:
    """The gateway's data plane. `local` gives the body of an answer of our own, a refusal, or None for an engine to answer."""

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        routes: Routes,
        keys: Keys | None,
        gate: Gate,
        fleet: Fleet,
        recorder: Recorder,
        local: Callable[[Exchange, str], bytes | Refusal | None],
        content: Content | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.body_limit = settings.body_limit
        self.read_timeout = settings.read_timeout
        self.idle_timeout = settings.idle_timeout
        self.routes = routes
        self.keys = keys
        self.gate = gate
        self.fleet = fleet
        self.recorder = recorder
        self.local = local
        self.content = content
        self.clock = clock
        self.now = clock()
        """The time of the last sweep: good enough for what lasts minutes."""
        self.held_bytes = 0
        self.held_limit = HELD_LIMIT
        self.draining = False
        self.idle: dict[ClientConnection, None] = {}
        """Connections without a request, or with a part of its head only, the longest idle first."""
        self.fingerprints: dict[str, bytes] = {}
        self.loop: asyncio.AbstractEventLoop
        self._connections: set[ClientConnection] = set()
        self._pools: list[Pool] = []
        self._servers: list[asyncio.Server] = []
        self._listeners: list[socket.socket] = []
        self._handshakes: dict[asyncio.Task[None], None] = {}
        self._poller: Poller | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._quiet = False
        """Whether the last sweep found no client."""
        self._drained: asyncio.Event | None = None

    @property
    def connections(self) -> int:
        """Open connections of clients."""
        return len(self._connections)

    @property
    def running(self) -> int:
        """Requests that have begun and not ended."""
        return sum(connection.passage is not None for connection in self._connections)

    def token_at(self, backend: str) -> float | None:
        """When a request that runs at this backend last got a token; None where none did. Looks at every connection."""
        passages = [connection.passage for connection in self._connections]
        exchanges = [passage.exchange for passage in passages if passage is not None]
        times = [x.last_token for x in exchanges if x.last_token is not None and x.backend == backend]
        return max(times, default=None)

    async def start(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None) -> None:
        """Accept clients on listening sockets."""
        self.loop = asyncio.get_running_loop()
        if hasattr(select, "epoll"):
            self._poller = Poller(self.loop, coalesce=self.settings.coalesce)
        for listener in sockets:
            if self._poller is not None:
                listener.listen(_BACKLOG)
                accept = self._accept if tls is None else functools.partial(self._accept_tls, tls)
                self._poller.listen(listener, accept, self._make_room)
                self._listeners.append(listener)
                continue
            server = await self.loop.create_server(
                functools.partial(ClientConnection, self),
                sock=listener,
                ssl=tls,
                backlog=_BACKLOG,
                ssl_handshake_timeout=None if tls is None else _HANDSHAKE_SECONDS,
            )
            self._servers.append(server)
        self._look_after()

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109  the deadline is the daemon's own
        """Take no new requests (the gate refuses them), and wait for the running ones, at most `timeout` seconds."""
        self.draining = True
        for connection in list(self.idle):
            connection.close()
        if self.running:
            self._drained = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._drained.wait()

    async def stop(self) -> None:
        """Close everything at once."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for server in self._servers:
            server.close()
        for listener in self._listeners:
            if self._poller is not None:
                self._poller.ignore(listener.fileno())
            listener.close()
        for handshake in list(self._handshakes):
            handshake.cancel()
        for connection in list(self._connections):
            connection.transport.abort()
        for pool in self._pools:
            pool.close()
        if self._handshakes:
            await asyncio.wait(self._handshakes, timeout=1.0)
        await asyncio.sleep(0)  # what was aborted says so
        if self._poller is not None:
            self._poller.close()

    def _accept(self, accepted: socket.socket) -> None:
        assert self._poller is not None
        SocketTransport(self._poller, accepted, ClientConnection(self))

    def _accept_tls(self, tls: ssl.SSLContext, accepted: socket.socket) -> None:
        """Shake hands first: until that is done it is no client yet."""
        if len(self._handshakes) >= min(_HANDSHAKES, max(8, self.settings.max_connections // 4)):
            oldest = next(iter(self._handshakes))
            del self._handshakes[oldest]
            oldest.cancel()
        handshake = self.loop.create_task(self._shake_hands(tls, accepted))
        self._handshakes[handshake] = None
        handshake.add_done_callback(functools.partial(self._shook_hands, accepted))

    async def _shake_hands(self, tls: ssl.SSLContext, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        with contextlib.suppress(OSError):  # no TLS, another one, or too late: nobody to answer
            await self.loop.connect_accepted_socket(
                functools.partial(ClientConnection, self),
                accepted,
                ssl=tls,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
            )

    def _shook_hands(self, accepted: socket.socket, handshake: asyncio.Task[None]) -> None:
        self._handshakes.pop(handshake, None)
        if handshake.cancelled():
            accepted.close()  # it may not even have begun

    def _make_room(self) -> bool:
        """Close those that have been idle for longest, if any are."""
        longest = list(itertools.islice(self.idle, _ROOM))
        for connection in longest:
            del self.idle[connection]
            connection.transport.abort()
        return bool(longest)

    def came(self, connection: ClientConnection) -> None:
        """A client has connected; at the limit the one that has been idle for longest makes room."""
        self._connections.add(connection)
        if len(self._connections) > self.settings.max_connections:
            longest = next(iter(self.idle), connection)
            self.idle.pop(longest, None)
            longest.transport.abort()
            if longest is connection:
                return
        connection.due = self.clock() + self.settings.head_timeout
        self.idle[connection] = None
        if self._quiet and self._sweep is not None:
            self._sweep.cancel()
            self._look_after()

    def went(self, connection: ClientConnection) -> None:
        """A client's connection is gone."""
        self._connections.discard(connection)
        self.idle.pop(connection, None)

    def pool(self, backend: Backend) -> Pool:
        """The connections to a backend."""
        pool = backend.pool
        if type(pool) is not Pool:
            pool = backend.pool = Pool(
                backend, connect_timeout=self.settings.connect_timeout, loop=self.loop, poller=self._poller
            )
            self._pools.append(pool)
        return pool

    def credentials(self, backend: Backend) -> bytes:
        """The `Authorization` line of an engine that wants one, where clients' keys are checked here and mean nothing to it."""
        if backend.api_key is None:
            return b""
        return b"Authorization: Bearer %b\r\n" % backend.api_key.get_secret_value().encode()

    def _look_after(self) -> None:
        now = self.now = self.clock()
        self._quiet = not self._connections
        every = _SWEEP_QUIET if self._quiet else SWEEP_EVERY
        self._sweep = self.loop.call_later(next_tick(now, every) - now, self._look_after)
        for connection in [connection for connection in self._connections if connection.due <= now]:
            connection.overdue(now)
        for pool in self._pools:
            pool.drop_old(now)
        if self._poller is not None:
            self._poller.pace()
        self.gate.tick(now)
        if self._drained is not None and not self.running:
            self._drained.set()
