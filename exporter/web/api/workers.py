"""Where queries are evaluated: a few threads, a queue before them, and a budget that also ends when the client goes away."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from exporter.promql.model import Budget, QueryError
from exporter.web.api.model import ApiError

QUEUE_LIMIT = 64
"""Requests that wait for a thread; one more is told to come again."""
OVERTIME_SECONDS = 1.0
"""How long after its time a request still waits for its thread, which looks at the clock only now and then."""

T = TypeVar("T")


class Abandoned(Exception):  # noqa: N818
    """The client of an evaluation went away."""


class RequestBudget(Budget):
    """The budget of one request; `abandon` ends the evaluation at the next look."""

    __slots__ = ("_abandoned",)

    def __init__(self, *, samples: int, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(samples=samples, timeout=timeout, clock=clock)
        self._abandoned = False

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self._abandoned = True

    def spend(self, samples: int) -> None:
        """As `Budget.spend`; Abandoned when nobody waits."""
        if self._abandoned:
            raise Abandoned
        super().spend(samples)


class Workers:
    """Threads that look things up, as many at a time as there are places; event loop only, but for what they run."""

    def __init__(self, places: int, *, name: str, queue_limit: int = QUEUE_LIMIT) -> None:
        self._threads = concurrent.futures.ThreadPoolExecutor(places, thread_name_prefix=name)
        self._places = asyncio.Semaphore(places)
        self._queue_limit = queue_limit
        self.running = 0
        """Threads at work, those too whose client has gone."""
        self.waiting = 0
        """Requests in the queue."""

    async def run(self, work: Callable[[RequestBudget], T], *, samples: int, within: float) -> T:
        """What `work` gives, in a thread, `within` so many seconds, the time in the queue included.

        Raises:
            ApiError: `unavailable` when the queue is full, `timeout` when the time is over.
            Exception: what `work` raises.
        """
        began = time.monotonic()
        await self._enter(within)
        left = within - (time.monotonic() - began)
        budget = RequestBudget(samples=samples, timeout=max(0.0, left))
        loop = asyncio.get_running_loop()
        self.running += 1
        try:
            future = self._threads.submit(work, budget)
        except RuntimeError as error:  # the daemon is about to end
            self._leave()
            raise ApiError("unavailable", "the daemon is stopping") from error
        future.add_done_callback(lambda _: _call(loop, self._leave))
        try:
            async with asyncio.timeout(max(0.0, left) + OVERTIME_SECONDS):
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise ApiError(
                "timeout", f"query timed out after {within:g} s in expression evaluation"
            ) from error
        except QueryError as error:
            raise ApiError(error.kind, str(error)) from error
        finally:
            budget.abandon()

    def close(self) -> None:
        """Start nothing more; what runs ends at its next look at the budget."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _enter(self, within: float) -> None:
        """Wait for a place."""
        if self._places.locked():
            if self.waiting >= self._queue_limit:
                raise ApiError(
                    "unavailable",
                    f"{self.waiting} queries wait already: try again later, or ask for less at once",
                )
            self.waiting += 1
            try:
                async with asyncio.timeout(within):
                    await self._places.acquire()
            except TimeoutError as error:
                raise ApiError("timeout", f"query timed out after {within:g} s in query queue") from error
            finally:
                self.waiting -= 1
        else:
            await self._places.acquire()

    def _leave(self) -> None:
        self.running -= 1
        self._places.release()


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Call back in the loop, if there still is one."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback)
