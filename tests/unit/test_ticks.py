"""The grid of what need not be done at a time of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

from exporter.ticks import Ticker, next_tick


@pytest.mark.parametrize(
    ("now", "interval", "expected"),
    [(0.0, 0.5, 0.5), (0.49, 0.5, 0.5), (0.5, 0.5, 1.0), (1234.2, 1.0, 1235.0), (1234.2, 0.25, 1234.25)],
)
def test_a_tick_is_the_next_multiple_of_the_interval(now: float, interval: float, expected: float) -> None:
    assert next_tick(now, interval) == expected


def test_ticks_of_intervals_that_divide_each_other_fall_together() -> None:
    assert next_tick(77.3, 1.0) in {next_tick(77.3, 0.5), next_tick(77.5, 0.5)}


async def test_work_that_outlasts_its_interval_is_not_done_twice_at_once() -> None:
    at_work = most = runs = 0

    async def slow() -> None:
        nonlocal at_work, most, runs
        at_work, runs = at_work + 1, runs + 1
        most = max(most, at_work)
        await asyncio.sleep(0.03)
        at_work -= 1

    await until(Ticker(0.01, slow), lambda: runs >= 3)
    assert most == 1


async def test_who_is_hurried_does_not_wait_for_the_tick_of_before() -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1

    ticker = Ticker(3600, work)
    began = time.monotonic()
    await until(ticker, lambda: runs >= 1)
    assert runs == 1
    asyncio.get_running_loop().call_later(0.05, ticker.hurry, 0.01)
    await until(ticker, lambda: runs >= 4)
    assert time.monotonic() - began < 60


async def test_what_the_work_raises_ends_the_ticker() -> None:
    async def broken() -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await Ticker(3600, broken).run()


async def until(ticker: Ticker, condition: Callable[[], bool]) -> None:
    task = asyncio.create_task(ticker.run())
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
