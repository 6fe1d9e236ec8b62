"""Periodic work."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest

from exporter.schedule import Schedule


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
