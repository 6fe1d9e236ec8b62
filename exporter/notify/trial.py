"""A marked alert through the real dispatcher and delivery to chosen endpoints, once, and what each of them answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from exporter.notify.config.model import Endpoint, NotifyConfig, Route
from exporter.notify.delivery.delivery import Delivery
from exporter.notify.dispatch.dispatcher import Dispatcher
from exporter.notify.model import Alert, Context, Notification, Outcome, Receiver
from exporter.notify.outbox.outbox import Outbox

Key = tuple[str, str]
"""Receiver and integration, as in `webhook[0]`."""

NAME = "VLLMExporterTest"
FOREVER = 1e9
"""Seconds; nothing is repeated in a trial."""
SPARE_SECONDS = 5.0
"""How long an attempt may last beyond its receiver's own limit before it counts as failed."""


def marked_alert(instance: str, now: float) -> Alert:
    """An alert that nobody can take for a real one. `instance` says which box it is from; `now` in unix seconds."""
    return Alert(
        labels=(("alertname", NAME), ("instance", instance), ("severity", "info"), ("test", "true")),
        annotations=(
            ("description", "Somebody ran `vllm-exporter test notify` to see whether notifications arrive."),
            ("summary", f"Test from {instance}: nothing is wrong, and there is nothing to do"),
        ),
        starts_at=now,
        updated_at=now,
    )


def trial_config(endpoints: Sequence[Endpoint]) -> NotifyConfig:
    """A configuration by which every one of these endpoints is told of every alert, at once and without exception."""
    names = tuple(dict.fromkeys(endpoint.receiver for endpoint in endpoints))
    routes = tuple(_route(name, f"{{}}/{{}}/{number}") for number, name in enumerate(names))
    # To Alertmanagers alerts are forwarded by themselves; here they are to get a notification as the others do.
    told = tuple(replace(endpoint, kind=f"trial of {endpoint.kind}") for endpoint in endpoints)
    return NotifyConfig(replace(_route(names[0], "{}"), routes=routes), told, names)


def _route(receiver: str, key: str) -> Route:
    return Route(
        receiver,
        group_by=frozenset({"alertname"}),
        group_wait=0.0,
        group_interval=1.0,
        repeat_interval=FOREVER,
        goes_on=True,
        key=key,
    )


class _Once:
    """A receiver that is not tried again, whatever it answers; where it has failed, nothing more is sent to it."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.kind = receiver.kind
        self.send_resolved = receiver.send_resolved
        self.timeout = receiver.timeout + SPARE_SECONDS
        self.outcomes: list[tuple[Notification, Outcome]] = []
        self.told = asyncio.Event()

    @property
    def working(self) -> bool:
        """Whether everything was delivered."""
        return all(outcome.result == "delivered" for _, outcome in self.outcomes)

    async def send(self, notification: Notification, context: Context) -> Outcome:
        if not self.working:
            return Outcome("refused", "it has failed already")
        try:
            async with asyncio.timeout(self._receiver.timeout):
                outcome = await self._receiver.send(notification, context)
        except TimeoutError:
            outcome = Outcome("refused", f"no answer within {self._receiver.timeout:g} s")
        except Exception as error:  # noqa: BLE001  # a bug of one receiver must not hide what the others say
            outcome = Outcome("refused", f"internal error: {type(error).__name__}")
        self.outcomes.append((notification, outcome))
        self.told.set()
        return outcome if outcome.result == "delivered" else outcome._replace(result="refused")

    async def close(self) -> None:
        await self._receiver.close()


async def try_out(
    endpoints: Sequence[Endpoint],
    receivers: Mapping[Key, Receiver],
    alert: Alert,
    *,
    context: Callable[[], Context],
    resolve: bool = True,
) -> dict[Key, list[tuple[Notification, Outcome]]]:
    """Tell every endpoint that the alert fires and then, where it wants to know and took that, that it ended.

    What each was sent, and what it answered. `resolve` False: the alert goes on for ever.
    """
    timer = [0.0]
    attempts = {key: _Once(receiver) for key, receiver in receivers.items()}
    outbox = Outbox.in_memory()
    delivery = Delivery(attempts, outbox, context=context)
    dispatcher = Dispatcher(trial_config(endpoints), outbox, deliver=delivery.take, timer=lambda: timer[0])

    async def tell(what: Alert, to: Sequence[_Once]) -> None:
        for attempt in to:
            attempt.told.clear()
        dispatcher.put([what])
        await dispatcher.drain()
        limit = max((attempt.timeout for attempt in to), default=0.0)
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await asyncio.gather(*(attempt.told.wait() for attempt in to))

    sending = asyncio.create_task(delivery.run())
    try:
        await tell(alert, list(attempts.values()))
        listening = [attempt for attempt in attempts.values() if attempt.send_resolved and attempt.working]
        if resolve and listening:
            timer[0] += 1.0
            now = max(time.time(), alert.starts_at)
            await tell(replace(alert, ends_at=now, updated_at=now), listening)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await outbox.close()
    return {key: attempt.outcomes for key, attempt in attempts.items()}
