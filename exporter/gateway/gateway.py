"""The gateway's parts, put together: what the daemon starts, tells of its engines, shows, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from exporter.engine.process.procfs import ProcessId
from exporter.engine.status import EngineStatus
from exporter.exposition.block import Block
from exporter.gateway.address import AddressTakenError, GatewayOn, listen, listen_when_free
from exporter.gateway.admission.fleet import Backend, Fleet, Standing
from exporter.gateway.admission.gate import Gate
from exporter.gateway.admission.statuses import Seen, seen
from exporter.gateway.keys.file import KeysFile
from exporter.gateway.measuring.access_log import AccessLog
from exporter.gateway.measuring.content import ContentLog
from exporter.gateway.measuring.recorder import Recorder
from exporter.gateway.model import Exchange
from exporter.gateway.models import Models, fetch_models
from exporter.gateway.open_files import take_files
from exporter.gateway.relay.polling import new_event_loop
from exporter.gateway.relay.server import Relay
from exporter.gateway.routes import Routes
from exporter.settings import EngineSettings, Settings
from exporter.state import Part
from exporter.ticks import next_tick
from exporter.tls import client_context, server_context

if TYPE_CHECKING:
    import aiohttp
    from pydantic import SecretStr

log = structlog.get_logger(__name__)

FOLLOW_SECONDS = 1.0
"""Time between two looks at the keys file, and at whose list of models is due."""
LIST_SECONDS = 30.0
"""Time between two questions for an engine's models: adapters come and go while it runs."""
ASK_AGAIN_SECONDS = 2.0
"""The same after one that was not answered."""
MODELS_SECONDS = 10.0
"""Longest wait for an engine's list of models."""


@dataclass(frozen=True, slots=True)
class Fronted:
    """An engine behind the gateway. `base_url`: where it is at first; `key`: what opens it, where it asks for one.

    `block`: where it is shown what the gateway has at it; None: among the daemon's own series.
    """

    name: str
    settings: EngineSettings
    base_url: str
    key: SecretStr | None
    block: Block | None = None


class Gateway:
    """Clients in front, engines behind; event loop only.

    `bind` takes the port before any engine is started. `indicators` and `daemon` are the blocks that it writes into.
    """

    def __init__(
        self,
        settings: Settings,
        place: GatewayOn,
        engines: Sequence[Fronted],
        indicators: Block,
        daemon: Block,
    ) -> None:
        """Raises ConfigError for a keys file or a certificate that cannot be read."""
        self._options = options = take_files(settings.gateway, len(engines))
        self._place = place
        self._engines = {engine.name: engine for engine in engines}
        self._keys = None if options.keys_file is None else KeysFile(options.keys_file)
        self._tls = server_context(place.tls_cert_file, place.tls_key_file, section="gateway")
        self._fleet = Fleet([_backend(engine) for engine in engines])
        self._models = Models(
            [engine.name for engine in engines], None if self._keys is None else self._keys.keys.named
        )
        self._access_log = AccessLog(options.access_log)
        ratio = options.log_content_ratio
        self._content = ContentLog(ratio, Random(0)) if ratio else None  # noqa: S311  a sample
        self.recorder = Recorder(
            indicators,
            daemon,
            settings.sli,
            model_limit=settings.scrape.model_limit,
            patience=options.patience,
            engines={engine.name: engine.block for engine in engines if engine.block is not None},
            ended=self._ended,
        )
        self._socket: socket.socket | None = None
        self._gate: Gate
        self._relay: Relay | None = None
        self._hurry = asyncio.Event()
        self._seen: dict[str, Seen] = {}
        self._learned: dict[str, frozenset[str]] = {}
        self._ask_at: dict[str, float] = {}
        self._addresses = {engine.name: engine.base_url for engine in engines}

    @staticmethod
    def event_loop() -> asyncio.AbstractEventLoop:
        """The event loop that serves a gateway best."""
        return new_event_loop()

    def bind(self, leaves: Callable[[ProcessId], bool] = lambda holder: False) -> None:
        """Take the port; clients that connect from now on wait in the kernel.

        `leaves`: whether who has the port now is about to give it up; then it is taken as soon as that has happened.
        ConfigError says who else has it.
        """
        try:
            self._socket = listen(self._place.host, self._place.port)
        except AddressTakenError as taken:
            if taken.holder is None or not leaves(taken.holder):
                raise
            log.info("gateway_waits_for_its_port", port=self._place.port, holder=taken.holder.pid)

    def close(self) -> None:
        """Give the port back, where `start` never came."""
        if self._socket is not None:
            self._socket.close()

    @property
    def url(self) -> str:
        """Where clients come, an unspecified address as localhost."""
        place = self._place
        host, port = (place.host, place.port) if self._socket is None else self._socket.getsockname()[:2]
        if host in ("::", "0.0.0.0"):  # noqa: S104
            host = "localhost"
        return f"{'https' if self._tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    async def start(self) -> None:
        """Answer from now on, be it that no engine is there yet."""
        loop = asyncio.get_running_loop()
        self._gate = Gate(self._options, self._fleet, later=loop.call_later)
        self._relay = Relay(
            self._options,
            routes=Routes(self._options.routes),
            keys=None if self._keys is None else self._keys.keys,
            gate=self._gate,
            fleet=self._fleet,
            recorder=self.recorder,
            local=self._models.answer,
            content=self._content,
        )
        if self._socket is not None:
            await self._accept(self._socket)

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Follow the keys file and the engines' lists of models, until cancelled."""
        if self._socket is None:
            self._socket = await listen_when_free(self._place.host, self._place.port)
            await self._accept(self._socket)
        while True:
            began = time.monotonic()
            await asyncio.sleep(next_tick(began, FOLLOW_SECONDS) - began)
            if self._keys is not None:
                await self._keys.follow()
            now = time.monotonic()
            due = [name for name, at in self._ask_at.items() if at <= now]
            await asyncio.gather(*(self._learn(name, session) for name in due))

    async def _accept(self, listener: socket.socket) -> None:
        assert self._relay is not None, "start() comes first"
        await self._relay.start([listener], self._tls)
        keys = None if self._keys is None else len(self._keys.keys)
        log.info("gateway_listening", url=self.url, keys=keys)

    def follow(self, name: str, status: EngineStatus) -> None:
        """What is known of an engine now."""
        found = self._seen[name] = seen(status)
        self._addresses[name] = status.base_url
        if found.standing is not Standing.READY:
            self._ask_at.pop(name, None)
            self._learned.pop(name, None)
        else:
            self._ask_at.setdefault(name, 0.0)
        if found.standing is Standing.FAILED:
            self._models.forget(name)
        self._tell(name)

    def _tell(self, name: str) -> None:
        """Let admission know; with the models that an engine took in since it became ready, such as adapters."""
        found = self._seen[name]
        models = found.models | self._learned.get(name, frozenset())
        self._fleet.follow(
            name,
            standing=found.standing,
            models=models,
            load_stage=found.load_stage,
            load_ratio=found.load_ratio,
            address=_address(self._addresses[name]),
            now=time.monotonic(),
        )
        self.recorder.know(models)

    def in_flight(self, name: str) -> int:
        """Requests of users that are at an engine now."""
        return sum(backend.outstanding for backend in self._fleet.backends if backend.name == name)

    def token_at(self, name: str) -> float | None:
        """When a user's request that still runs at an engine last got a token, in monotonic seconds; None where none did."""
        return None if self._relay is None else self._relay.token_at(name)

    def publish(self) -> None:
        """Bring the blocks up to date."""
        relay = self._relay
        if relay is None:
            return
        self.recorder.publish(
            connections=relay.connections,
            running={backend.name: backend.outstanding for backend in self._fleet.backends},
            queued=self._gate.queued,
            takes=not self._gate.draining,
        )

    def parts(self) -> tuple[Part, ...]:
        """What the next daemon goes on from."""
        return (Part("gateway", self.recorder.state, lambda: self.recorder.version),)

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what the daemon before saved."""
        self.recorder.restore(saved.get("gateway", {}))

    def ends(self) -> None:
        """The daemon stops: new requests are refused from now on, running ones go on. A second call waits for nothing."""
        if self._relay is None:
            return
        if self._gate.draining:
            self._hurry.set()
        self._gate.draining = True

    async def stop(self, timeout: float) -> None:  # noqa: ASYNC109  the deadline is the engine's own
        """Let what runs finish, for so many seconds at most, and close every connection. A second call does nothing."""
        relay, self._relay = self._relay, None
        if relay is None:
            return
        self._gate.draining = True
        waits = [asyncio.create_task(work) for work in (relay.drain(timeout), self._hurry.wait())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        await relay.stop()

    async def reload(self) -> Sequence[str]:
        """Read the keys again; the mistakes in the file, and then nothing changed."""
        return () if self._keys is None else await self._keys.reload()

    def _ended(self, exchange: Exchange) -> None:
        self._access_log.ended(exchange)
        if self._content is not None:
            self._content.ended(exchange)

    async def _learn(self, name: str, session: aiohttp.ClientSession) -> None:
        engine = self._engines[name]
        document = await fetch_models(
            session,
            self._addresses[name],
            engine.key,
            timeout=MODELS_SECONDS,
            tls_verify=engine.settings.tls_verify,
        )
        self._ask_at[name] = time.monotonic() + (ASK_AGAIN_SECONDS if document is None else LIST_SECONDS)
        with contextlib.suppress(ValueError):
            names = frozenset() if document is None else frozenset(self._models.learn(name, document))
            if names - self._learned.get(name, frozenset()):
                self._learned[name] = names
                self._tell(name)


def _address(base_url: str) -> tuple[str, int]:
    parts = urlsplit(base_url)
    return parts.hostname or "127.0.0.1", parts.port or (443 if parts.scheme == "https" else 80)


def _backend(engine: Fronted) -> Backend:
    host, port = _address(engine.base_url)
    secure = urlsplit(engine.base_url).scheme == "https"
    tls = client_context(verify=engine.settings.tls_verify) if secure else None
    return Backend(engine.name, host, port, tls=tls, api_key=engine.key)
