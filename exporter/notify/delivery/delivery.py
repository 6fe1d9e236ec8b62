"""Delivery: every notification of the outbox to its endpoint, each endpoint by itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from exporter.notify.delivery.pace import Pace
from exporter.notify.delivery.status import EndpointStatus
from exporter.notify.delivery.worker import NO_ENDPOINT, Key, Surroundings, Worker, bury, let_go
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
        identities: Mapping[Key, str] | None = None,
        context: Callable[[], Context],
        give_up_after: float = GIVE_UP_AFTER,
        metrics: NotifyMetrics | None = None,
        observe: Callable[[Notification, Outcome], None] = _nobody,
        pace: Pace | None = None,
        timer: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`give_up_after` in seconds from a notification's being written down; `observe` is told of each attempt.

        `identities`: who the endpoints are, as the outbox was told; what is for another is not sent. None: nobody checks.
        """
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
        self._identities = dict(identities or {})
        self._orphans: list[Notification] = []
        self._group: asyncio.TaskGroup | None = None
        self._changed = asyncio.Event()

    def take(self, notifications: Sequence[Notification]) -> None:
        """These are written down in the outbox, and to be sent, in their order."""
        by_key: dict[Key, list[Notification]] = {}
        for one in notifications:
            if self._has_its_endpoint(one):
                by_key.setdefault((one.receiver, one.integration), []).append(one)
            else:
                self._orphans.append(one)
                self._changed.set()
        for key, some in by_key.items():
            self._workers[key].take(some)

    async def run(self) -> None:
        """Send, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for worker in self._workers.values():
                    group.create_task(worker.run(), name=worker.name)
                while True:
                    self._changed.clear()
                    orphans, self._orphans = self._orphans, []
                    for one in orphans:
                        await bury(self._around, one, NO_ENDPOINT, self._around.outbox.attempts(one.number))
                    await self._changed.wait()
        finally:
            self._group = None
            await asyncio.gather(*(worker.close() for worker in self._workers.values()))

    async def replace(
        self,
        receivers: Mapping[Key, Receiver],
        identities: Mapping[Key, str] | None = None,
        unchanged: Collection[Key] = (),
    ) -> None:
        """These are the endpoints from now on; what waits for one that stays goes out by its new settings, at once.

        One whose identity is another's than before does not stay. One that is `unchanged` in all its settings keeps its
        circuit, and what it asked to wait.
        """
        self._around.metrics.endpoints(receivers)
        before, self._identities = self._identities, dict(identities or {})
        others = {key for key, known in before.items() if self._identities.get(key, known) != known}
        # All of it in one turn: what is taken in the meantime finds its endpoint.
        retired = [self._workers.pop(key) for key in self._workers.keys() - (receivers.keys() - others)]
        for worker in retired:
            worker.retire()
        unused: list[tuple[Key, Receiver]] = []
        for key, receiver in receivers.items():
            if existing := self._workers.get(key):
                if (old := existing.swap(receiver, same=key in unchanged)) is not None:
                    unused.append((key, old))
            else:
                worker = self._workers[key] = Worker(key, receiver, self._around)
                if self._group is not None:
                    self._group.create_task(worker.run(), name=worker.name)
        self._workers = {key: self._workers[key] for key in receivers}
        if self._group is None:
            for worker in retired:
                await worker.run()
        for key, old in unused:
            await let_go(key, old)

    async def resend(self, number: int) -> bool:
        """Send a dead letter again; False where there is none of this number, or its endpoint is gone."""
        letters = {letter.notification.number: letter.notification for letter in self._around.outbox.dead()}
        letter = letters.get(number)
        if letter is None or not self._has_its_endpoint(letter):
            return False
        revived = await self._around.outbox.revive(number)
        self._around.metrics.dead_letters(len(self._around.outbox.dead()))
        if revived is None:
            return False
        if not self._has_its_endpoint(revived):  # it went in the meantime
            self.take((revived,))
            return False
        self._workers[revived.receiver, revived.integration].take((revived,), again=True)
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

    def _has_its_endpoint(self, notification: Notification) -> bool:
        key = (notification.receiver, notification.integration)
        known, now = self._around.outbox.identity(notification.number), self._identities.get(key)
        return key in self._workers and (not known or now is None or now == known)
