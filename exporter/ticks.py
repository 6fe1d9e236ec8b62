"""When to wake up for what is done again and again, and needs no time of its own: on one grid, so that the event loop
wakes once for all of it. Each time costs more than most of the work that is done then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


def next_tick(now: float, interval: float) -> float:
    """The first multiple of `interval` after `now`, seconds of a monotonic clock."""
    return (now // interval + 1) * interval


class Ticker:
    """Does `work` at once and then at each tick of `interval` seconds; ticks that pass while it is at work are left out."""

    def __init__(self, interval: float, work: Callable[[], Awaitable[None]]) -> None:
        self._interval = interval
        self._work = work
        self._asleep: asyncio.Future[None] | None = None

    def hurry(self, interval: float) -> None:
        """From now on at this interval, beginning now."""
        self._interval = interval
        if self._asleep is not None and not self._asleep.done():
            self._asleep.set_result(None)

    async def run(self) -> None:
        """Work until cancelled; raises what `work` raises."""
        loop = asyncio.get_running_loop()
        while True:
            await self._work()
            self._asleep = loop.create_future()
            now = time.monotonic()
            timer = loop.call_later(next_tick(now, self._interval) - now, _wake, self._asleep)
            try:
                await self._asleep
            finally:
                timer.cancel()


def _wake(sleeper: asyncio.Future[None]) -> None:
    if not sleeper.done():
        sleeper.set_result(None)
