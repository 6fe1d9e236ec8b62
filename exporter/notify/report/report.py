"""The report as an alert of its own, made at its time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from exporter.notify.model import Alert
from exporter.notify.report.figures import Figures
from exporter.notify.report.plan import Plan, judge
from exporter.notify.report.text import words
from exporter.promql.model import Budget
from exporter.storage.model import Storage

log = structlog.get_logger(__name__)

NAME = "VLLMSLOReport"
"""Its `alertname`."""
SAMPLES = 50_000_000
TIMEOUT_SECONDS = 60.0
"""What the queries of one report may cost."""
LATE_SECONDS = 12 * 3600.0
"""A report that could not be made at its time, because the daemon was off, is made up for until then."""
LOOK_SECONDS = 30.0
"""Time between two looks at the clock, which may be set, and stands still while a machine is suspended."""


class Report:
    """Makes a daily or weekly report. `labels` are added to those of its alert (the rules' external labels)."""

    def __init__(
        self,
        storage: Storage,
        plan: Plan,
        *,
        labels: Mapping[str, str] | None = None,
        external_url: str = "",
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._plan = plan
        self._labels = dict(labels or {})
        self._external_url = external_url
        self._clock = clock
        self._sleep = sleep
        self._last: float | None = None

    async def compose(self, now: float) -> Alert:
        """The report on the day or week that ends at `now`; QueryError when its queries cost too much."""
        start = self._plan.start(now)
        figures = await asyncio.to_thread(self._read, start, now)
        said = words(figures, self._plan.every, self._plan.local)
        labels = {**self._labels, "alertname": NAME, "period": self._plan.every, "severity": "info"}
        annotations = {"description": said.description, "summary": said.summary}
        return Alert(
            labels=tuple(sorted((name, value) for name, value in labels.items() if value)),
            annotations=tuple(sorted(annotations.items())),
            starts_at=now,
            updated_at=now,
            generator_url=self._external_url,
        )

    async def run(self, send: Callable[[Alert], Awaitable[None] | None]) -> None:
        """Make each report when it is due and give it to `send`, until cancelled. One that fails is logged and left out."""
        while True:
            due, self._last = judge(self._plan, self._last, self._clock(), LATE_SECONDS)
            if due is not None:
                await self._make(due, send)
            now = self._clock()
            await self._sleep(min(LOOK_SECONDS, max(0.0, self._plan.following(now) - now)))

    def state(self) -> dict[str, float]:
        """What the next daemon has to know in order to make no report twice and none too few. JSON-able."""
        return {} if self._last is None else {"last": self._last}

    def restore(self, saved: Mapping[str, object]) -> None:
        """Go on from a saved state; before `run`. What is no time is left out."""
        last = saved.get("last")
        self._last = float(last) if isinstance(last, (int, float)) and math.isfinite(last) else None

    async def _make(self, due: float, send: Callable[[Alert], Awaitable[None] | None]) -> None:
        try:
            alert = await self.compose(due)
            sent = send(alert)
            if sent is not None:
                await sent
        except Exception as error:
            log.exception("report_failed", error=f"{type(error).__name__}: {error}")
        else:
            log.info("report_made", period=self._plan.every)

    def _read(self, start: float, end: float) -> Figures:
        from exporter.notify.report.reading import read  # numpy is not needed to start

        return read(self._storage, start, end, Budget(samples=SAMPLES, timeout=TIMEOUT_SECONDS))
