"""An HTTP server that misbehaves as it is told: a thread of its own, plain sockets, a free port on loopback.

Each request takes the next fault of the script; when the script is at its end, requests are answered well, and what they
brought is kept. A fault is a function of a connection and the request that came over it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

Fault = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
FOREVER = 3600.0


def answers(code: int, body: str = "", **headers: str) -> Fault:
    """A whole answer."""

    async def fault(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {code} So It Is", f"Content-Length: {len(body.encode())}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await _send(writer, ("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    return fault


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The connection is reset, not closed."""
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """No answer, and the connection stays."""
    await asyncio.sleep(FOREVER)


async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The connection is closed without an answer."""
    writer.close()


async def answers_half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The connection is closed in the middle of the answer's head."""
    await _send(writer, b"HTTP/1.1 200 OK\r\nContent-Le")
    writer.close()


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The answer's head comes one byte at a time, and never to its end."""
    await _send(writer, b"HTTP/1.1 200 OK\r\nX-Patience: ")
    while True:
        await _send(writer, b"x")
        await asyncio.sleep(0.02)


async def has_an_endless_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Headers without end, as fast as they are taken."""
    await _send(writer, b"HTTP/1.1 200 OK\r\n")
    while True:
        await _send(writer, b"X-More: " + b"x" * 4000 + b"\r\n")


async def fails_at_length(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A 500 with a body without end, as fast as it is taken."""
    await _send(writer, b"HTTP/1.1 500 No\r\nContent-Type: text/html\r\n\r\n")
    while True:
        await _send(writer, b"<html>" * 10_000)


async def talks_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What is not HTTP."""
    await _send(writer, b"SSH-2.0-OpenSSH_9.2\r\n\x00\xff\xfe")
    writer.close()


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


@dataclass(frozen=True, slots=True)
class Taken:
    """A request that was answered well; `at` is of the monotonic clock."""

    at: float
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class BadReceiver:
    """Use it as a context; `script` may be changed at any time. `tls`: speak TLS with this."""

    script: deque[Fault] = field(default_factory=deque)
    tls: ssl.SSLContext | None = None
    delay: Callable[[], float] = lambda: 0.0
    """Seconds before a good answer."""
    whim: Callable[[], Fault | None] = lambda: None
    """What a request meets when the script is at its end."""
    taken: list[Taken] = field(default_factory=list)
    turned_away: list[bytes] = field(default_factory=list)
    """Bodies of the requests that met a fault."""
    requests: int = 0
    """All of them, well answered or not."""
    connections: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="bad receiver", daemon=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it is, with a token that nobody may see."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/hook/s3cret-t0ken"

    def __enter__(self) -> Self:
        self._thread.start()
        self.come_back()
        return self

    def __exit__(self, *error: object) -> None:
        self.go_away()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def misbehave(self, *faults: Fault) -> None:
        """These come next, after what is in the script."""
        self.script.extend(faults)

    def go_away(self) -> None:
        """Let go of the port and of all connections: who comes is refused."""
        self._do(self._stop())

    def come_back(self) -> None:
        """Listen, on the same port as before."""
        self._do(self._start())

    def values(self, annotation: str, of: Callable[[dict[str, Any]], bool] = lambda body: True) -> list[str]:
        """An annotation of every alert that was taken, in order of arrival."""
        return [alert["annotations"][annotation] for one in list(self.taken) if of(one.body) for alert in one.body["alerts"]]  # fmt: skip

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, work: Awaitable[None]) -> None:
        async def wrapped() -> None:
            await work

        asyncio.run_coroutine_threadsafe(wrapped(), self._loop).result(30)

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; False when the connection is of no more use."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests += 1
        fault = self.script.popleft() if self.script else self.whim()
        if fault is not None:
            self.turned_away.append(body)
            with contextlib.suppress(OSError):
                await fault(reader, writer)
            return not writer.is_closing()
        # Kept before the answer: who is cut off in between cannot say that it did not arrive.
        self.taken.append(Taken(time.monotonic(), headers, json.loads(body)))
        await asyncio.sleep(self.delay())
        await _send(writer, WELL)
        return True
