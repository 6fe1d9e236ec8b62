"""A dispatcher on clocks that stand still until a test moves them, and a ledger that remembers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from exporter.exposition.block import Block
from exporter.notify.config.model import Endpoint, Inhibition, NotifyConfig, Route
from exporter.notify.config.receivers import WebhookOptions
from exporter.notify.dispatch import Dispatcher
from exporter.notify.metrics import NotifyMetrics
from exporter.notify.model import Alert, Notification
from exporter.notify.outbox.model import Change, LogEntry, Saved, Silence

START = 1_700_000_000.0


class Ledger:
    """Keeps what is committed as the outbox's file would; notifications stay pending."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    async def commit(self, change: Change) -> bool:
        self.changes.append(change)
        return True

    def saved(self) -> Saved:
        """What the next daemon finds."""
        alerts: dict[int, Alert] = {}
        log: dict[tuple[str, str, str], LogEntry] = {}
        silences: dict[str, Silence] = {}
        pending: list[Notification] = []
        for change in self.changes:
            alerts.update((alert.fingerprint, alert) for alert in change.alerts)
            for fingerprint in change.gone:
                alerts.pop(fingerprint, None)
            log.update((entry[:3], entry) for entry in change.log)
            for key in change.gone_log:
                log.pop(key, None)
            silences.update((silence.id, silence) for silence in change.silences)
            for silence_id in change.expired_silences:
                silences.pop(silence_id, None)
            pending += change.notifications
        number = max((one.number for one in pending), default=0) + 1
        return Saved(
            tuple(alerts.values()),
            tuple(log.values()),
            tuple(silences.values()),
            tuple(pending),
            next_number=number,
        )


class Desk:
    """One daemon's dispatcher; `now` and `timer` are set by hand."""

    def __init__(self, config: NotifyConfig, ledger: Ledger | None = None) -> None:
        self.now = START
        self.timer = 1000.0
        self.config = config
        self.ledger = ledger if ledger is not None else Ledger()
        self.sent: list[Notification] = []
        self.forwarded: list[tuple[str, Sequence[Alert]]] = []
        self.block = Block()
        self.dispatcher = self._dispatcher()

    def _dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self.config,
            self.ledger,
            deliver=self.sent.extend,
            forward=lambda receiver, alerts: self.forwarded.append((receiver, alerts)),
            metrics=NotifyMetrics(self.block),
            clock=lambda: self.now,
            timer=lambda: self.timer,
        )

    def page(self) -> str:
        """The metrics."""
        return self.block.render(openmetrics=False).decode()

    async def put(self, *alerts: Alert) -> list[Notification]:
        """What is told in the same turn."""
        self.dispatcher.put(alerts)
        return await self._told()

    async def wait(self, seconds: float, *, wall: float | None = None) -> list[Notification]:
        """Let time pass, and do what is due in it; `wall` where the clock on the wall goes another way."""
        end = self.timer + seconds
        rate = 1.0 if wall is None else wall / seconds
        while True:
            step = min(self.dispatcher.tick(), end - self.timer)
            if step <= 0 and self.timer >= end:
                break
            self.timer += step
            self.now += step * rate
        return await self._told()

    async def restart(self, *, down: float = 0.0, timer: float = 50.0) -> None:
        """Another daemon takes over after some seconds; its timer begins elsewhere."""
        await self.dispatcher.drain()
        self.sent.clear()
        self.now += down
        self.timer = timer
        self.dispatcher = self._dispatcher()
        self.dispatcher.restore(self.ledger.saved())

    async def _told(self) -> list[Notification]:
        await self.dispatcher.drain()
        told = list(self.sent)
        self.sent.clear()
        return told


def endpoint(
    receiver: str = "team", number: int = 0, kind: str = "webhook", send_resolved: bool = True
) -> Endpoint:
    return Endpoint(receiver, f"{kind}[{number}]", kind, send_resolved, WebhookOptions.model_construct())


@pytest.fixture
def config() -> Callable[..., NotifyConfig]:
    """A configuration; by default one receiver with one webhook, groups by alertname, nothing waits at first."""

    def make(
        *routes: Route,
        root: Route | None = None,
        endpoints: Sequence[Endpoint] | None = None,
        inhibitions: Sequence[Inhibition] = (),
        **others: object,
    ) -> NotifyConfig:
        route = root or Route(
            "team",
            group_by=frozenset({"alertname"}),
            group_wait=0.0,
            group_interval=60.0,
            repeat_interval=3600.0,
            routes=routes,
        )
        endpoints = (endpoint(),) if endpoints is None else tuple(endpoints)
        return NotifyConfig(
            route,
            tuple(endpoints),
            tuple(dict.fromkeys(one.receiver for one in endpoints)),
            tuple(inhibitions),
            **others,  # type: ignore[arg-type]
        )

    return make


@pytest.fixture
def desk(config: Callable[..., NotifyConfig]) -> Callable[..., Desk]:
    """A desk, from what a configuration is made of."""
    return lambda *routes, **others: Desk(config(*routes, **others))


@pytest.fixture
def endpoints() -> Callable[..., Endpoint]:
    """An endpoint."""
    return endpoint


@pytest.fixture
def alert() -> Callable[..., Alert]:
    """An alert by name and labels; it began at the start unless something else is said."""

    def make(
        name: str = "Slow",
        *,
        starts_at: float = START,
        ends_at: float | None = None,
        until: float | None = None,
        no_data_since: float | None = None,
        says: str = "too slow",
        **labels: str,
    ) -> Alert:
        return Alert(
            tuple(sorted({"alertname": name, **labels}.items())),
            (("summary", says),),
            starts_at,
            ends_at,
            until=until,
            no_data_since=no_data_since,
        )

    return make


@pytest.fixture
def start() -> float:
    """When every test begins."""
    return START
