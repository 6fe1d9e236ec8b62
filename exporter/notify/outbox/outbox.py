"""The outbox: a notification is written down before its first attempt, and struck off when its receiver has it.

Writing is a thread's work, many changes in one transaction where they come together. Whatever the disk does, nothing is
raised: what could not be written stays in memory, and goes to disk when it works again. A write is waited for, COMMIT_SECONDS
at most; after one that took longer nobody waits, until the disk has answered.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from exporter.notify.model import Notification, Outcome
from exporter.notify.outbox.kept import Delta, Kept, Tried
from exporter.notify.outbox.link import Link
from exporter.notify.outbox.model import Change, DeadLetter, Identities, Saved
from exporter.notify.outbox.stats import OutboxStats
from exporter.notify.outbox.writer import Writer

COMMIT_SECONDS = 2.0
"""Longest wait for the disk, by every change that is under way then; sending goes on without it."""

log = structlog.get_logger(__name__)


class Outbox:
    """All that is to outlive the process; event loop only, but for `open`, which blocks on the disk."""

    @classmethod
    def open(cls, path: Path) -> Outbox:
        """The outbox in a file; made when it is missing, begun anew when it is broken."""
        return cls(path)

    @classmethod
    def in_memory(cls) -> Outbox:
        """One that forgets everything."""
        return cls(None)

    def __init__(self, path: Path | None) -> None:
        self._kept = Kept()
        self._lock = threading.Lock()
        self._stuck = False
        self._slow = 0
        self._writer: Writer | None = None
        if path is not None:
            link = Link(path, self._whole)
            self._kept = link.read()
            self._writer = Writer(link)

    @property
    def stats(self) -> OutboxStats:
        """How the file does; never waits."""
        if self._writer is None:
            return OutboxStats()
        stats = self._writer.link.stats
        if self._slow:
            stats = replace(stats, failures={**stats.failures, "slow": self._slow})
        return replace(stats, problem="slow") if self._stuck else stats

    def load(self) -> Saved:
        """What is kept now; after `open`, what the daemon before left behind."""
        return self._kept.saved()

    def attempts(self, number: int) -> int:
        """How often a pending notification was tried, restarts included."""
        tried = self._kept.tried.get(number)
        return 0 if tried is None else tried.attempts

    @property
    def identity_key(self) -> bytes:
        """Random, of this file: for the hash that tells endpoints apart."""
        return self._kept.identities.key

    def identity(self, number: int) -> str:
        """Of the endpoint that a notification or dead letter was written down for; empty where nobody knows."""
        return self._kept.identity.get(number, "")

    async def changed_identities(self, now: Mapping[tuple[str, str], str]) -> set[tuple[str, str]]:
        """Have the endpoints' identities as they are now written down; which were another's before, or are no more.

        What was told to those is forgotten: it says nothing of what who stands there now knows.
        """
        before = self._kept.identities
        if before.of == now:
            return set()
        changed = {key for key, known in before.of.items() if now.get(key) != known}
        told = tuple(key for key in self._kept.log if key[1:] in changed)
        await self._write(Delta(Change(gone_log=told), identities=Identities(before.key, dict(now))))
        return changed

    def fires(self, fingerprint: int, now: float) -> bool:
        """Whether an alert that was put down is there and has not ended."""
        alert = self._kept.alerts.get(fingerprint)
        return alert is not None and alert.status(now) == "firing"

    def dead(self) -> tuple[DeadLetter, ...]:
        """What was refused or given up, the oldest first."""
        return tuple(self._kept.dead.values())

    async def commit(self, change: Change) -> bool:
        """Write a change down in one transaction; a row that no file can hold is left out, and told of in the log.

        False: it is kept in memory alone, for now.
        """
        of = self._kept.identities.of
        stamps = ((one.number, of.get((one.receiver, one.integration), "")) for one in change.notifications)
        return await self._write(Delta(change, stamps=tuple(stamp for stamp in stamps if stamp[1])))

    async def delivered(self, *numbers: int) -> bool:
        """Strike notifications off, or dead letters that nobody wants any more."""
        return await self._write(Delta(struck=numbers))

    async def failed(self, number: int, outcome: Outcome, attempts: int) -> bool:
        """Note that so many attempts have failed."""
        return await self._write(Delta(tried=(Tried(number, attempts, outcome),)))

    async def bury(self, number: int, outcome: Outcome, attempts: int = 0, at: float | None = None) -> int:
        """Make a pending notification a dead letter; how many older ones had to make room for it.

        `at` in unix seconds, now where it is not given.
        """
        notification = self._kept.pending.get(number)
        if notification is None:
            return 0
        letter = DeadLetter(notification, outcome, attempts, time.time() if at is None else at)
        with self._lock:
            self._kept.apply(Delta(buried=(letter,)))
            dropped = tuple(self._kept.too_many_dead())
        await self._write(Delta(buried=(letter,), struck=dropped))
        return len(dropped)

    async def revive(self, number: int) -> Notification | None:
        """Make a dead letter pending again; None where there is none of this number."""
        letter = self._kept.dead.get(number)
        if letter is None:
            return None
        await self._write(Delta(revived=(number,)))
        return letter.notification

    async def close(self) -> None:
        """Write what is not written yet, as far as the disk takes it within some seconds, and let the file go."""
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)

    async def _write(self, delta: Delta) -> bool:
        with self._lock:
            self._kept.apply(delta)
        writer = self._writer
        if writer is None:
            return True
        if self._stuck:
            self._slow += 1
            writer.miss()
            return False
        future = writer.put(delta)
        await asyncio.wait((future,), timeout=COMMIT_SECONDS)
        if future.done():
            return future.result()
        if not self._stuck:
            self._stuck = True
            log.warning("outbox_slow", seconds=COMMIT_SECONDS, advice="notifications are sent from memory")
            future.add_done_callback(self._unstuck)
        self._slow += 1
        return False

    def _unstuck(self, future: asyncio.Future[bool]) -> None:
        self._stuck = False
        log.info("outbox_answers_again")

    def _whole(self) -> Kept:
        with self._lock:
            return self._kept.copy()
