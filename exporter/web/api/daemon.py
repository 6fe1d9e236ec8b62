"""The API of the running daemon: what its parts are to the endpoints."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from exporter.gpu.demand import is_on
from exporter.web.api.api import Api
from exporter.web.api.model import Target
from exporter.web.api.status import prometheus_config
from exporter.web.api.summary import engine_json, summary_json
from exporter.web.readiness import readiness

if TYPE_CHECKING:
    from exporter.engines import Engines
    from exporter.gpu import GpuSampler
    from exporter.monitor import Monitor
    from exporter.settings import Settings


def daemon_api(
    settings: Settings,
    url: str,
    monitor: Monitor,
    engines: Engines,
    gpu: GpuSampler,
    reload: Callable[[], Awaitable[Sequence[str]]],
) -> Api:
    """The API over the store and the rules; `url` is the listener's."""
    return Api(
        settings.rules,
        monitor.head,
        statuses=monitor.evaluator.statuses,
        summary=lambda: summary(engines, gpu, monitor),
        summary_of=lambda name: summary_of(name, engines, gpu, monitor),
        reload=reload,
        targets=lambda: targets(settings, url, engines),
        config=lambda: prometheus_config(settings),
        retention=settings.storage.retention,
        alertmanagers=alertmanager_urls(settings),
    )


def summary(engines: Engines, gpu: GpuSampler, monitor: Monitor) -> dict[str, Any]:
    """`/api/v1/metrics`: of the engine, or of all together, and then of each."""
    blocks = [watch.blocks.indicators.columns() for watch in engines.watches]
    columns = (
        [series for found, _ in blocks for series in found],
        [value for _, values in blocks for value in values],
    )
    standing = readiness(engines.standing(), now=time.time(), details=False)
    state = str(standing.body["state"])
    found = summary_json(state, engines.summary(), columns, gpu.readings(), monitor.evaluator.statuses())
    if engines.several:
        found["engines"] = [
            engine_json(watch.watched.name, watch.engine.status.state, watch.indicators.summary(), own)
            for watch, own in zip(engines.watches, blocks, strict=True)
        ]
    return found


def summary_of(name: str, engines: Engines, gpu: GpuSampler, monitor: Monitor) -> dict[str, Any] | None:
    """The same of one of several engines, with the GPUs that it is on and the alerts about it; None: no such engine."""
    watch = engines.get(name)
    if watch is None or not engines.several:
        return None
    readings = [reading for reading in gpu.readings() if is_on(watch.tenant(), reading)]
    return summary_json(
        watch.engine.status.state,
        watch.indicators.summary(),
        watch.blocks.indicators.columns(),
        readings,
        monitor.evaluator.statuses(),
        instance=name,
    )


def alertmanager_urls(settings: Settings) -> list[str]:
    """Where alerts are pushed to, without what may be secret in an address: user, password, path and query."""
    addresses = [urlsplit(url.get_secret_value()) for url in settings.notify.alertmanagers]
    return [f"{address.scheme}://{address.netloc.rpartition('@')[2]}/api/v2/alerts" for address in addresses]


def targets(settings: Settings, url: str, engines: Engines) -> list[Target]:
    """What a Prometheus would list as its targets: this daemon, and the engines behind it."""
    rules, scrape = settings.rules, settings.scrape
    own = {"job": rules.job, "instance": rules.instance or urlsplit(url).netloc}
    found = [Target(rules.job, f"{url}/metrics", own, "up", scrape.interval, scrape.timeout)]
    for watch in engines.watches:
        status = watch.engine.status
        failure = status.last_failure
        found.append(
            Target(
                "vllm",
                f"{status.base_url}/metrics",
                {"job": "vllm", "instance": watch.watched.name or urlsplit(status.base_url).netloc},
                "up" if status.serving else "down",
                scrape.interval,
                scrape.timeout,
                last_error=failure.message if failure and not status.serving else "",
            )
        )
    return found
