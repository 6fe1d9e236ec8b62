"""The composition root: builds every part from settings, runs them in one TaskGroup, ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from exporter import __version__, allocator, code_pages, logs
from exporter.engines import Engines, check_ports, stray_folders, warn_of_shared_gpus, watched_engines
from exporter.errors import ConfigError
from exporter.exposition.block import Block
from exporter.exposition.merge import LabelledSource, MergedBlocks, MergedPages
from exporter.exposition.page import Page, Renderable
from exporter.settings import Settings
from exporter.state import DataDir, Keeper, StateFile
from exporter.watch import Watch, WatchBlocks, Watched
from exporter.web import WebServer

if TYPE_CHECKING:
    import aiohttp

    from exporter.engine.process.procfs import ProcessId
    from exporter.engine.status import EngineStatus
    from exporter.engine.strays import Strays
    from exporter.gateway.gateway import Gateway
    from exporter.monitor import Monitor
    from exporter.schedule import Schedule
    from exporter.systemd import Notifier
    from exporter.ticks import Ticker
    from exporter.web.readiness import EngineGroup

log = structlog.get_logger(__name__)

DRAIN_SCRAPE_SECONDS = 0.25
"""Time between two scrapes while the engine drains."""
STOP_MARGIN_SECONDS = 20.0
"""What systemd is asked for beyond drain and kill, when it wants the daemon to stop."""
SWITCH_SECONDS = 0.0005
"""How soon a thread that evaluates a query lets the event loop go on; Python's own 5 ms would show in every scrape."""
EXIT_OK, EXIT_FAILED = 0, 1


@dataclass(slots=True)
class Blocks:
    """What `/metrics` shows, in its order."""

    watches: tuple[WatchBlocks, ...]
    """Of each engine; one without a name is the only one."""
    gateway: Block = field(default_factory=Block)
    gpu: Block = field(default_factory=Block)
    daemon: Block = field(default_factory=Block)

    def page(self, before_change: Callable[[], None]) -> Page:
        """All of them as one page."""
        indicators = MergedBlocks((*(watch.indicators for watch in self.watches), self.gateway))
        pages: Renderable = self.watches[0].page
        engines: Renderable = self.watches[0].engine
        if self.watches[0].name:
            pages = MergedPages(
                [LabelledSource("instance", watch.name, watch.page) for watch in self.watches]
            )
            engines = MergedBlocks([watch.engine for watch in self.watches])
        return Page((pages, indicators, self.gpu, engines, self.daemon), before_change=before_change)

    def stored(self) -> tuple[Block, ...]:
        """Those whose series are stored with each scrape."""
        indicators = [watch.indicators for watch in self.watches]
        engines = [watch.engine for watch in self.watches]
        return (*indicators, self.gateway, self.gpu, *engines, self.daemon)


@dataclass(slots=True)
class Readers:
    """What the HTTP face asks of parts that are built after it has taken its port."""

    engines: Engines | None = None
    before_render: list[Callable[[], None]] = field(default_factory=list)
    before_change: Callable[[], None] = lambda: None

    def standing(self) -> EngineStatus | EngineGroup:
        """How the engine is now; or all of several."""
        assert self.engines is not None, "the face answers only when the engines are built"
        return self.engines.standing()

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
    blocks = Blocks(tuple(WatchBlocks.of(name) for name in [one.name for one in settings.engines] or [""]))
    readers = Readers()
    server = WebServer(
        settings.web,
        blocks.page(lambda: readers.before_change()),
        engine_status=readers.standing,
        before_render=readers.refresh,
    )
    with contextlib.ExitStack() as stack:
        # Until all is loaded: hardly any of it is garbage, and looking through it takes a tenth of the start.
        stack.callback(gc.enable)
        gc.disable()
        stack.callback(server.bind().close)
        watched = watched_engines(settings)
        warn_of_shared_gpus(settings)
        data_dir = DataDir(settings.data_dir)
        stack.callback(data_dir.close)
        gateway, watched = _gateway(settings, watched, blocks)
        if gateway is not None:
            folders = {*(one.data_dir for one in watched), *stray_folders(settings)}
            gateway.bind(lambda holder: _is_our_engine(folders, holder))
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
    watched: tuple[Watched, ...],
    gateway: Gateway | None,
    data_dir: DataDir,
    blocks: Blocks,
    readers: Readers,
    server: WebServer,
) -> None:
    """The daemon's life, top to bottom; what is opened here is closed in reverse when the engines' lives have ended."""
    from exporter import process_metrics
    from exporter.engine.strays import Strays
    from exporter.gpu import GpuSampler
    from exporter.gpu.demand import GpuDemand
    from exporter.schedule import Schedule
    from exporter.scrape.cycle import RESERVED_PREFIXES
    from exporter.systemd import Notifier

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
            engine_pids=lambda: engines.pids(),
            simulated_load=lambda: engines.load(),
            tokens_total=lambda: engines.output_tokens_total(),
        )

        everybody = (
            contextvars.copy_context()
        )  # what a scrape leads to is not of its engine alone, as its log lines are

        def watch(one: Watched, blocks: WatchBlocks) -> Watch:
            """An engine whose scrapes land in the store."""
            return Watch(
                one,
                blocks,
                settings,
                session,
                gpu,
                landed=lambda row, now: everybody.run(monitor.landed, row, now, one.name),
                in_flight=None if gateway is None else functools.partial(gateway.in_flight, one.id),
                token_at=lambda: None if gateway is None else gateway.token_at(one.id),
            )

        engines = Engines(list(map(watch, watched, blocks.watches)), window=settings.sli.window)
        stack.callback(engines.close)
        engines.restore(saved)
        readers.engines = engines
        parts = engines.parts()
        if gateway is not None:
            gateway.restore(saved)
            parts += gateway.parts()
        keeper = Keeper(data_dir, state, parts)
        readers.before_change = keeper.save

        demand = GpuDemand(blocks.gpu) if engines.several else None

        def publish_gpus(*, scraped: bool = True) -> None:
            gpu.publish(now=time.monotonic(), scraped=scraped)
            if demand is not None:
                demand.publish(gpu.readings(), [watch.tenant() for watch in engines.watches])

        def refresh(costly: bool) -> None:
            """For the store: what the blocks show at this moment, the costly figures now and then."""
            publish_gpus(scraped=False)
            engines.advance(time.time())
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
            publish_gpus,
            lambda: process.publish(now=time.monotonic()),
            lambda: server.publish(blocks.daemon),
        ]
        await server.start()
        stack.push_async_callback(server.stop)
        if gateway is not None:
            for one in engines.watches:
                gateway.follow(one.watched.id, one.engine.status)
                one.engine.subscribe(functools.partial(gateway.follow, one.watched.id))
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
            engines=engines.names,
        )
        stack.push_async_callback(monitor.stop)
        await monitor.start(settings.data_dir)
        notifications = Notifications(
            settings,
            blocks.daemon,
            external_url=server.url,
            instance=instance,
            facts=engines.facts(),
        )
        await notifications.start(settings.data_dir, monitor.evaluator, monitor.head)
        stack.push_async_callback(notifications.close)
        readers.before_render += [monitor.publish, notifications.publish]

        async def reload() -> Sequence[str]:
            """Rules, receivers and API keys, each by itself; the mistakes in all."""
            keys = () if gateway is None else await gateway.reload()
            return [*(await monitor.reload()).problems, *await notifications.reload(), *keys]

        await server.serve_api(
            daemon_api(settings, server.url, monitor, engines, gpu, reload),
            notifications,
        )

        schedule.every(settings.storage.flush_interval, monitor.flush, name="save")
        scrapes = [_follow(one, settings, schedule, monitor) for one in engines.watches]

        def tell_systemd(_status: EngineStatus) -> None:
            notifier.status(engines.in_words())

        for one in engines.watches:
            one.engine.subscribe(tell_systemd)

        strays = Strays(stray_folders(settings), settings.engine, lambda: session)
        draining = max(one.settings.drain_timeout for one in watched)
        stopping = draining + max(one.settings.kill_timeout for one in watched) + STOP_MARGIN_SECONDS
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop, engines, strays, gateway, number, notifier, stopping)
            stack.callback(loop.remove_signal_handler, number)

        async with asyncio.TaskGroup() as tasks:
            around = [
                *(tasks.create_task(scrape, name="scrape") for scrape in scrapes),
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
            tasks.create_task(asyncio.to_thread(code_pages.let_go), name="code pages")
            await strays.end()
            await engines.run()
            notifier.stopping()
            if gateway is not None:
                await gateway.stop(draining)
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


def _follow(
    watch: Watch, settings: Settings, schedule: Schedule, monitor: Monitor
) -> Coroutine[Any, Any, None]:
    """Look at an engine again and again: its health, its page (whose scraping is returned), what it does by itself."""
    from exporter.ticks import Ticker

    scraping = Ticker(settings.scrape.interval, watch.scraper.scrape)

    def scrape_faster(status: EngineStatus) -> None:
        """A drain ends with pages that show no request: do not wait for slow ones."""
        if status.state == "draining" and settings.scrape.interval > DRAIN_SCRAPE_SECONDS:
            scraping.hurry(DRAIN_SCRAPE_SECONDS)

    name = watch.watched.name
    engine = watch.engine
    schedule.every(watch.watched.settings.health_interval, engine.probe, name=f"probe {name}".rstrip())
    if watch.probe is not None:
        schedule.every(1.0, watch.probe.tick, name=f"token probe {name}".rstrip())
    engine.subscribe(scrape_faster)
    engine.subscribe(lambda status: monitor.engine_is(status.state, name))
    return _scrape(name, scraping)


async def _scrape(name: str, scraping: Ticker) -> None:
    """Scrape one engine until cancelled, with its name in each line of the log where there are several."""
    with structlog.contextvars.bound_contextvars(**({"engine": name} if name else {})):
        await scraping.run()


def _gateway(
    settings: Settings, watched: tuple[Watched, ...], blocks: Blocks
) -> tuple[Gateway | None, tuple[Watched, ...]]:
    """The gateway, where there is to be one, and what it means for the engines behind it. ConfigError where it cannot be."""
    supervised = any(one.command is not None for one in watched)
    if settings.gateway.mode == "off" or (settings.gateway.mode == "auto" and not supervised):
        check_ports(watched)
        return None, watched
    from exporter.engine import adoption
    from exporter.gateway.address import Candidate, GatewayOff, plan
    from exporter.gateway.gateway import Fronted, Gateway

    candidates = [
        Candidate(
            one.id,
            one.command,
            None if one.command is None else adoption.kept_at(one.data_dir, one.command.identity),
        )
        for one in watched
    ]
    place = plan(settings.gateway, candidates)
    if isinstance(place, GatewayOff):
        check_ports(watched, why_no_gateway=place.reason)
        if place.reason:
            log.warning("gateway_off", reason=place.reason)
        return None, watched
    engines = [
        Fronted(one.id, one.settings, one.base_url, one.key, shown.engine if one.name else None)
        for one, shown in zip(watched, blocks.watches, strict=True)
    ]
    watched = tuple(replace(one, moves=one.id in place.moves) for one in watched)
    return Gateway(settings, place, engines, blocks.gateway, blocks.daemon), watched


def _is_our_engine(folders: Iterable[Path], holder: ProcessId) -> bool:
    """Whether a process belongs to an engine of an earlier daemon: it is taken over, or ended to make room."""
    from exporter.engine import adoption

    records = [record for folder in folders if (record := adoption.load(folder)) is not None]
    return any(adoption.is_of(record, holder) for record in records)


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


def _stop(
    engines: Engines, strays: Strays, gateway: Gateway | None, number: int, notifier: Notifier, seconds: float
) -> None:
    if gateway is not None:
        gateway.ends()
    strays.stop()
    engines.stop()
    notifier.stopping()
    notifier.extend_timeout(seconds)
    log.info("signal_received", signal=signal.Signals(number).name)


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors themselves, out of the groups that TaskGroups make."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for part in error.exceptions for leaf in _leaves(part)]
