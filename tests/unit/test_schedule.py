"""Periodic work."""

from __future__ import annotations

import asyncio
import statistics
import time
from datetime import UTC, datetime, timedelta

import pytest

from exporter.schedule import Schedule, _Grid


async def test_a_job_that_raises_ends_the_schedule_with_its_error():
    schedule = Schedule()

    async def broken() -> None:
        raise RuntimeError("boom")

    schedule.every(60, broken, name="broken")
    with pytest.raises(RuntimeError, match="boom"):
        async with asyncio.timeout(10):
            await schedule.run()


async def test_a_job_that_is_still_running_is_not_started_again():
    schedule = Schedule()
    running = most = runs = 0

    async def slow() -> None:
        nonlocal running, most, runs
        running, runs = running + 1, runs + 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1

    schedule.every(0.01, slow, name="slow")
    task = asyncio.create_task(schedule.run())
    async with asyncio.timeout(10):
        while runs < 3:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert most == 1


async def test_a_job_keeps_to_the_grid_of_its_interval_though_it_was_first_done_at_once():
    """So that jobs, scrapes and all else that is done each second wake the event loop once for all."""
    schedule = Schedule()
    done: list[float] = []
    schedule.every(0.2, lambda: done.append(time.monotonic()), name="note")
    task = asyncio.create_task(schedule.run())
    async with asyncio.timeout(20):
        while len(done) < 6:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    after_tick = [moment % 0.2 for moment in done[1:]]
    assert statistics.median(after_tick) < 0.05


@pytest.mark.parametrize("set_back", [-3600.0, 5.0, 3600.0])
def test_ticks_go_on_on_their_grid_whatever_the_clock_is_set_to(set_back: float):
    """The grid's beginning is a time of the clock as it was: set back, it lies ahead, and nobody is to wait for it."""
    begin = datetime(2026, 11, 21, 12, tzinfo=UTC)
    grid = _Grid(seconds=5, start_date=begin, timezone=UTC)
    now = begin + timedelta(seconds=1000 - set_back)
    first = grid.get_next_fire_time(None, now)
    assert first is not None
    assert now <= first < now + timedelta(seconds=5)
    assert ((first - begin) % timedelta(seconds=5)).total_seconds() == 0
    assert grid.get_next_fire_time(first, first) == first + timedelta(seconds=5)


async def test_jobs_go_on_when_the_wall_clock_is_set_back_by_an_hour(monkeypatch: pytest.MonkeyPatch):
    """APScheduler plans by the wall clock; without help it would wait for the hour to pass again."""
    schedule = Schedule()
    runs = 0

    def count() -> None:
        nonlocal runs
        runs += 1

    schedule.every(3600, count, name="count")
    task = asyncio.create_task(schedule.run())
    async with asyncio.timeout(20):
        while runs < 1:
            await asyncio.sleep(0.01)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 3600)
        schedule.follow_clock()
        while runs < 2:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
