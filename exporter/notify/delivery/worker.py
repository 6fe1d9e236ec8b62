"""One endpoint's worker: makes the attempts that are due, and writes down what became of them."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog

from exporter.notify.delivery.lanes import Item, Lanes, given_up, pushed_out
from exporter.notify.delivery.pace import Pace
from exporter.notify.delivery.status import EndpointStatus, Queued
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.model import Context, Notification, Outcome, Receiver
from exporter.notify.outbox.outbox import Outbox

Key = tuple[str, str]
"""Receiver and integration."""

NO_ENDPOINT = Outcome("refused", "its endpoint is not configured any more")
CLOSE_SECONDS = 5.0
"""Longest wait for a receiver that is to let its connections go."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all workers share; `timer` and `clock` in seconds, `draw` from 0 to 1."""

    outbox: Outbox
    metrics: NotifyMetrics
    context: Callable[[], Context]
    observe: Callable[[Notification, Outcome], None]
    """Is told of each attempt."""
    give_up_after: float
    pace: Pace
    timer: Callable[[], float]
    clock: Callable[[], float]
    draw: Callable[[], float]


class Worker:
    """Event loop only."""

    def __init__(self, key: Key, receiver: Receiver, around: Surroundings) -> None:
        self._key = key
        self._receiver = receiver
        self._around = around
        self._lanes = Lanes(around.pace)
        self._wake = asyncio.Event()
        self._retired = False
        self._finishing = False
        self._finished = asyncio.Event()
        self._failing_since: float | None = None
        self._last_attempt: float | None = None
        self._last_outcome: Outcome | None = None
        self._last_delivered: float | None = None
        self._using: dict[int, int] = {}
        """Attempts under way by the identity of their receiver: an old one is closed after its last."""
        self._superseded: list[Item] = []

    @property
    def name(self) -> str:
        """Of its task."""
        return f"notify {self._key[0]} {self._key[1]}"

    def take(self, notifications: Iterable[Notification], *, again: bool = False) -> None:
        """These are written down, and to be sent; `again`: somebody asked for it, and their age counts for nothing."""
        now, clock = self._around.timer(), self._around.clock()
        for one in notifications:
            age = 0.0 if again else max(0.0, clock - one.created_at)
            item = Item(one, now + self._around.give_up_after - age, self._around.outbox.attempts(one.number))
            item.watched = not again and not self._is_over(one)
            self._superseded += self._lanes.put(item, now)
        self._show()
        self._wake.set()

    def swap(self, receiver: Receiver, *, same: bool = False) -> Receiver | None:
        """Send by another from now on; the old one, where it is not in use and can be closed.

        At once, whatever failed before, unless its settings are the `same`.
        """
        old, self._receiver = self._receiver, receiver
        if not same:
            self._lanes.reset(self._around.timer())
        self._show()
        self._wake.set()
        return None if id(old) in self._using else old

    def finish(self) -> None:
        """The daemon's life ends: what was never tried and is due is tried, and nothing again."""
        self._finishing = True
        self._wake.set()

    async def finished(self) -> None:
        """Wait until nothing is under way and, after `finish`, nothing begins any more."""
        if self._lanes.in_flight or self._lanes.untried() or self._superseded:
            await self._finished.wait()

    def retire(self) -> None:
        """The endpoint is gone: `run` ends when nothing is under way."""
        self._retired = True
        self._wake.set()

    async def run(self) -> None:
        """Make the attempts as they come due."""
        async with asyncio.TaskGroup() as attempts:
            while not (self._retired and not self._lanes.in_flight):
                self._wake.clear()
                if not self._receiver.send_resolved:
                    # It will not hear that they ended: then it needs not hear that they fired.
                    self._superseded += self._lanes.withdraw(self._is_over, self._around.timer())
                await self._strike_superseded()
                for item in self._lanes.expired(self._around.timer()):
                    await self._bury(item, given_up(item.last))
                for item in self._lanes.overfull(self._around.timer()):
                    await self._bury(item, pushed_out(item.last))
                if not self._retired:
                    for item in self._lanes.start(self._around.timer(), news_only=self._finishing):
                        attempts.create_task(
                            self._attempt(item), name=f"{self.name} #{item.notification.number}"
                        )
                if self._finishing and not self._lanes.in_flight:
                    self._finished.set()
                self._show()
                await self._until_woken()
        await self._strike_superseded()
        for item in self._lanes.clear():
            await self._bury(item, NO_ENDPOINT)
        await self.close()

    async def close(self) -> None:
        """Let the receiver's connections go, when `run` did not end by itself."""
        await let_go(self._key, self._receiver)

    def status(self) -> EndpointStatus:
        """As it is now."""
        shift = self._around.clock() - self._around.timer()
        circuit = self._lanes.circuit
        queue = tuple(
            Queued(
                item.notification,
                item.attempts,
                item.last,
                in_flight,
                max(not_before, self._around.timer()) + shift,
                item.deadline + shift,
            )
            for item, in_flight, not_before in self._lanes.items()
        )
        return EndpointStatus(
            *self._key,
            self._receiver.kind,
            circuit.state,
            circuit.failures,
            circuit.trial_at + shift if circuit.state == "open" else None,
            self._last_attempt,
            self._last_outcome,
            self._last_delivered,
            queue,
        )

    def _is_over(self, notification: Notification) -> bool:
        """Whether none of its alerts fires any more, as far as the outbox knows them."""
        now = self._around.clock()
        return not any(self._around.outbox.fires(alert.fingerprint, now) for alert in notification.alerts)

    async def _until_woken(self) -> None:
        at = self._lanes.wake()
        if at is None or self._retired or self._finishing:
            await self._wake.wait()
            return
        try:
            async with asyncio.timeout(max(0.0, at - self._around.timer())):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _attempt(self, item: Item) -> None:
        receiver = self._receiver
        self._using[id(receiver)] = self._using.get(id(receiver), 0) + 1
        try:
            await self._attempt_by(receiver, item)
        finally:
            self._using[id(receiver)] -= 1
            if not self._using[id(receiver)]:
                del self._using[id(receiver)]
                if receiver is not self._receiver:
                    await let_go(self._key, receiver)

    async def _attempt_by(self, receiver: Receiver, item: Item) -> None:
        begun = self._around.timer()
        outcome = await self._send(receiver, item.notification)
        now = self._around.timer()
        self._last_attempt, self._last_outcome = self._around.clock(), outcome
        self._around.metrics.attempted(self._key, outcome.result, now - begun)
        self._around.observe(item.notification, outcome)
        verdict = self._lanes.ended(item, outcome, now, self._around.draw())
        if verdict.became == "delivered":
            await self._delivered(item, now)
        else:
            self._failed(item, outcome, now)
            if verdict.became == "dead":
                await self._bury(item, verdict.outcome)
            elif verdict.became == "superseded":
                self._superseded.append(item)
            else:
                await self._around.outbox.failed(item.notification.number, outcome, item.attempts)
        self._lanes.release(item)
        self._show()
        self._wake.set()

    async def _send(self, receiver: Receiver, notification: Notification) -> Outcome:
        try:
            async with asyncio.timeout(receiver.timeout):
                return await receiver.send(notification, self._around.context())
        except TimeoutError:
            return Outcome("retry", f"no answer within {receiver.timeout:g} s")
        except Exception as error:  # noqa: BLE001 - a bug of one receiver must not stop the others
            # Not its message: who knows what is in it.
            place = traceback.extract_tb(error.__traceback__)[-1]
            log.error(
                "receiver_broken", receiver=self._key[0], integration=self._key[1],
                error=type(error).__name__, file=place.filename, line=place.lineno,
            )  # fmt: skip
            return Outcome("retry", f"internal error: {type(error).__name__}")

    async def _delivered(self, item: Item, now: float) -> None:
        self._last_delivered = self._around.clock()
        if self._failing_since is not None:
            log.info(
                "notifications_delivered_again", receiver=self._key[0], integration=self._key[1],
                after_seconds=round(now - self._failing_since, 1), waiting=len(self._lanes),
            )  # fmt: skip
            self._failing_since = None
        self._around.metrics.became(self._key, "delivered")
        self._around.metrics.delayed(self._key, self._around.clock() - item.notification.created_at)
        await self._around.outbox.delivered(item.notification.number)

    def _failed(self, item: Item, outcome: Outcome, now: float) -> None:
        if item.attempts > 1 or outcome.result == "refused":
            self._around.metrics.became(self._key, "failed")
        if self._failing_since is None and outcome.result == "retry":
            self._failing_since = now
            log.warning(
                "notifications_failing", receiver=self._key[0], integration=self._key[1],
                error=outcome.detail, code=outcome.code, answer=outcome.answer,
                advice="it is tried again, at longer and longer intervals",
            )  # fmt: skip

    async def _bury(self, item: Item, outcome: Outcome) -> None:
        await bury(self._around, item.notification, outcome, item.attempts)

    async def _strike_superseded(self) -> None:
        gone, self._superseded = self._superseded, []
        for _ in gone:
            self._around.metrics.became(self._key, "superseded")
        if gone:
            await self._around.outbox.delivered(*(item.notification.number for item in gone))

    def _show(self) -> None:
        if self._retired:
            return  # another may have its place
        self._around.metrics.pending(self._key, len(self._lanes))
        self._around.metrics.circuit(self._key, self._lanes.circuit.state)


async def let_go(key: Key, receiver: Receiver) -> None:
    """Close a receiver; one that cannot be closed is told of, and nobody waits for it long."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await receiver.close()
    except Exception as error:  # noqa: BLE001 - a bug of one receiver must not stop the others; not its message: it may hold a secret
        log.warning("receiver_not_closed", receiver=key[0], integration=key[1], error=type(error).__name__)


async def bury(around: Surroundings, notification: Notification, outcome: Outcome, attempts: int) -> None:
    """Make a notification a dead letter, and say so."""
    log.warning(
        "notification_dead", number=notification.number, receiver=notification.receiver,
        integration=notification.integration, alerts=len(notification.alerts), error=outcome.detail,
        code=outcome.code, answer=outcome.answer[:500], attempts=attempts,
        advice="vllm-exporter notify list shows it, notify resend sends it again",
    )  # fmt: skip
    around.metrics.became((notification.receiver, notification.integration), "dead")
    dropped = await around.outbox.bury(notification.number, outcome, attempts, around.clock())
    around.metrics.dead_letters(len(around.outbox.dead()), dropped)
