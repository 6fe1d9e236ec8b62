"""The listener's life: bind, start, stop."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import structlog

from exporter.exposition.block import Block
from exporter.exposition.page import Page
from exporter.settings import WebSettings
from exporter.tls import server_context
from exporter.web import listener
from exporter.web.auth import BearerToken
from exporter.web.connection import Connection, Face
from exporter.web.limits import BACKLOG, HANDSHAKE_SECONDS, SWEEP_SECONDS
from exporter.web.metrics import HttpMetrics
from exporter.web.snapshot import Snapshot

if TYPE_CHECKING:
    from exporter.engine.status import EngineStatus
    from exporter.web.alertmanager.model import Alerting
    from exporter.web.api import Api
    from exporter.web.readiness import EngineGroup

log = structlog.get_logger(__name__)


class WebServer:
    """The HTTP face: `bind` first, `start` in the event loop, `stop` at the end; one of each.

    `before_render` is called before each new snapshot of the page, to bring the blocks up to date; let it call
    `publish` too. `engine_status` is asked at each readiness request. The API may follow after the start, with
    `serve_api`: until then its paths say 503. `stop` closes it.
    """

    def __init__(
        self,
        settings: WebSettings,
        page: Page,
        *,
        engine_status: Callable[[], EngineStatus | EngineGroup],
        before_render: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._engine_status = engine_status
        self._token = BearerToken(settings.bearer_token)
        self._snapshot = Snapshot(page, before_render)
        self._metrics = HttpMetrics()
        self._socket: socket.socket | None = None
        self._tls: ssl.SSLContext | None = None
        self._stack: AsyncExitStack | None = None
        self._applications: AsyncExitStack | None = None
        self._face: Face | None = None

    def bind(self) -> socket.socket:
        """Take the port and read the certificate, before anything else is started; ConfigError names what is wrong.

        Connections made from now on wait in the kernel until `start`.
        """
        self._tls = server_context(self._settings.tls_cert_file, self._settings.tls_key_file, section="web")
        self._socket = listener.bind(self._settings.listen)
        return self._socket

    @property
    def url(self) -> str:
        """Where the face is, with the real port; an unspecified address as localhost."""
        assert self._socket is not None, "bind() comes first"
        host, port = self._socket.getsockname()[:2]
        if host in ("::", "0.0.0.0"):  # noqa: S104
            host = "localhost"
        return f"{'https' if self._tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    def publish(self, block: Block) -> None:
        """Write the face's own series."""
        self._metrics.publish(block)

    async def start(self) -> None:
        """Answer from now on."""
        assert self._socket is not None, "bind() comes first"
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            stack.callback(self._socket.close)
            self._applications = await stack.enter_async_context(AsyncExitStack())
            fallback = await self._run_application(None)
            self._face = face = Face(self._snapshot, self._token, self._metrics, fallback)
            stack.callback(_close_all, face)
            server = await loop.create_server(
                lambda: Connection(face),
                sock=self._socket,
                ssl=self._tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if self._tls else None,
            )
            stack.callback(server.close)
            stack.callback(_Sweeper(loop, face).cancel)
            self._stack = stack.pop_all()
        log.info("listening", url=self.url, bearer_token=self._token.required)
        if not self._token.required and not _is_loopback(self._socket):
            log.warning(
                "listening_without_token",
                url=self.url,
                advice="who reaches this address reads everything; set web.bearer_token, or listen on 127.0.0.1",
            )

    async def serve_api(self, api: Api, alerting: Alerting | None = None) -> None:
        """From now on new connections find the API, too, and Alertmanager's where there is one; once, after `start`."""
        assert self._face is not None and self._applications is not None, "start() comes first"
        self._applications.callback(api.close)
        self._face.fallback = await self._run_application(api, alerting)

    async def _run_application(
        self, api: Api | None, alerting: Alerting | None = None
    ) -> Callable[[], asyncio.Protocol]:
        """Set an application up; what makes its protocol objects."""
        from exporter.web.application import build_application, build_runner

        assert self._applications is not None
        application = build_application(self._snapshot, self._token, self._engine_status, api, alerting)
        runner = build_runner(application, self._metrics)
        self._applications.push_async_callback(runner.cleanup)
        await runner.setup()
        assert runner.server is not None
        return runner.server

    async def stop(self) -> None:
        """Take no new connection, finish the answers being made, close; harmless before `start` and twice."""
        if self._stack is not None:
            stack, self._stack = self._stack, None
            await stack.aclose()
        elif self._socket is not None:
            self._socket.close()


class _Sweeper:
    """Looks through the connections again and again."""

    def __init__(self, loop: asyncio.AbstractEventLoop, face: Face) -> None:
        self._loop = loop
        self._face = face
        self._handle = loop.call_later(SWEEP_SECONDS, self._sweep)

    def cancel(self) -> None:
        self._handle.cancel()

    def _sweep(self) -> None:
        self._handle = self._loop.call_later(SWEEP_SECONDS, self._sweep)
        self._face.sweep(time.monotonic())


def _close_all(face: Face) -> None:
    for connection in tuple(face.connections):
        connection.close()


def _is_loopback(listening: socket.socket) -> bool:
    host: str = listening.getsockname()[0]
    return host == "::1" or host.startswith(("127.", "::ffff:127."))
