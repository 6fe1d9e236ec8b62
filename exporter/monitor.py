"""Samples into the store, rules over the store: what happens each time that a scrape lands."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import structlog

from exporter.alerting.evaluator import Evaluator, Reload
from exporter.exposition.block import Block
from exporter.exposition.layout import Row
from exporter.settings import Settings
from exporter.state import Keeper
from exporter.storage.archive import Archive
from exporter.storage.head import Head
from exporter.storage.ingest import OWN, Ingest
from exporter.storage.metrics import StorageMetrics
from exporter.storage.retention import Retention

log = structlog.get_logger(__name__)

HOUSEKEEPING_SECONDS = 15.0
"""Time between two looks for what is too old or too much, and at the figures that take long."""
COMPACT_SECONDS = 300.0
"""Time between two tidyings of the sample file."""
ROUND_SECONDS = 0.05
"""How long the engines that were scraped wait for the others, before what all show is stored and judged."""
CLOCK_STEP_MS = 1000
"""A clock that went back by more was set: what the store holds of the future never happened."""


class Monitor:
    """Owns the head, its file and the rules; event loop only, with one thread for the rules and one for the file.

    `blocks` are stored with each scrape, after `refresh` brought them up to date; it is told whether it is time for the
    costly figures, too. What the store and the rules tell of themselves goes into the block `daemon`. `keeper` saves the
    totals that the next daemon goes on from. `engines`: names of several engines, all scraped at the same interval.
    """

    def __init__(
        self,
        settings: Settings,
        blocks: Sequence[Block],
        *,
        daemon: Block,
        instance: str,
        external_url: str,
        reserved: tuple[str, ...],
        refresh: Callable[[bool], None],
        keeper: Keeper,
        engines: Sequence[str] = ("",),
    ) -> None:
        self._settings = settings
        self._blocks = blocks
        self._refresh = refresh
        self._keeper = keeper
        storage = settings.storage
        base = Retention(base_ms=round(storage.retention * 1000))
        self.head = Head(retention=base, memory_limit=storage.memory_limit)
        self._wake = asyncio.Event()
        self.evaluator = Evaluator(
            settings.rules,
            self.head,
            daemon,
            external_url=external_url,
            wake=self._wake.set,
            no_data_timeout=settings.notify.no_data_timeout,
        )
        self._metrics = StorageMetrics(daemon)
        self._archive: Archive | None = None
        self._file_thread = ThreadPoolExecutor(1, thread_name_prefix="samples")
        self._ingest = Ingest(
            self.head, job=settings.rules.job, instance=instance, reserved=reserved, engines=engines
        )
        self._waits_for = self._engines = frozenset(engines)
        self._round: asyncio.TimerHandle | None = None
        self._stored_at = float("-inf")
        self._landed_at: float | None = None
        self._changed: frozenset[str] = frozenset()
        self._last_ms = 0
        self._engine_states: dict[str, str] = {}
        self._housekept = float("-inf")
        self._compacted = time.monotonic()

    async def start(self, data_dir: Path) -> None:
        """Load the rules and the samples that the last daemon kept; ConfigError for rules that cannot be."""
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        await self.evaluator.load()
        self._follow_rules()
        if self._settings.storage.persist:
            self._archive = await loop.run_in_executor(self._file_thread, self._load, data_dir / "samples.db")
        stats = self.head.stats()
        log.info(
            "store_loaded",
            series=stats.series,
            samples=stats.samples,
            groups=len(self.evaluator.statuses()),
            seconds=round(time.monotonic() - began, 3),
        )

    def _load(self, path: Path) -> Archive:
        archive = Archive.open(path)
        for batch in archive.load(round(time.time() * 1000)):
            self.head.load(batch)
        self.head.stats()  # builds the series here, not in the event loop
        return archive

    def landed(self, row: Row | None, now: float, engine: str = "") -> None:
        """A scrape ended at `now`, in unix seconds, with a page or without: store the moment, wake the rules.

        Of several engines the first one waits a moment for the others; one that is late is stored with the next round.
        """
        t_ms = round(now * 1000)
        self._follow_clock(t_ms)
        self._ingest.page(row, t_ms, engine)
        self._waits_for -= {engine}
        if not self._waits_for:
            self._store(now)
        elif self._round is None and abs(now - self._stored_at) >= self._settings.scrape.interval / 2:
            loop = asyncio.get_running_loop()
            self._round = loop.call_later(ROUND_SECONDS, self._store_round, now + ROUND_SECONDS)

    def _store_round(self, now: float) -> None:
        """Some engine is late; `now`, unless something was stored later yet."""
        self._store(max(now, self._last_ms / 1000))

    def _store(self, now: float) -> None:
        """A round of scrapes is over: what all blocks show now is stored as of `now`, and the rules are woken."""
        if self._round is not None:
            self._round.cancel()
            self._round = None
        self._waits_for = self._engines
        self._stored_at = now
        t_ms = round(now * 1000)
        self._follow_clock(t_ms)
        costly = time.monotonic() - self._housekept >= HOUSEKEEPING_SECONDS
        self._refresh(costly)
        self._ingest.blocks(self._blocks, t_ms)
        if costly:
            self._housekept = time.monotonic()
            self.head.expire(t_ms)
        self._landed_at = now
        self._wake.set()

    def engine_is(self, state: str, engine: str = "") -> None:
        """An engine's state; when it is another one, the rules that read it need not wait for the next scrape."""
        if state == self._engine_states.get(engine):
            return
        self._engine_states[engine] = state
        now = time.time()
        t_ms = round(now * 1000)
        self._follow_clock(t_ms)
        self._ingest.blocks(self._blocks, t_ms)
        self._changed |= {OWN}
        self._wake.set()

    async def run(self) -> None:
        """Evaluate what is due until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.evaluator.late_in(time.time())):
                    await self._wake.wait()
            self._wake.clear()
            changed, self._changed = self._changed, frozenset()
            landed, self._landed_at = self._landed_at, None
            if changed:
                await self.evaluator.tick(time.time(), streams=changed)
            if landed is not None:
                await self.evaluator.tick(landed)
            elif not changed:
                await self.evaluator.tick(time.time(), landed=False)

    async def flush(self) -> None:
        """Bring the totals and the new samples to disk; now and then, tidy the file.

        The samples are taken before anything is waited for: what is on disk of them must not be ahead of the totals.
        """
        archive = self._archive
        self._keeper.save()
        # Handed over before anything is waited for: who is cancelled below loses no sample.
        writing = None if archive is None else self._file_thread.submit(archive.write, self.head.unsaved())
        await self._keeper.sync()
        if archive is None or writing is None:
            return
        await asyncio.shield(asyncio.wrap_future(writing))
        if time.monotonic() - self._compacted >= COMPACT_SECONDS:
            self._compacted = time.monotonic()
            now_ms = round(time.time() * 1000)
            await asyncio.get_running_loop().run_in_executor(self._file_thread, archive.compact, now_ms)

    async def reload(self) -> Reload:
        """Read the rule files again; a mistake changes nothing and is told."""
        reload = await self.evaluator.reload()
        if not reload.problems:
            self._follow_rules()
        return reload

    def publish(self) -> None:
        """Write the store's own series."""
        self._metrics.publish(self.head.stats(), self._archive.stats() if self._archive else None)

    async def stop(self) -> None:
        """End the threads, after the last samples are on disk."""
        if self._round is not None:
            self._round.cancel()
        await asyncio.to_thread(self.evaluator.close)
        await self.flush()
        if self._archive is not None:
            await asyncio.get_running_loop().run_in_executor(self._file_thread, self._archive.close)
        self._file_thread.shutdown()

    def _follow_rules(self) -> None:
        """Keep what the loaded rules read, and let nobody else write what they record."""
        storage = self._settings.storage
        self.head.set_retention(
            self.evaluator.retention(
                base_ms=round(storage.retention * 1000), recorded_ms=round(storage.recorded_retention * 1000)
            )
        )
        groups = self.evaluator.statuses()
        self._ingest.reserve(
            rule.name for group in groups for rule in group.rules if rule.kind == "recording"
        )

    def _follow_clock(self, t_ms: int) -> None:
        """A clock that was set back must not make the store deaf until it has caught up."""
        if t_ms < self._last_ms - CLOCK_STEP_MS:
            log.warning("samples_of_the_future_dropped", milliseconds=self._last_ms - t_ms)
            self.head.truncate_after(t_ms - 1)
            if self._archive is not None:
                self._file_thread.submit(self._archive.truncate_after, t_ms - 1)
        self._last_ms = t_ms
