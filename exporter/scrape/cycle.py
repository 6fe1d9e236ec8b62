"""One cycle: fetch the engine's page, read it, derive the indicators, show both at once; or show that there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import aiohttp
import structlog
from yarl import URL

from exporter.errors import ExpositionError, ScrapeError
from exporter.exposition.block import Block
from exporter.exposition.layout import PageReader, Row
from exporter.exposition.page import PassThroughBlock
from exporter.scrape import metrics
from exporter.scrape.client import fetch_page
from exporter.scrape.connection import Connection
from exporter.settings import ScrapeSettings
from exporter.sli.families import SUMMARY

log = structlog.get_logger(__name__)

RESERVED_PREFIXES = (
    "vllm_exporter_",
    "vllm_slo_",
    "nvidia_gpu_",
    *(family.name for family in SUMMARY.values()),
)
"""Names that are ours: a source that shows them (another exporter, say) would make our page ambiguous."""


class Consumer(Protocol):
    """Who takes in the rows: the service level indicators."""

    def apply(self, row: Row, *, now: float, epoch: str, serving: bool) -> None:
        """A good page landed; `serving` false: of an engine that hangs."""

    def missed(self, *, now: float, down: bool, intervals: int = 1) -> None:
        """No page for so many scrape intervals; `down`: the engine should serve and does not."""


class Target(Protocol):
    """Where the page comes from, as far as a cycle must know."""

    @property
    def metrics_url(self) -> URL:
        """Address of the metrics page."""

    @property
    def headers(self) -> dict[str, str]:
        """Request headers, with the API key where there is one."""

    @property
    def epoch(self) -> str:
        """The engine's incarnation."""

    @property
    def scrapable(self) -> bool:
        """Whether the engine may answer at all now."""

    @property
    def serving(self) -> bool:
        """Whether the engine serves, as far as is known."""

    @property
    def down(self) -> bool:
        """Whether the engine should serve and does not; one scrape that failed does not mean that."""


class Scraper:
    """Keeps the pass-through block and the indicators at the engine's last page, and never older.

    Between the bytes' arrival and the end of `take` nothing is awaited: a reader of `/metrics` sees all of a page or
    nothing of it. Each cycle ends with `landed`: the row and its time, or None when there was no page.
    """

    def __init__(
        self,
        settings: ScrapeSettings,
        target: Target,
        session: aiohttp.ClientSession,
        block: Block,
        passthrough: PassThroughBlock,
        consumer: Consumer,
        *,
        tls_verify: bool = True,
        after: Callable[[bool, float], None] = lambda good, now: None,
        landed: Callable[[Row | None, float], None] = lambda row, now: None,
    ) -> None:
        self._settings = settings
        self._target = target
        self._session = session
        self._url = URL()
        self._connection: Connection | None = None
        self._passthrough = passthrough
        self._consumer = consumer
        self._tls_verify = tls_verify
        self._after = after
        self._landed = landed
        self._reader = PageReader(
            sample_limit=settings.sample_limit,
            label_limit=settings.label_limit,
            reserved_prefixes=RESERVED_PREFIXES,
        )
        self._scrapes = block.counter(metrics.SCRAPES)
        self._errors = {reason: block.counter(metrics.ERRORS, reason) for reason in metrics.REASONS}
        self._success = block.gauge(metrics.SUCCESS)
        self._duration = block.histogram(metrics.DURATION, metrics.DURATION_BOUNDS)
        self._samples = block.gauge(metrics.SAMPLES)
        self._body = block.gauge(metrics.BODY)
        self._last_success = block.gauge(metrics.LAST_SUCCESS)
        self._duplicates = block.counter(metrics.DROPPED, "duplicate")
        self._reserved = block.counter(metrics.DROPPED, "reserved_name")
        for counter in (self._scrapes, self._duplicates, self._reserved, *self._errors.values()):
            counter.set(0)
        self._last_error: str | None = None
        self._showing = False

    async def scrape(self) -> None:
        """One cycle; a failed scrape is data, not an exception."""
        if not self._target.scrapable:
            self._show_nothing(time.time())
            return
        began = time.monotonic()
        self._scrapes.inc()
        epoch = self._target.epoch
        if self._target.metrics_url is not self._url:
            self._turn_to(self._target.metrics_url)
        try:
            page = await fetch_page(
                self._session,
                self._url,
                timeout_seconds=self._settings.timeout,
                body_limit=self._settings.body_limit,
                headers=self._target.headers,
                tls_verify=self._tls_verify,
                connection=self._connection,
            )
            now = time.time()
            if epoch != self._target.epoch or not self._target.scrapable:
                # The engine that answered is gone: its page must not stand for its successor.
                self._show_nothing(now)
                return
            self.take(page.body, openmetrics=page.openmetrics, now=now)
        except (ScrapeError, ExpositionError) as error:
            self._failed(error, time.time(), waited=time.monotonic() - began)
        self._duration.observe(time.monotonic() - began)

    def _turn_to(self, url: URL) -> None:
        """The page is there now: one connection is kept to it, where it comes by plain HTTP."""
        self.close()
        self._url = url
        self._connection = Connection(url, self._target.headers) if url.scheme == "http" else None

    def close(self) -> None:
        """Give the connection to the engine back."""
        if self._connection is not None:
            self._connection.close()

    def engine_changed(self, _status: object) -> None:
        """Call this when the engine's state changed: a dead engine's page goes at once, not with the next scrape."""
        if self._showing and not self._target.scrapable:
            self._passthrough.show(None)
            self._clear()
            self._consumer.missed(now=time.time(), down=False)

    def take(self, body: bytes, *, openmetrics: bool, now: float) -> None:
        """Take a page in; raises ExpositionError when it is not valid, and then nothing of it shows."""
        row = self._reader.read(body, openmetrics=openmetrics)
        self._passthrough.show(self._reader.passthrough())
        self._consumer.apply(row, now=now, epoch=self._target.epoch, serving=self._target.serving)
        self._samples.set(len(row.values))
        self._body.set(len(body))
        self._last_success.set(round(now, 3))
        self._success.set(1)
        self._showing = True
        if self._reader.duplicates:
            self._duplicates.inc(self._reader.duplicates)
        if self._reader.reserved:
            self._reserved.inc(self._reader.reserved)
        if self._last_error is not None:
            log.info("scrape_recovered", target=str(self._target.metrics_url), samples=len(row.values))
            self._last_error = None
        self._after(True, now)
        self._landed(row, now)

    def _failed(self, error: ScrapeError | ExpositionError, now: float, *, waited: float) -> None:
        self._errors[error.reason].inc()
        if self._last_error != error.reason:
            log.warning(
                "scrape_failed", target=str(self._target.metrics_url), reason=error.reason, error=str(error)
            )
            self._last_error = error.reason
        self._success.set(0)
        self._show_nothing(now, waited)
        self._after(False, now)

    def _show_nothing(self, now: float, waited: float = 0.0) -> None:
        """No page; a scrape that `waited` long for none stands for all the intervals that it took."""
        self._passthrough.show(None)
        self._clear()
        intervals = max(1, round(waited / self._settings.interval))
        self._consumer.missed(now=now, down=self._target.down, intervals=intervals)
        self._landed(None, now)

    def _clear(self) -> None:
        for slot in (self._samples, self._body):
            slot.set(None)
        if not self._target.scrapable:
            self._success.set(None)
        self._showing = False
