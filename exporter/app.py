"""The composition root: builds every part from settings, runs them in one TaskGroup, ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from exporter import __version__, allocator, logs
from exporter.errors import ConfigError
from exporter.exposition.block import Block
from exporter.exposition.merge import MergedBlocks
from exporter.exposition.page import Page
from exporter.settings import Settings
from exporter.state import DataDir, Keeper, StateFile
from exporter.watch import Watch, WatchBlocks, Watched
from exporter.web import WebServer

if TYPE_CHECKING:
    import aiohttp

    from exporter.engine.command import EngineCommand
    from exporter.engine.process.procfs import ProcessId
    from exporter.engine.status import Engine, EngineStatus
    from exporter.gateway.gateway import Gateway
    from exporter.systemd import Notifier

log = structlog.get_logger(__name__)

DRAIN_SCRAPE_SECONDS = 0.25
"""Time between two scrapes while the engine drains."""
STOP_MARGIN_SECONDS = 20.0
"""What systemd is asked for beyond drain and kill, when it wants the daemon to stop."""
SWITCH_SECONDS = 0.0005
"""How soon a thread that evaluates a query lets the event loop go on; Python's own 5 ms would show in every scrape."""
EXIT_OK, EXIT_FAILED = 0, 1
ENGINE_NAME = "engine"
"""What the gateway calls the only engine."""


@dataclass(slots=True)
class Blocks:
    """What `/metrics` shows, in its order."""

    watch: WatchBlocks = field(default_factory=WatchBlocks)
    gateway: Block = field(default_factory=Block)
    gpu: Block = field(default_factory=Block)
    daemon: Block = field(default_factory=Block)

    def page(self, before_change: Callable[[], None]) -> Page:
        """All of them as one page."""
        indicators = MergedBlocks((self.watch.indicators, self.gateway))
        blocks = (self.watch.page, indicators, self.gpu, self.watch.engine, self.daemon)
        return Page(blocks, before_change=before_change)

    def stored(self) -> tuple[Block, ...]:
        """Those whose series are stored with each scrape."""
        return (self.watch.indicators, self.gateway, self.gpu, self.watch.engine, self.daemon)


@dataclass(slots=True)
class Readers:
    """What the HTTP face asks of parts that are built after it has taken its port."""

    watch: Watch | None = None
    before_render: list[Callable[[], None]] = field(default_factory=list)
    before_change: Callable[[], None] = lambda: None

    def engine_status(self) -> EngineStatus:
        """The engine's present status."""
        assert self.watch is not None, "the face answers only when the engine is built"
        return self.watch.engine.status

    def refresh(self) -> None:
        """Bring every block up to date for a reader of the page."""
        for publish in self.before_render:
            publish()


def serve(settings: Settings) -> int:
    """Run the daemon until it is told to stop, and return its exit code.

    Raises:
        ConfigError: before any engine is started: the port or the data folder is taken, the command makes no sense, a
            rule file cannot be loaded.
    """
    allocator.give_back()
    logs.configure(settings.log.format, settings.log.level)
    blocks, readers = Blocks(), Readers()
    server = WebServer(
        settings.web,
        blocks.page(lambda: readers.before_change()),
        engine_status=readers.engine_status,
        before_render=readers.refresh,
    )
    with contextlib.ExitStack() as stack:
        # Until all is loaded: hardly any of it is garbage, and looking through it takes a tenth of the start.
        stack.callback(gc.enable)
        gc.disable()
        stack.callback(server.bind().close)
        command = engine_command(settings)
        data_dir = DataDir(settings.data_dir)
        stack.callback(data_dir.close)
        gateway, watched = _gateway(settings, command, blocks)
        if gateway is not None:
            gateway.bind(lambda holder: _is_our_engine(settings.data_dir, holder))
            stack.callback(gateway.close)
        try:
            with asyncio.Runner(loop_factory=None if gateway is None else gateway.event_loop) as runner:
                runner.run(_live(settings, watched, gateway, data_dir, blocks, readers, server))
        except ConfigError:
            raise
        except Exception as failure:
            for error in _leaves(failure):
                log.error("daemon_failed", error=f"{type(error).__name__}: {error}", exc_info=error)
            return EXIT_FAILED
    return EXIT_OK


async def _live(
    settings: Settings,
    watched: Watched,
    gateway: Gateway | None,
    data_dir: DataDir,
    blocks: Blocks,
    readers: Readers,
    server: WebServer,
) -> None:
    """The daemon's life, top to bottom; what is opened here is closed in reverse when the engine's life has ended."""
    from exporter import process_metrics
    from exporter.gpu import GpuSampler
    from exporter.schedule import Schedule
    from exporter.scrape.cycle import RESERVED_PREFIXES
    from exporter.systemd import Notifier
    from exporter.ticks import Ticker

    sys.setswitchinterval(SWITCH_SECONDS)
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # until there are rules to read again
        stack.callback(loop.remove_signal_handler, signal.SIGHUP)
        state = StateFile(settings.data_dir / "state.json")
        saved = state.load()

        session = await stack.enter_async_context(_http_session())
        gpu = GpuSampler(
            settings.gpu,
            blocks.gpu,
            engine_pids=lambda: watch.engine.pids(),
            simulated_load=lambda: watch.load(),
            tokens_total=lambda: watch.indicators.output_tokens_total(),
        )
        watch = Watch(
            watched,
            blocks.watch,
            settings,
            session,
            gpu,
            landed=lambda row, now: monitor.landed(row, now),
            in_flight=None if gateway is None else functools.partial(gateway.in_flight, ENGINE_NAME),
            token_at=lambda: None if gateway is None else gateway.token_at(ENGINE_NAME),
        )
        stack.callback(watch.scraper.close)
        watch.restore(saved)
        readers.watch = watch
        engine, indicators = watch.engine, watch.indicators
        parts = watch.parts()
        if gateway is not None:
            gateway.restore(saved)
            parts += gateway.parts()
        keeper = Keeper(data_dir, state, parts)
        readers.before_change = keeper.save

        def refresh(costly: bool) -> None:
            """For the store: what the blocks show at this moment, the costly figures now and then."""
            gpu.publish(now=time.monotonic(), scraped=False)
            if gateway is not None:
                gateway.recorder.interval(time.monotonic())
                gateway.publish()
            if costly:
                process.publish(now=time.monotonic())
                server.publish(blocks.daemon)
                monitor.publish()
                notifications.publish()

        notifier = Notifier.from_environment()
        schedule = Schedule()
        heartbeat = process_metrics.Heartbeat(
            notifier.beat, lambda _: schedule.follow_clock(), lambda _: gpu.take_in()
        )
        process = process_metrics.ProcessMetrics(blocks.daemon, lag=heartbeat.lag)
        readers.before_render += [
            lambda: gpu.publish(now=time.monotonic()),
            lambda: process.publish(now=time.monotonic()),
            lambda: server.publish(blocks.daemon),
        ]
        await server.start()
        stack.push_async_callback(server.stop)
        if gateway is not None:
            gateway.follow(ENGINE_NAME, engine.status)
            engine.subscribe(lambda status: gateway.follow(ENGINE_NAME, status))
            readers.before_render.append(gateway.publish)
            await gateway.start()
            stack.push_async_callback(gateway.stop, 0.0)

        # NumPy and the rules take their time: who scrapes is answered meanwhile.
        for module in ("exporter.monitor", "exporter.notifications"):
            await asyncio.to_thread(import_module, module)
        from exporter.monitor import Monitor
        from exporter.notifications import Notifications
        from exporter.web.api.daemon import daemon_api

        instance = settings.rules.instance or urlsplit(server.url).netloc
        monitor = Monitor(
            settings,
            blocks.stored(),
            daemon=blocks.daemon,
            instance=instance,
            external_url=server.url,
            reserved=RESERVED_PREFIXES,
            refresh=refresh,
            keeper=keeper,
        )
        stack.push_async_callback(monitor.stop)
        await monitor.start(settings.data_dir)
        notifications = Notifications(
            settings,
            blocks.daemon,
            external_url=server.url,
            instance=instance,
            facts=watch.facts(),
        )
        await notifications.start(settings.data_dir, monitor.evaluator, monitor.head)
        stack.push_async_callback(notifications.close)
        readers.before_render += [monitor.publish, notifications.publish]

        async def reload() -> Sequence[str]:
            """Rules, receivers and API keys, each by itself; the mistakes in all."""
            keys = () if gateway is None else await gateway.reload()
            return [*(await monitor.reload()).problems, *await notifications.reload(), *keys]

        await server.serve_api(
            daemon_api(
                settings, server.url, monitor, engine, indicators, gpu, blocks.watch.indicators, reload
            ),
            notifications,
        )

        scraping = Ticker(settings.scrape.interval, watch.scraper.scrape)
        schedule.every(settings.engine.health_interval, engine.probe, name="probe")
        if watch.probe is not None:
            schedule.every(1.0, watch.probe.tick, name="token probe")
        schedule.every(settings.storage.flush_interval, monitor.flush, name="save")

        def tell_systemd(status: EngineStatus) -> None:
            notifier.status(f"engine {status.state}")

        def scrape_faster(status: EngineStatus) -> None:
            """A drain ends with pages that show no request: do not wait for slow ones."""
            if status.state == "draining" and settings.scrape.interval > DRAIN_SCRAPE_SECONDS:
                scraping.hurry(DRAIN_SCRAPE_SECONDS)

        engine.subscribe(tell_systemd)
        engine.subscribe(scrape_faster)
        engine.subscribe(lambda status: monitor.engine_is(status.state))

        stopping = settings.engine.drain_timeout + settings.engine.kill_timeout + STOP_MARGIN_SECONDS
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, engine, gateway, number, notifier, stopping)
            stack.callback(loop.remove_signal_handler, number)

        async with asyncio.TaskGroup() as tasks:
            around = [
                tasks.create_task(scraping.run(), name="scrape"),
                tasks.create_task(schedule.run(), name="schedule"),
                tasks.create_task(gpu.run(), name="gpu"),
                tasks.create_task(heartbeat.run(), name="heartbeat"),
                tasks.create_task(monitor.run(), name="rules"),
                tasks.create_task(notifications.run(), name="notifications"),
            ]
            if gateway is not None:
                around.append(tasks.create_task(gateway.run(session), name="gateway"))
            loop.add_signal_handler(
                signal.SIGHUP, lambda: tasks.create_task(_reload(reload, notifier), name="reload")
            )
            # What was loaded stays: going through it for garbage would halt everything for 70 ms now and then.
            gc.freeze()
            gc.enable()
            notifier.ready()
            await engine.run()
            notifier.stopping()
            if gateway is not None:
                await gateway.stop(settings.engine.drain_timeout)
            await notifications.stop()
            for task in around:
                task.cancel()
        # Whoever is answered from now on would be told of what nobody writes down any more.
        await server.stop()
        await keeper.sync()
        log.info("stopped")


async def _reload(reload: Callable[[], Awaitable[object]], notifier: Notifier) -> None:
    """SIGHUP: rules and receivers are read again, and systemd is told meanwhile. Whatever goes wrong, the daemon goes on."""
    notifier.reloading()
    try:
        await reload()
    except Exception as error:
        log.exception("reload_failed", error=f"{type(error).__name__}: {error}")
    finally:
        notifier.ready()


def _gateway(
    settings: Settings, command: EngineCommand | None, blocks: Blocks
) -> tuple[Gateway | None, Watched]:
    """The gateway, where there is to be one, and what it means for the engine behind it. ConfigError where it cannot be."""
    watched = Watched(settings.engine, command, settings.data_dir)
    if settings.gateway.mode == "off" or (settings.gateway.mode == "auto" and command is None):
        return None, watched
    from exporter.engine import adoption
    from exporter.gateway.address import Candidate, GatewayOff, plan
    from exporter.gateway.gateway import Fronted, Gateway

    kept_at = None if command is None else adoption.kept_at(settings.data_dir, command.identity)
    place = plan(settings.gateway, [Candidate(ENGINE_NAME, command, kept_at)])
    if isinstance(place, GatewayOff):
        if place.reason:
            log.warning("gateway_off", reason=place.reason)
        return None, watched
    base_url = command.base_url if command is not None else settings.engine.url
    assert base_url is not None, "the command line asks for a command or an URL"
    engine = Fronted(ENGINE_NAME, settings.engine, base_url, watched.key)
    watched = replace(watched, moves=ENGINE_NAME in place.moves)
    return Gateway(settings, place, [engine], blocks.gateway, blocks.daemon), watched


def _is_our_engine(data_dir: Path, holder: ProcessId) -> bool:
    """Whether a process belongs to the engine of an earlier daemon: it is taken over, or ended to make room."""
    from exporter.engine import adoption

    record = adoption.load(data_dir)
    return record is not None and adoption.is_of(record, holder)


def engine_command(settings: Settings) -> EngineCommand | None:
    """What the engine's command line says of it; None in attach mode. ConfigError when it cannot be right."""
    if not settings.engine.command:
        return None
    from exporter.engine.command import read_command

    command = read_command(
        settings.engine.command,
        os.environ,
        url=settings.engine.url,
        read_file=lambda name: Path(name).read_text(encoding="utf-8"),
    )
    if settings.engine.api_key is not None:
        key = settings.engine.api_key
        command = replace(command, api_key=key, secrets=(*command.secrets, key.get_secret_value()))
    return command


def _http_session() -> aiohttp.ClientSession:
    """One session for everything that the daemon asks of an engine: no cookies, no proxies, no decompression unasked."""
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=16),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"Accept-Encoding": "identity", "User-Agent": f"vllm-exporter/{__version__}"},
        auto_decompress=False,
        trust_env=False,
    )


def _stop(engine: Engine, gateway: Gateway | None, number: int, notifier: Notifier, seconds: float) -> None:
    if gateway is not None:
        gateway.ends()
    engine.stop()
    notifier.stopping()
    notifier.extend_timeout(seconds)
    log.info("signal_received", signal=signal.Signals(number).name)


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors themselves, out of the groups that TaskGroups make."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for part in error.exceptions for leaf in _leaves(part)]
