"""One engine under watch: the process or the address, the reader of its page, and what is derived from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.exposition.block import Block
from exporter.exposition.page import PassThroughBlock
from exporter.state import Part

if TYPE_CHECKING:
    import aiohttp
    from pydantic import SecretStr

    from exporter.engine.command import EngineCommand
    from exporter.engine.status import Engine
    from exporter.exposition.layout import Row
    from exporter.gpu import GpuSampler
    from exporter.gpu.demand import Tenant
    from exporter.notify.engine_facts import EngineFacts
    from exporter.settings import EngineSettings, Settings


ENGINE_ID = "engine"
"""What the gateway calls the only engine."""


@dataclass(slots=True)
class WatchBlocks:
    """What `/metrics` shows of one engine."""

    page: PassThroughBlock = field(default_factory=PassThroughBlock)
    indicators: Block = field(default_factory=Block)
    engine: Block = field(default_factory=Block)
    name: str = ""
    """Label `instance` of all of it; empty for the only engine, whose series have the daemon's own."""

    @classmethod
    def of(cls, name: str) -> WatchBlocks:
        """Blocks whose series bear an engine's name."""
        labels = (("instance", name),) if name else ()
        return cls(indicators=Block(labels), engine=Block(labels), name=name)


@dataclass(frozen=True, slots=True)
class Watched:
    """Which engine: its options, its command where we start it, the folder for what is written about it."""

    settings: EngineSettings
    command: EngineCommand | None
    data_dir: Path
    moves: bool = False
    """Whether it gets a loopback port of its own, because the gateway has the one that its command names."""
    name: str = ""
    """One of several engines has one: label, folder, and what its saved state is filed under."""
    gpus: tuple[str, ...] = ()
    """Indices or UUIDs of the GPUs that it is given; empty: it sees all of them."""

    @property
    def id(self) -> str:
        """What the gateway calls it."""
        return self.name or ENGINE_ID

    @property
    def base_url(self) -> str:
        """Where it listens at first."""
        url = self.command.base_url if self.command is not None else self.settings.url
        assert url is not None, "the settings ask for a command or an URL"
        return url

    @property
    def key(self) -> SecretStr | None:
        """The API key for the daemon's own requests."""
        return self.command.api_key if self.command is not None else self.settings.api_key


class Watch:
    """An engine, its scraper and its indicators, joined; event loop only.

    `landed` is called at the end of each scrape with its row, or None, and its time in unix seconds. `in_flight` counts
    the requests that the gateway has at the engine, demand that its page may not show, and is None without a gateway;
    `token_at` says when one of them last got a token (monotonic seconds), which is progress.
    """

    def __init__(
        self,
        watched: Watched,
        blocks: WatchBlocks,
        settings: Settings,
        session: aiohttp.ClientSession,
        gpu: GpuSampler,
        *,
        landed: Callable[[Row | None, float], None],
        in_flight: Callable[[], int] | None = None,
        token_at: Callable[[], float | None] = lambda: None,
    ) -> None:
        from exporter.gateway.probe.plan import ProbePolicy
        from exporter.gateway.probe.probe import Probe
        from exporter.scrape.cycle import Scraper
        from exporter.scrape.target import EngineTarget
        from exporter.sli import Indicators

        self.watched = watched
        self.blocks = blocks
        self._in_flight = in_flight
        self._token_at = token_at
        self.indicators = Indicators(
            settings.sli,
            blocks.indicators,
            model_limit=settings.scrape.model_limit,
            scrape_interval=settings.scrape.interval,
        )
        self.engine = self._engine(session, gpu)
        self.scraper = Scraper(
            settings.scrape,
            EngineTarget(self.engine, watched.key),
            session,
            blocks.engine,
            blocks.page,
            self.indicators,
            tls_verify=watched.settings.tls_verify,
            after=self._scraped,
            landed=landed,
        )
        self.engine.subscribe(self.scraper.engine_changed)
        options = settings.gateway
        policy = ProbePolicy.of(options.probe_interval, options.probe_timeout, gateway=in_flight is not None)
        self.probe = (
            None
            if policy is None
            else Probe(
                policy,
                self.engine,
                blocks.indicators,
                settings.sli,
                in_flight=in_flight,
                token_at=token_at,
                own_work=self.indicators.own_work,
            )
        )
        """None where the engine is never probed."""

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what the daemon before saved; before anybody is shown the page."""
        self.indicators.restore(saved.get(self._filed("indicators"), {}))
        self.engine.restore(saved.get(self._filed("engine"), {}))
        if self.probe is not None:
            self.probe.restore(saved.get(self._filed("probe"), {}))

    def parts(self) -> tuple[Part, ...]:
        """What `restore` needs in the next daemon."""
        parts = (
            Part(self._filed("indicators"), self.indicators.state, lambda: self.blocks.indicators.version),
            Part(self._filed("engine"), self.engine.state, self.engine.state),
        )
        probe = self.probe
        if probe is None:
            return parts
        return (*parts, Part(self._filed("probe"), probe.state, lambda: probe.version))

    def load(self) -> float:
        """How busy the engine is, from 0 to 1, for simulated GPUs."""
        running = self.indicators.progress().running or 0.0
        return min(1.0, running / 8)

    def tenant(self) -> Tenant:
        """What the engine is to the GPUs."""
        from exporter.gpu.demand import Tenant

        return Tenant(self.engine.pids(), self.watched.gpus, self.indicators.progress().waiting or 0.0)

    def facts(self) -> EngineFacts:
        """What messages say of the engine: its output is ours only where we started it."""
        from exporter.notify.engine_facts import EngineFacts

        watched = self.watched
        if watched.command is None:
            key = watched.settings.api_key
            secrets = () if key is None else (key.get_secret_value(),)
            return EngineFacts(lambda: self.engine.status, None, secrets)
        from exporter.engine.supervisor import OUTPUT_NAME

        return EngineFacts(
            lambda: self.engine.status, watched.data_dir / OUTPUT_NAME, watched.command.secrets
        )

    def _filed(self, part: str) -> str:
        return f"engines/{self.watched.name}/{part}" if self.watched.name else part

    def _scraped(self, good: bool, _now: float) -> None:
        now, token_at = time.monotonic(), self._token_at()
        seen = self.indicators.progress() if good else None
        asleep = seen is not None and seen.asleep
        if asleep:
            token_at = now  # it owes nobody a token until it is woken: nothing to suspect
        if seen is not None and self._in_flight is not None:
            seen = replace(seen, waiting=max(seen.waiting or 0.0, float(self._in_flight())))
        if self.probe is not None:
            self.probe.page_landed(seen, now, asleep=asleep)
        self.engine.observe(seen, now=now, token_at=token_at)

    def _engine(self, session: aiohttp.ClientSession, gpu: GpuSampler) -> Engine:
        """Our own child, or somebody else's engine."""
        watched = self.watched
        options, command = watched.settings, watched.command
        if command is None:
            from exporter.engine.attached import AttachedEngine

            assert options.url is not None, "the command line asks for a command or an URL"
            return AttachedEngine(
                options, options.url, options.api_key, http=lambda: session, block=self.blocks.engine
            )
        from exporter.engine.supervisor import Supervisor

        return Supervisor(
            options,
            command,
            data_dir=watched.data_dir,
            moves=watched.moves,
            http=lambda: session,
            block=self.blocks.engine,
            recent_samples=self.indicators.recent_samples,
            gpu_memory_of=gpu.memory_of,
        )
