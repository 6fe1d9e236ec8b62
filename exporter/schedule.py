"""Periodic work on APScheduler, with a job's failure made the daemon's, and clock steps survived."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from math import ceil

import structlog
from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from exporter.ticks import next_tick

log = structlog.get_logger(__name__)

CLOCK_STEP_SECONDS = 2.0
"""Difference between wall clock and monotonic clock that is a step, not slewing."""


class _Scheduler(AsyncIOScheduler):  # type: ignore[misc]
    """Used in the event loop alone: its timer need not wake the loop a second time, as it does for other threads' sake."""

    def wakeup(self) -> None:
        AsyncIOScheduler.wakeup.__wrapped__(self)


class _Grid(IntervalTrigger):  # type: ignore[misc]
    """The ticks around `start_date`, whenever the job was done last: APScheduler's own goes on from there, off the grid, and
    none comes before `start_date`, which may lie an hour ahead once the clock was set back.
    """

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        if previous_fire_time is not None:
            now = max(now, previous_fire_time + timedelta(microseconds=1))
        following: datetime = self.start_date + ceil((now - self.start_date) / self.interval) * self.interval
        return following


class Schedule:
    """What the daemon does again and again.

    A job that is still running when its time comes again is skipped, and missed times are made up for once, not one by
    one. A job that raises ends `run` with its exception: a loop that died must not die quietly.
    """

    def __init__(self) -> None:
        # A skipped run is normal while an engine does not answer; the scrape's own metrics tell of it.
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
        self._scheduler = _Scheduler(
            timezone=UTC, job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
        )
        self._scheduler.add_listener(self._job_failed, EVENT_JOB_ERROR)
        self._failed: asyncio.Future[None] | None = None
        self._offset = _clock_offset()

    def every(self, seconds: float, work: Callable[[], Awaitable[None] | None], *, name: str) -> None:
        """Do `work` now, and then on the grid of `seconds`; in place of the job that had this name."""
        now, monotonic = _now(), time.monotonic()
        grid = now + timedelta(seconds=next_tick(monotonic, seconds) - monotonic)
        trigger = _Grid(seconds=seconds, start_date=grid, timezone=UTC)
        self._scheduler.add_job(work, trigger, id=name, name=name, next_run_time=now, replace_existing=True)

    async def run(self) -> None:
        """Run the jobs until cancelled; raises what a job raised."""
        self._failed = asyncio.get_running_loop().create_future()
        self._scheduler.start()
        try:
            await self._failed
        finally:
            self._scheduler.shutdown(wait=False)
            self._failed.cancel()

    def follow_clock(self) -> None:
        """Move the jobs along when the wall clock was set: APScheduler's next run may lie hours ahead. Call it often."""
        offset = _clock_offset()
        if abs(offset - self._offset) > CLOCK_STEP_SECONDS:
            log.warning("clock_stepped", seconds=round(offset - self._offset, 3))
            self._offset = offset
            for job in self._scheduler.get_jobs():
                job.modify(next_run_time=_now())

    def _job_failed(self, event: JobExecutionEvent) -> None:
        if self._failed is not None and not self._failed.done():
            log.error("job_failed", job=event.job_id, error=repr(event.exception))
            self._failed.set_exception(event.exception)


def _clock_offset() -> float:
    return time.time() - time.monotonic()


def _now() -> datetime:
    return datetime.now(UTC)
