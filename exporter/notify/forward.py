"""Pushes every alert to real Alertmanagers, as Prometheus does: at once, and again until it has long been over.

Each Alertmanager has its own queue and pace: one that hangs delays no other. What cannot be pushed waits and is tried
again; of each alert only the newest state waits, so that the queue is bounded by the number of alerts.

Sources: `rules/alerting.go` and `notifier/` of https://github.com/prometheus/prometheus
"""

from __future__ import annotations

import asyncio
import random
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import structlog
from pydantic import SecretStr

from exporter.errors import ConfigError
from exporter.exposition.block import Block
from exporter.exposition.model import Family
from exporter.notify.config.receivers import AlertmanagerOptions
from exporter.notify.config.values import check_url
from exporter.notify.model import Alert, Outcome
from exporter.notify.receivers.alertmanager import Target
from exporter.notify.receivers.http import SessionFactory, open_session

log = structlog.get_logger(__name__)

BATCH = 64
"""Alerts in one request."""
RESEND_SECONDS = 60.0
"""Time after which every alert is pushed again; Prometheus' `--rules.alert.resend-delay`."""
RESOLVED_SECONDS = 900.0
"""How long an alert that ended is still pushed, for Alertmanagers that missed it; Prometheus' `resolvedRetention`."""
CAPACITY = 20_000
"""Most alerts that are kept; of more, those that ended first go first, and then new ones are not taken."""
LEAST_PAUSE_SECONDS = 1.0
MOST_PAUSE_SECONDS = 30.0
"""Pause after the first failure, and the longest: it doubles, and its second half is random."""
MOST_RETRY_AFTER_SECONDS = 300.0
"""A server that wants to be left alone for longer is asked again all the same: alerts would end there meanwhile."""

_TARGET = ("alertmanager",)
SENT = Family(
    "vllm_exporter_alertmanager_alerts_sent_total",
    "counter",
    "Alerts that a real Alertmanager took, each time that they were pushed.",
    _TARGET,
)
FAILED = Family(
    "vllm_exporter_alertmanager_alerts_failed_total",
    "counter",
    "Alerts in attempts to push to a real Alertmanager that failed.",
    _TARGET,
)
QUEUED = Family(
    "vllm_exporter_alertmanager_alerts_queued",
    "gauge",
    "Alerts that wait to be pushed to a real Alertmanager.",
    _TARGET,
)
DROPPED = Family(
    "vllm_exporter_alertmanager_alerts_dropped_total",
    "counter",
    "Alerts that were not pushed to real Alertmanagers because there were too many, or they were refused.",
)
FAMILIES = (SENT, FAILED, QUEUED, DROPPED)


class Standing:
    """The alerts that Alertmanagers are to know of, with the time (monotonic) since which each is over."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.alerts: dict[int, Alert] = {}
        self.dropped = 0
        self._over: dict[int, float] = {}
        self._capacity = capacity

    def put(self, alerts: Iterable[Alert], now: float, timer: float) -> list[int]:
        """Take alerts in; the fingerprints of those that are new, or of which there is something new to say."""
        changed: list[int] = []
        for alert in alerts:
            key = alert.fingerprint
            known = self.alerts.get(key)
            if known is None and len(self.alerts) >= self._capacity and not self._make_room():
                self.dropped += 1
                continue
            self.alerts[key] = alert
            if alert.status(now) == "resolved":
                self._over.setdefault(key, timer)
            else:
                self._over.pop(key, None)
            if known is None or _told(known) != _told(alert):
                changed.append(key)
        return changed

    def again(self, timer: float) -> list[int]:
        """The fingerprints of all alerts that are to be pushed again; those that are long over are forgotten."""
        for key in [key for key, since in self._over.items() if timer - since > RESOLVED_SECONDS]:
            self._forget(key)
        return list(self.alerts)

    def _make_room(self) -> bool:
        first = next(iter(self._over), None)
        if first is not None:
            self._forget(first)
        return first is not None

    def _forget(self, key: int) -> None:
        del self._over[key]
        del self.alerts[key]


class Forwarder:
    """Pushes alerts to all of some Alertmanagers; `put` from the event loop's thread, `run` until it is cancelled."""

    def __init__(
        self,
        targets: Sequence[Target],
        block: Block,
        *,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        capacity: int = CAPACITY,
    ) -> None:
        self._standing = Standing(capacity)
        self._lanes = tuple(_Lane(target, self._standing, block, clock) for target in targets)
        self._dropped = block.counter(DROPPED)
        self._dropped.inc(0)
        self._clock = clock
        self._timer = timer

    def put(self, alerts: Sequence[Alert]) -> None:
        """Take in alerts that are new, changed or over; they are pushed at once, in batches."""
        dropped = self._standing.dropped
        self._queue(self._standing.put(alerts, self._clock(), self._timer()))
        if lost := self._standing.dropped - dropped:
            self._dropped.inc(lost)
            if not dropped:
                log.warning("alertmanager_alerts_dropped", alerts=lost, limit=CAPACITY)

    def standing(self) -> tuple[Alert, ...]:
        """What is pushed, for who takes over after a reload."""
        return tuple(self._standing.alerts.values())

    def take_over(self, before: Forwarder) -> None:
        """Take the place of one that stops, once all that is to be pushed here was put: what else it pushed is over.

        Those alerts are told elsewhere now, or nowhere; the Alertmanagers here are told that they have ended.
        """
        now = self._clock()
        left = [alert for alert in before.standing() if alert.fingerprint not in self._standing.alerts]
        self.put([_over(alert, now) for alert in left])

    async def run(self) -> None:
        """Push, and push again each `RESEND_SECONDS`."""
        async with asyncio.TaskGroup() as tasks:
            for lane in self._lanes:
                tasks.create_task(lane.run(), name=f"notify alertmanager {lane.target.name}")
            while True:
                await asyncio.sleep(RESEND_SECONDS)
                self.resend()

    def resend(self) -> None:
        """Push everything again."""
        self._queue(self._standing.again(self._timer()))

    async def close(self) -> None:
        """Let connections go."""
        for lane in self._lanes:
            await lane.close()

    def _queue(self, keys: Sequence[int]) -> None:
        for lane in self._lanes:
            lane.add(keys)


class _Lane:
    """The way to one Alertmanager: what waits for it, and how it fared last."""

    def __init__(self, target: Target, standing: Standing, block: Block, clock: Callable[[], float]) -> None:
        self.target = target
        self._standing = standing
        self._clock = clock
        self._waiting: dict[int, None] = {}
        self._work = asyncio.Event()
        self._failures = 0
        self._sent = block.counter(SENT, target.name)
        self._failed = block.counter(FAILED, target.name)
        self._queued = block.gauge(QUEUED, target.name)
        self._dropped = block.counter(DROPPED)
        for slot in (self._sent, self._failed, self._queued):
            slot.inc(0)

    def add(self, keys: Sequence[int]) -> None:
        """Alerts to push; one that waits already keeps its place."""
        if keys:
            self._waiting.update(dict.fromkeys(keys))
            self._queued.set(float(len(self._waiting)))
            self._work.set()

    async def close(self) -> None:
        """Nothing waits any more."""
        self._queued.set(0.0)
        await self.target.close()

    async def run(self) -> None:
        """Push what waits, a batch at a time, the oldest first."""
        while True:
            await self._work.wait()
            batch = self._next()
            if not batch:
                self._work.clear()
                continue
            outcome = await self._push(batch)
            self._settle(batch, outcome)
            if outcome.result == "retry":
                await asyncio.sleep(pause_seconds(self._failures, outcome.retry_after, random.random()))  # noqa: S311

    async def _push(self, batch: Sequence[Alert]) -> Outcome:
        try:
            return await self.target.post(batch, self._clock())
        except Exception as error:  # noqa: BLE001 - a bug of this must not stop the rest of the daemon
            # Not its message: who knows what is in it.
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error(
                "alertmanager_push_broken", alertmanager=self.target.name,
                error=type(error).__name__, file=place.filename, line=place.lineno,
            )  # fmt: skip
            self._postpone(batch)
            return Outcome("retry", f"internal error: {type(error).__name__}")

    def _postpone(self, batch: Sequence[Alert]) -> None:
        """Others go first: it may be something in these alerts."""
        for alert in batch:
            if alert.fingerprint in self._waiting:
                del self._waiting[alert.fingerprint]
                self._waiting[alert.fingerprint] = None

    def _next(self) -> list[Alert]:
        """The alerts of the next batch as they are now; those that were forgotten meanwhile wait no longer."""
        batch: list[Alert] = []
        gone: list[int] = []
        for key in self._waiting:
            alert = self._standing.alerts.get(key)
            if alert is None:
                gone.append(key)
            else:
                batch.append(alert)
                if len(batch) == BATCH:
                    break
        self._strike(gone)
        return batch

    def _settle(self, batch: Sequence[Alert], outcome: Outcome) -> None:
        """Strike off what was pushed or refused; an alert that changed in the meantime goes on waiting."""
        if outcome.result != "retry":
            now = self._standing.alerts
            self._strike([one.fingerprint for one in batch if now.get(one.fingerprint) in (None, one)])
        if outcome.result == "delivered":
            self._sent.inc(len(batch))
            if self._failures:
                log.info(
                    "alertmanager_push_recovered", alertmanager=self.target.name, failures=self._failures
                )
            self._failures = 0
            return
        self._failed.inc(len(batch))
        if outcome.result == "refused":
            self._dropped.inc(len(batch))
        if not self._failures:
            log.warning(
                "alertmanager_push_failed",
                alertmanager=self.target.name,
                alerts=len(batch),
                error=outcome.detail,
                answer=outcome.answer,
            )
        self._failures += 1

    def _strike(self, keys: Iterable[int]) -> None:
        for key in keys:
            self._waiting.pop(key, None)
        self._queued.set(float(len(self._waiting)))


def alertmanagers(
    urls: Sequence[SecretStr], session_factory: SessionFactory = open_session
) -> tuple[Target, ...]:
    """The Alertmanagers of the setting `notify.alertmanagers`, base addresses without HTTP options; ConfigError."""
    if not urls:
        return ()
    problems = []
    for number, url in enumerate(urls, 1):
        try:
            check_url(url.get_secret_value())
        except ValueError as error:
            problems.append(f"notify.alertmanagers, number {number}: {error}")
    if problems:
        raise ConfigError(problems)
    options = AlertmanagerOptions(urls=tuple(urls))
    return tuple(
        Target(url.get_secret_value(), options, "notify.alertmanagers", session_factory)
        for url in options.urls
    )


def pause_seconds(failures: int, retry_after: float | None, chance: float) -> float:
    """How long to wait after so many failures in a row; `chance` in [0, 1). A server that names a time is heeded."""
    most = min(LEAST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 30), MOST_PAUSE_SECONDS)
    return max(most * (1.0 + chance) / 2, min(retry_after or 0.0, MOST_RETRY_AFTER_SECONDS))


def _over(alert: Alert, now: float) -> Alert:
    if alert.status(now) == "resolved":
        return alert
    return replace(alert, ends_at=max(now, alert.starts_at), until=None)


def _told(alert: Alert) -> tuple[object, ...]:
    """What an Alertmanager hears of an alert, but for how long it is to be believed."""
    return (alert.starts_at, alert.ends_at, alert.annotations, alert.no_data_since, alert.generator_url)
