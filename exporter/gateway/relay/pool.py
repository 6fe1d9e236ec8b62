"""Kept connections to one engine."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from exporter.gateway.relay.engine import EngineConnection
from exporter.gateway.relay.polling import Poller
from exporter.gateway.relay.sockets import connect

if TYPE_CHECKING:
    from exporter.gateway.admission.fleet import Backend
    from exporter.gateway.relay.answer_heads import AnswerHead

KEEP_IDLE: Final = 4.0
"""Seconds that an idle connection is kept: uvicorn, as vLLM runs it, closes it after 5.
https://github.com/vllm-project/vllm/blob/main/vllm/envs.py (VLLM_HTTP_TIMEOUT_KEEP_ALIVE)"""

Connected = Callable[[EngineConnection | OSError], None]


class Pool:
    """The idle connections to one engine, the last used first, so that those too many grow old and go."""

    __slots__ = (
        "_address",
        "_connecting",
        "_loop",
        "_poller",
        "_timeout",
        "backend",
        "idle",
        "last_head",
        "settles",
    )

    def __init__(
        self,
        backend: Backend,
        *,
        connect_timeout: float,
        loop: asyncio.AbstractEventLoop,
        poller: Poller | None,
    ) -> None:
        self.backend = backend
        self.idle: list[EngineConnection] = []
        self._address = (backend.host, backend.port)
        self.last_head: AnswerHead | None = None
        """Of the last answer: an engine's heads differ by the second."""
        self.settles = True
        """Whether its tokens may be acknowledged late: not where it sends with TCP_NODELAY off, and waits for that."""
        self._timeout = connect_timeout
        self._loop = loop
        self._poller = poller
        self._connecting: set[asyncio.Task[None]] = set()

    def take(self) -> EngineConnection | None:
        """A kept connection, if there is one."""
        idle = self.idle
        while idle:
            connection = idle.pop()
            if not connection.closed and not connection.transport.is_closing():
                return connection
        return None

    def put(self, connection: EngineConnection, now: float) -> None:
        """Keep a connection whose answer is whole."""
        connection.passage = None
        if connection.flow is not None:
            connection.follow(None)
        if connection.coalesced:
            connection.coalesce(False)
        connection.reused = True
        connection.idle_since = now
        self.idle.append(connection)

    def forget(self, connection: EngineConnection) -> None:
        """The engine closed an idle connection."""
        if connection in self.idle:
            self.idle.remove(connection)

    def connect(self, connected: Connected) -> asyncio.Task[None]:
        """Open a fresh connection; `connected` is called with it, or with why there is none."""
        task = self._loop.create_task(self._connect(connected))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

    async def _connect(self, connected: Connected) -> None:
        backend = self.backend
        try:
            async with asyncio.timeout(self._timeout):
                connection: EngineConnection
                if self._poller is not None and backend.tls is None:
                    connection = await connect(
                        self._poller, backend.host, backend.port, functools.partial(EngineConnection, self)
                    )
                else:
                    _, connection = await self._loop.create_connection(
                        functools.partial(EngineConnection, self), backend.host, backend.port, ssl=backend.tls
                    )
        except OSError as error:  # TimeoutError is one
            connected(error)
            return
        except ValueError as error:  # a host name that is none: IDNA refuses it before anybody is asked
            connected(OSError(str(error)))
            return
        connected(connection)

    def drop_old(self, now: float) -> None:
        """Close what has been idle for too long, or leads to where the engine was before it moved."""
        idle = self.idle
        count = 0
        address = (self.backend.host, self.backend.port)
        if address != self._address:
            self._address = address
            count = len(idle)
        while count < len(idle) and now - idle[count].idle_since > KEEP_IDLE:
            count += 1
        old = idle[:count]
        del idle[:count]
        for connection in old:
            connection.transport.close()

    def close(self) -> None:
        """Close all that is idle and give up what is being opened."""
        for task in self._connecting:
            task.cancel()
        for connection in self.idle:
            connection.transport.abort()
        self.idle.clear()
