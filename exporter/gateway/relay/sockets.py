"""A transport for plain TCP, on the relay's poller."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any, Final, TypeVar

from exporter.gateway.relay.polling import HANG_UP, READABLE, WRITABLE, Poller

_buffer: Final = bytearray(64 << 10)
"""Where all of them receive, one after the other: cheaper than 64 KiB of their own each time that shrink to a few hundred bytes."""
_view: Final = memoryview(_buffer)
_HIGH_WATER: Final = 64 << 10
_LOW_WATER: Final = 16 << 10

P = TypeVar("P", bound=asyncio.Protocol)


class SocketTransport(asyncio.Transport):
    """A connected socket, as its protocol sees it."""

    __slots__ = (
        "_buffer",
        "_closing",
        "_descriptor",
        "_ending",
        "_hung_up",
        "_lost",
        "_paused",
        "_poller",
        "_protocol",
        "_reading",
        "_receive",
        "_received",
        "_send",
        "_socket",
    )

    def __init__(self, poller: Poller, connection: socket.socket, protocol: asyncio.Protocol) -> None:
        self._poller = poller
        self._socket = connection
        self._protocol = protocol
        self._descriptor = connection.fileno()
        self._buffer = bytearray()
        self._closing = False
        self._ending = False
        self._hung_up = False
        """Whether the other side was seen leaving while nothing was read."""
        self._lost = False
        self._paused = False
        self._reading = True
        self._receive = connection.recv_into
        self._send = connection.send
        self._received: Callable[[bytes], None] = protocol.data_received
        connection.setblocking(False)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        protocol.connection_made(self)
        if not self._lost:
            self._watch()

    def hand_to(self, received: Callable[[bytes], None]) -> None:
        """Give what comes from now on to `received` instead of the protocol's `data_received`."""
        self._received = received

    def _ready(self, event: int) -> None:
        if event & WRITABLE and self._buffer:
            self._flush()
        if event & ~WRITABLE and self._reading and not self._closing:
            receive, received = self._receive, self._received
            try:
                size = receive(_buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._lose(error)
                return
            try:
                if size:
                    received(_view[:size].tobytes())
                elif not self._protocol.eof_received():
                    self._reading = False
                    self.close()
            except BaseException:
                self._lose(None)
                raise
        elif event & ~(READABLE | WRITABLE) and not self._reading and not self._hung_up and not self._closing:
            self._hung_up = True
            self._watch()
            self._protocol.eof_received()  # what is unread stays there for when it is wanted

    def _events(self) -> int:
        events = WRITABLE if self._buffer else 0
        if not self._closing:
            if self._reading:
                events |= READABLE
            elif not self._hung_up:
                events |= HANG_UP
        return events

    def _watch(self) -> None:
        events = self._events()
        if events:
            self._poller.watch(self._descriptor, events, self._ready)
        else:
            self._poller.ignore(self._descriptor)  # else a hang-up would be told again and again

    def write(self, data: Any) -> None:
        """Send at once what the socket takes; the rest when it takes more."""
        if self._buffer:
            self._buffer += data
        elif not self._lost:
            send = self._send
            try:
                sent = send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._lose(error)
                return
            if sent == len(data):
                return
            self._buffer += memoryview(data)[sent:]
            self._watch()
        if len(self._buffer) > _HIGH_WATER and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def _flush(self) -> None:
        buffer = self._buffer
        try:
            with memoryview(buffer) as view:
                sent = self._send(view)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        del buffer[:sent]
        if not buffer:
            self._watch()
            if self._ending:
                self._shut_down()
        if self._paused and len(buffer) <= _LOW_WATER:
            self._paused = False
            self._protocol.resume_writing()
        if self._closing and not self._buffer:
            self._lose(None)

    def write_eof(self) -> None:
        """Tell the other side, after what is buffered, that nothing more comes."""
        self._ending = True
        if not self._buffer:
            self._shut_down()

    def _shut_down(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def can_write_eof(self) -> bool:
        """TCP can."""
        return True

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken."""
        return len(self._buffer)

    def pause_reading(self) -> None:
        """Leave in the kernel what comes."""
        if self._reading:
            self._reading = False
            self._watch()

    def resume_reading(self) -> None:
        """Read on."""
        if not self._reading and not self._closing:
            self._reading = True
            self._watch()

    def coalesce(self, on: bool) -> None:
        """Whether what comes from now on may wait a moment for what comes elsewhere."""
        self._poller.coalesce(self._descriptor, self._events(), on=on)

    def is_reading(self) -> bool:
        """Whether what comes is read."""
        return self._reading

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing

    def close(self) -> None:
        """Close once all is sent."""
        if self._closing:
            return
        self._closing = True
        if self._buffer:
            self._watch()
        else:
            self._lose(None)

    def abort(self) -> None:
        """Close at once."""
        self._lose(None)

    def _lose(self, error: OSError | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._buffer.clear()
        self._poller.ignore(self._descriptor)
        self._poller.loop.call_soon(self._gone, error)

    def _gone(self, error: OSError | None) -> None:
        self._socket.close()
        protocol = self._protocol
        # They know us: what is over goes at once, not when garbage is looked for.
        del self._protocol, self._received
        protocol.connection_lost(error)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peername`, `sockname` or `socket`."""
        if name == "socket":
            return self._socket
        if name in ("peername", "sockname"):
            try:
                return self._socket.getpeername() if name == "peername" else self._socket.getsockname()
            except OSError:
                return default
        return default


async def connect(poller: Poller, host: str, port: int, protocol: Callable[[], P]) -> P:
    """Connect to the first address of `host` that answers. Raises OSError where none does."""
    loop = poller.loop
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failed: OSError | None = None
    for family, kind, number, _, address in found:
        connection = socket.socket(family, kind, number)
        connection.setblocking(False)
        try:
            await loop.sock_connect(connection, address)
        except OSError as error:
            connection.close()
            failed = error
            continue
        except BaseException:
            connection.close()
            raise
        created = protocol()
        SocketTransport(poller, connection, created)
        return created
    raise failed or OSError(f"{host} has no address")
