"""Ours as the daemon wires it, without the daemon: dispatcher, outbox, delivery and receivers in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from exporter.notify.config.load import load_config
from exporter.notify.delivery.delivery import Delivery
from exporter.notify.dispatch.dispatcher import Dispatcher
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.model import Alert, Context
from exporter.notify.outbox.model import Silence
from exporter.notify.outbox.outbox import Outbox
from exporter.notify.receivers.build import build
from exporter.storage.model import Matcher


class Notifier:
    """Takes alerts and sends what its configuration says; for the time of a block."""

    def __init__(self, config: str, path: Path, *, external_url: str) -> None:
        loaded = load_config(config, "alertmanager.yml")
        self._outbox = Outbox.open(path)
        metrics = NotifyMetrics()
        self._receivers = {(one.receiver, one.integration): build(one) for one in loaded.endpoints}
        self._delivery = Delivery(
            self._receivers,
            self._outbox,
            give_up_after=3600.0,
            context=lambda: Context(external_url, time.time()),
            metrics=metrics,
        )
        self.dispatcher = Dispatcher(loaded, self._outbox, deliver=self._delivery.take, metrics=metrics)
        self.dispatcher.restore(self._outbox.load())
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self._outbox.close)
        for receiver in self._receivers.values():
            self._stack.push_async_callback(receiver.close)
        for work in (self._delivery.run(), self.dispatcher.run()):
            self._stack.push_async_callback(_ended, asyncio.create_task(work))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def put(self, alerts: Sequence[Alert]) -> None:
        """Alerts that are new, have changed or have ended."""
        self.dispatcher.put(alerts)

    def silence(self, matchers: tuple[Matcher, ...], starts_at: float, ends_at: float) -> str:
        """Add a silence; gives its number."""
        return self.dispatcher.silences.add(
            Silence("", matchers, starts_at, ends_at, starts_at, "test", "a test")
        ).id

    def expire(self, silence: str) -> None:
        """End a silence now."""
        self.dispatcher.silences.expire(silence)


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel it; what it ran into before is raised."""
    task.cancel()
    (found,) = await asyncio.gather(task, return_exceptions=True)
    if isinstance(found, Exception):
        raise found
