"""Delivery: every notification of the outbox to its endpoint, each endpoint by itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Mapping, Sequence

from exporter.notify.delivery.pace import Pace
from exporter.notify.delivery.status import EndpointStatus
from exporter.notify.delivery.worker import Key, Surroundings, Worker, bury, let_go
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.model import Context, Notification, Outcome, Receiver
from exporter.notify.outbox.outbox import Outbox

GIVE_UP_AFTER = 24 * 3600.0


def _nobody(notification: Notification, outcome: Outcome) -> None:
    """Nobody listens."""


class Delivery:
    """Event loop only. What is taken before `run` waits for it."""

    def __init__(
        self,
        receivers: Mapping[Key, Receiver],
        outbox: Outbox,
        *,
        context: Callable[[], Context],
        give_up_after: float = GIVE_UP_AFTER,
        metrics: NotifyMetrics | None = None,
        observe: Callable[[Notification, Outcome], None] = _nobody,
        pace: Pace | None = None,
        timer: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`give_up_after` in seconds from a notification's being written down; `observe` is told of each attempt."""
        self._around = Surroundings(
            outbox,
            metrics or NotifyMetrics(),
            context,
            observe,
            give_up_after,
            pace or Pace(),
            timer,
            clock,
            draw,
        )
        self._around.metrics.endpoints(receivers)
        self._around.metrics.dead_letters(len(outbox.dead()))
        self._workers = {key: Worker(key, receiver, self._around) for key, receiver in receivers.items()}
        self._orphans: list[Notification] = []
        self._group: asyncio.TaskGroup | None = None
        self._changed = asyncio.Event()

    def take(self, notifications: Sequence[Notification]) -> None:
        """These are written down in the outbox, and to be sent, in their order."""
        by_key: dict[Key, list[Notification]] = {}
        for one in notifications:
            by_key.setdefault((one.receiver, one.integration), []).append(one)
        for key, some in by_key.items():
            if worker := self._workers.get(key):
                worker.take(some)
            else:
                self._orphans += some
                self._changed.set()

    async def run(self) -> None:
        """Send, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for worker in self._workers.values():
                    group.create_task(worker.run())
                while True:
                    self._changed.clear()
                    orphans, self._orphans = self._orphans, []
                    for one in orphans:
                        outcome = Outcome("refused", "its endpoint is not configured any more")
                        attempts = self._around.outbox.attempts(one.number)
                        await bury(self._around, one, outcome, attempts)
                    await self._changed.wait()
        finally:
            self._group = None
            await asyncio.gather(*(worker.close() for worker in self._workers.values()))

    async def replace(self, receivers: Mapping[Key, Receiver]) -> None:
        """These are the endpoints from now on; what waits for one that stays goes out by its new settings, at once."""
        self._around.metrics.endpoints(receivers)
        for key in self._workers.keys() - receivers.keys():
            worker = self._workers.pop(key)
            worker.retire()
            if self._group is None:
                await worker.run()
        for key, receiver in receivers.items():
            if existing := self._workers.get(key):
                if (old := existing.swap(receiver)) is not None:
                    await let_go(key, old)
            else:
                worker = self._workers[key] = Worker(key, receiver, self._around)
                if self._group is not None:
                    self._group.create_task(worker.run())

    async def resend(self, number: int) -> bool:
        """Send a dead letter again; False where there is none of this number, or its endpoint is gone."""
        letters = {letter.notification.number: letter.notification for letter in self._around.outbox.dead()}
        letter = letters.get(number)
        if letter is None or (letter.receiver, letter.integration) not in self._workers:
            return False
        revived = await self._around.outbox.revive(number)
        worker = self._workers.get((letter.receiver, letter.integration))
        if revived is None or worker is None:
            return False
        self._around.metrics.dead_letters(len(self._around.outbox.dead()))
        worker.take((revived,), again=True)
        return True

    async def settle(self, seconds: float) -> bool:
        """At the end of the daemon's life: try what was never tried and is due, let what is under way come to its end,
        and begin nothing else; False when the time was up before.
        """
        workers = tuple(self._workers.values())
        for worker in workers:
            worker.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for worker in workers:
                    await worker.finished()
                return True
        return False

    def status(self) -> tuple[EndpointStatus, ...]:
        """Every endpoint, in the configuration's order."""
        return tuple(worker.status() for worker in self._workers.values())
