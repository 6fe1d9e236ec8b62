"""The API of the running daemon: what its parts are to the endpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from exporter.web.api.api import Api
from exporter.web.api.model import Target
from exporter.web.api.status import prometheus_config
from exporter.web.api.summary import summary_json

if TYPE_CHECKING:
    from exporter.engine.status import Engine, EngineStatus
    from exporter.exposition.block import Block
    from exporter.gpu import GpuSampler
    from exporter.monitor import Monitor
    from exporter.settings import Settings
    from exporter.sli import Indicators


def daemon_api(
    settings: Settings,
    url: str,
    monitor: Monitor,
    engine: Engine,
    indicators: Indicators,
    gpu: GpuSampler,
    derived: Block,
    reload: Callable[[], Awaitable[Sequence[str]]],
) -> Api:
    """The API over the store and the rules; `derived` is the block of the indicators, `url` the listener's."""
    return Api(
        settings.rules,
        monitor.head,
        statuses=monitor.evaluator.statuses,
        summary=lambda: summary_json(
            engine.status.state,
            indicators.summary(),
            derived.columns(),
            gpu.readings(),
            monitor.evaluator.statuses(),
        ),
        reload=reload,
        targets=lambda: targets(settings, url, engine.status),
        config=lambda: prometheus_config(settings),
        retention=settings.storage.retention,
        alertmanagers=alertmanager_urls(settings),
    )


def alertmanager_urls(settings: Settings) -> list[str]:
    """Where alerts are pushed to, without what may be secret in an address: user, password, path and query."""
    addresses = [urlsplit(url.get_secret_value()) for url in settings.notify.alertmanagers]
    return [f"{address.scheme}://{address.netloc.rpartition('@')[2]}/api/v2/alerts" for address in addresses]


def targets(settings: Settings, url: str, engine: EngineStatus) -> list[Target]:
    """What a Prometheus would list as its targets: this daemon, and the engine behind it."""
    rules, scrape = settings.rules, settings.scrape
    own = {"job": rules.job, "instance": rules.instance or urlsplit(url).netloc}
    return [
        Target(rules.job, f"{url}/metrics", own, "up", scrape.interval, scrape.timeout),
        Target(
            "vllm",
            f"{engine.base_url}/metrics",
            {"job": "vllm", "instance": urlsplit(engine.base_url).netloc},
            "up" if engine.serving else "down",
            scrape.interval,
            scrape.timeout,
            last_error=engine.last_failure.message if engine.last_failure and not engine.serving else "",
        ),
    ]
