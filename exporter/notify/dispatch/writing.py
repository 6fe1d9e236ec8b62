"""Changes on their way to the outbox: gathered, written in one transaction after another, and only then sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from exporter.notify.model import Alert, Notification
from exporter.notify.outbox.model import Change, LogEntry, Silence


class Ledger(Protocol):
    """Where changes are written."""

    async def commit(self, change: Change) -> bool:
        """Write all of it or nothing, and do not take long; False where it could not, which is the ledger's to tell."""


class Gathered:
    """Changes that make up the next transaction; of two that touch the same thing the later one rules."""

    def __init__(self) -> None:
        self._notifications: list[Notification] = []
        self._log: dict[tuple[str, str, str], LogEntry] = {}
        self._gone_log: dict[tuple[str, str, str], None] = {}
        self._alerts: dict[int, Alert] = {}
        self._gone: dict[int, None] = {}
        self._silences: dict[str, Silence] = {}
        self._expired: dict[str, None] = {}
        self.any = False

    def add(self, change: Change) -> None:
        """One more change, after those that are here."""
        self.any = True
        self._notifications += change.notifications
        for alert in change.alerts:
            self._gone.pop(alert.fingerprint, None)
            self._alerts[alert.fingerprint] = alert
        for fingerprint in change.gone:
            self._alerts.pop(fingerprint, None)
            self._gone[fingerprint] = None
        for entry in change.log:
            self._gone_log.pop(entry[:3], None)
            self._log[entry[:3]] = entry
        for key in change.gone_log:
            self._log.pop(key, None)
            self._gone_log[key] = None
        for silence in change.silences:
            self._expired.pop(silence.id, None)
            self._silences[silence.id] = silence
        for silence_id in change.expired_silences:
            self._silences.pop(silence_id, None)
            self._expired[silence_id] = None

    def change(self) -> Change:
        """All of it."""
        return Change(
            notifications=tuple(self._notifications),
            log=tuple(self._log.values()),
            alerts=tuple(self._alerts.values()),
            gone=tuple(self._gone),
            silences=tuple(self._silences.values()),
            expired_silences=tuple(self._expired),
            gone_log=tuple(self._gone_log),
        )


class Writing:
    """Writes what `add` brings, and hands notifications on once they are written; event loop only."""

    def __init__(self, ledger: Ledger, deliver: Callable[[Sequence[Notification]], None]) -> None:
        self._ledger = ledger
        self._deliver = deliver
        self._next = Gathered()
        self._news = asyncio.Event()
        self._draining = asyncio.Lock()
        self._commit: asyncio.Task[None] | None = None

    def add(self, change: Change) -> None:
        """To be written with the next transaction."""
        self._next.add(change)
        self._news.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._news.wait()
            await self.drain()

    async def drain(self) -> None:
        """Write and hand on all that was added before, also after `run` was cancelled.

        Once this returns, the ledger has answered for all of it: with what it wrote, or that it could not.
        """
        async with self._draining:
            while self._commit is not None or self._next.any:
                if self._commit is None:
                    self._news.clear()
                    change, self._next = self._next.change(), Gathered()
                    self._commit = asyncio.create_task(self._write(change), name="notify commit")
                commit = self._commit
                try:
                    # Cancelled, it goes on by itself: the transaction is on its way. Who drains next waits for it.
                    await asyncio.shield(commit)
                finally:
                    if commit.done():
                        self._commit = None

    async def _write(self, change: Change) -> None:
        try:
            await self._ledger.commit(change)
        finally:
            # Written or not: the ledger does its best, and people want to know.
            if change.notifications:
                self._deliver(change.notifications)
