"""From the rules to the receivers: what is loaded, put together and run so that alerts arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from exporter.errors import ConfigError
from exporter.exposition.block import Block
from exporter.notify.config.model import NotifyConfig
from exporter.notify.delivery.delivery import Delivery
from exporter.notify.delivery.identity import identities, unchanged
from exporter.notify.dispatch import Dispatcher
from exporter.notify.engine_facts import About
from exporter.notify.forward import Forwarder, alertmanagers
from exporter.notify.intake import Intake, Rules
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.model import Alert, Context
from exporter.notify.outbox.outbox import Outbox
from exporter.notify.receivers.build import load_receivers
from exporter.settings import Settings
from exporter.storage.model import Storage

if TYPE_CHECKING:
    from exporter.notify.report.reporting import Reporting

log = structlog.get_logger(__name__)

SETTLE_SECONDS = 3.0
"""Longest time that the end waits for notifications that were never tried; they outlive it in the outbox."""
FILE = "notify.db"


class Notifications:
    """Owns receivers, dispatcher, delivery and outbox; event loop only.

    `rules` tell of alerts, `storage` has the samples that reports are made of. `facts` knows the engines. A mistake in the
    configuration is told by `start` as a ConfigError, and by `reload` in its answer.
    """

    def __init__(
        self, settings: Settings, block: Block, *, external_url: str, instance: str, facts: About
    ) -> None:
        self._settings = settings
        self._block = block
        self._url = (settings.rules.external_url or external_url).rstrip("/")
        self._instance = instance
        self._facts = facts
        self._metrics = NotifyMetrics(block)
        self.started = time.time()
        self.config: NotifyConfig
        self.outbox: Outbox
        self.delivery: Delivery
        self.dispatcher: Dispatcher
        self._intake: Intake
        self._report: Reporting | None = None
        self._forwarders: dict[str, Forwarder] = {}
        self._pushing: Forwarder | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._reloading = asyncio.Lock()
        self._forwarding: dict[str, asyncio.Task[None]] = {}

    async def start(self, data_dir: Path, rules: Rules, storage: Storage) -> None:
        """Load the configuration and what the daemon before left behind; once the rules are loaded, before they run."""
        config, receivers, targets = await asyncio.to_thread(load_receivers, self._settings.notify)
        self.outbox = await asyncio.to_thread(Outbox.open, data_dir / FILE)
        self.config = config
        known = identities(config.endpoints, self.outbox.identity_key)
        await self.outbox.changed_identities(known)
        self.delivery = Delivery(
            receivers,
            self.outbox,
            identities=known,
            context=self._context,
            give_up_after=self._settings.notify.give_up_after,
            metrics=self._metrics,
        )
        self.dispatcher = Dispatcher(
            config, self.outbox, deliver=self.delivery.take, forward=self._forward, metrics=self._metrics
        )
        self._forwarders = {name: Forwarder(some, self._block) for name, some in targets.items()}
        if urls := self._settings.notify.alertmanagers:
            self._pushing = Forwarder(alertmanagers(urls), self._block)
        saved = self.outbox.load()
        self.dispatcher.restore(saved)
        self.delivery.take(saved.pending)
        self._intake = Intake(
            rules,
            self._put,
            external_labels=self._settings.rules.external_labels,
            external_url=self._url,
            enrich=self._facts,
        )
        self._intake.remember(saved.alerts)
        if self._pushing is not None:
            self._pushing.put([alert for alert in saved.alerts if alert.until is None])
        if self._settings.notify.report != "off":
            from exporter.notify.report.reporting import Reporting  # by default there is none

            self._report = Reporting(self._settings, storage, self._url, data_dir / "report.json")
        self._metrics.reloaded(time.time())
        if not config.endpoints and self._pushing is None:
            log.info("nobody_is_notified", advice="alerts are shown only; give --webhook URL or notify.file")

    async def run(self) -> None:
        """Tell whoever must be told, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            for work in (self.dispatcher, self.delivery, self._intake):
                self._tasks.create_task(work.run(), name=f"notify {type(work).__name__.lower()}")
            if self._pushing is not None:
                self._tasks.create_task(self._pushing.run(), name="notify alertmanagers")
            if self._report is not None:
                self._tasks.create_task(self._report.run(self._announce), name="notify report")
            for name in self._forwarders:
                self._begin_forwarding(name)

    async def reload(self) -> Sequence[str]:
        """Read the configuration again; the mistakes in it, and then nothing changed. One at a time."""
        async with self._reloading:
            return await self._reload()

    async def _reload(self) -> Sequence[str]:
        try:
            config, receivers, targets = await asyncio.to_thread(load_receivers, self._settings.notify)
        except ConfigError as error:
            self._metrics.not_reloaded()
            for problem in error.problems:
                log.error("notify_config_not_loaded", problem=problem)
            return error.problems
        same, self.config = unchanged(self.config.endpoints, config.endpoints), config
        await self.dispatcher.drain()  # what was decided so far is for who stood there so far
        known = identities(config.endpoints, self.outbox.identity_key)
        others = await self.outbox.changed_identities(known)
        await self.delivery.replace(receivers, known, same)
        before = self._forwarders
        self._forwarders = {name: Forwarder(some, self._block) for name, some in targets.items()}
        self.dispatcher.reload(config, others)  # which forwards all that fires by the new routes
        await self._retire(before)
        self._metrics.reloaded(time.time())
        log.info("notify_config_loaded", receivers=len(config.receivers), endpoints=len(config.endpoints))
        return ()

    def publish(self) -> None:
        """Write the outbox's own series."""
        self._metrics.outbox(self.outbox.stats)

    async def stop(self) -> None:
        """Write everything down; what was never tried is tried once, if that is quick. `run` is still at work."""
        await self.dispatcher.drain()
        await self.delivery.settle(SETTLE_SECONDS)

    async def close(self) -> None:
        """Let the file and the connections go, when `run` is over."""
        await self.dispatcher.drain()
        await self.outbox.close()
        for forwarder in (*self._forwarders.values(), *([self._pushing] if self._pushing else [])):
            await forwarder.close()

    # --- inside

    def _context(self) -> Context:
        facts = {**self._facts.facts(), "instance": self._instance}
        return Context(external_url=self._url, now=time.time(), facts=facts)

    def _put(self, alerts: Sequence[Alert]) -> None:
        self.dispatcher.put(alerts)
        if self._pushing is not None:
            self._pushing.put(alerts)

    def _forward(self, receiver: str, alerts: Sequence[Alert]) -> None:
        if (forwarder := self._forwarders.get(receiver)) is not None:
            forwarder.put(alerts)

    async def _announce(self, alert: Alert) -> None:
        """Tell of something that is no alert of a rule, once; it is written down when this is over."""
        self.dispatcher.announce(alert, self._settings.notify.report_receiver)
        await self.dispatcher.drain()

    async def _retire(self, before: Mapping[str, Forwarder]) -> None:
        """End the forwarders of the configuration before; what was pushed by them and is not any more, is over there."""
        for name, forwarder in self._forwarders.items():
            if name in before:
                forwarder.take_over(before[name])
        for name, old in before.items():
            if (task := self._forwarding.pop(name, None)) is not None:
                task.cancel()
            await old.close()
        for name in self._forwarders:
            self._begin_forwarding(name)

    def _begin_forwarding(self, name: str) -> None:
        if self._tasks is not None:
            work = self._forwarders[name].run()
            self._forwarding[name] = self._tasks.create_task(work, name=f"notify forward {name}")
