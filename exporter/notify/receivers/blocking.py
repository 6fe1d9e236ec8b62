"""Calls of libraries that block, beside the event loop: each in a thread of its own, and only so many at once.

Threads are daemons: one that hangs in a library that has no limit of its own must not keep the program from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from exporter.notify.model import Outcome

T = TypeVar("T")

THREADS = 8
"""Most calls of one endpoint at once, those included that nobody waits for any more."""

SPARE_SECONDS = 1.0
"""So much later than we ourselves whoever enforces our limit from outside may give an attempt up."""


class BusyError(Exception):
    """Every thread of the endpoint still hangs in an earlier call."""


class Threads:
    """The threads of one endpoint."""

    def __init__(self, name: str, most: int = THREADS) -> None:
        self._name = name
        self._free = threading.BoundedSemaphore(most)

    async def call(self, work: Callable[[], T], within: float) -> T:
        """What the call returns or raises.

        Raises:
            TimeoutError: it did not return `within` so many seconds; it goes on, and what becomes of it is not heard of.
            BusyError: no thread is free.
        """
        if not self._free.acquire(blocking=False):
            raise BusyError
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(result: T | None, error: Exception | None) -> None:
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result: T | None = None
            failure: Exception | None = None
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - handed to whoever waits
                failure = error
            finally:
                self._free.release()
            if not loop.is_closed():
                with contextlib.suppress(RuntimeError):  # closed in between
                    loop.call_soon_threadsafe(settle, result, failure)

        threading.Thread(target=run, name=self._name, daemon=True).start()
        async with asyncio.timeout(within):
            return await done

    async def attempt(
        self,
        work: Callable[[], Outcome],
        within: float,
        who: str,
        *,
        at_least: Callable[[], Outcome | None] = lambda: None,
    ) -> Outcome:
        """What an attempt at `who` came to.

        Where it takes longer than `within` seconds, what it came to `at_least`: it may arrive all the same.
        """
        try:
            return await self.call(work, within)
        except TimeoutError:
            return at_least() or Outcome("retry", f"{who} gave no answer within {within:g} s")
        except BusyError:
            return Outcome("retry", f"earlier attempts at {who} still hang")
