"""The rule threads: one does what is due, and where a job keeps it busy others do the rest.

They are daemon threads. A job that never ends keeps its thread, but neither other jobs nor the process from ending.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

J = TypeVar("J")
R = TypeVar("R")

LIMIT = 4
"""Most threads; one of them takes no job that is known to be slow."""


@dataclass(slots=True, eq=False)
class _Seat(Generic[J]):
    """A job at work; `began` in monotonic seconds."""

    job: J
    slow: bool
    began: float


class Done(NamedTuple, Generic[J, R]):
    """A job and what came of it: a result, or what it ran into."""

    job: J
    result: R | None
    error: BaseException | None


class Workers(Generic[J, R]):
    """Jobs for threads: prompt ones in order, one after another; slow ones beside them. Event loop only, but `close`.

    `do` is called in a thread; `changed` on the event loop, when the last prompt job is done, and after each slow one.
    """

    def __init__(self, do: Callable[[J], R], changed: Callable[[], None], *, limit: int = LIMIT) -> None:
        self._do = do
        self._changed = changed
        self._limit = limit
        self._lock = threading.Lock()
        self._prompt: deque[J] = deque()
        self._slow: deque[J] = deque()
        self._seats: list[_Seat[J]] = []
        self._done: deque[Done[J, R]] = deque()
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._active = 0
        """Threads that are called and have not gone idle."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, prompt: Iterable[J], slow: Iterable[J]) -> None:
        """Begin with these jobs: all the prompt ones in one thread, each of the slow ones in one of its own."""
        self._loop = asyncio.get_running_loop()
        with self._lock:
            self._prompt.extend(prompt)
            self._slow.extend(slow)
            for _ in range(bool(self._prompt) + len(self._slow)):
                self._call()

    def set_aside(self, seconds: float) -> list[J]:
        """The prompt jobs that have been at work for so long count as slow from now on, and another thread takes the rest."""
        with self._lock:
            before = time.monotonic() - seconds
            late = [seat for seat in self._seats if not seat.slow and seat.began <= before]
            for seat in late:
                seat.slow = True
            if late and self._prompt:
                self._call()
            return [seat.job for seat in late]

    def waiting(self) -> list[J]:
        """The prompt jobs that nobody has begun."""
        with self._lock:
            return list(self._prompt)

    def prompt_at_work(self) -> bool:
        """Whether a prompt job will soon be done: a thread is at one."""
        with self._lock:
            return any(not seat.slow for seat in self._seats) or (
                bool(self._prompt) and self._active > len(self._seats)
            )

    def unfinished(self) -> list[J]:
        """Every job that is not done."""
        with self._lock:
            return [*(seat.job for seat in self._seats), *self._prompt, *self._slow]

    def collect(self) -> list[Done[J, R]]:
        """What was done since the last time, in that order."""
        done = self._done
        return [done.popleft() for _ in range(len(done))]

    def close(self, seconds: float) -> bool:
        """End the threads; False when one is still at work after so many seconds. What waits is not begun."""
        with self._lock:
            self._prompt.clear()
            self._slow.clear()
        for _ in self._threads:
            self._calls.put(False)
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    # --- under the lock

    def _call(self) -> None:
        if self._active == self._limit:
            return
        self._active += 1
        if len(self._threads) < self._active:
            name = f"rules-{len(self._threads) + 1}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        self._calls.put(True)

    def _take(self) -> _Seat[J] | None:
        slow = sum(seat.slow for seat in self._seats)
        if self._prompt:
            seat = _Seat(self._prompt.popleft(), False, time.monotonic())
        elif self._slow and slow < self._limit - 1:
            seat = _Seat(self._slow.popleft(), True, time.monotonic())
        else:
            self._active -= 1
            return None
        self._seats.append(seat)
        return seat

    # --- in the threads

    def _work(self) -> None:
        while self._calls.get():
            with self._lock:
                seat = self._take()
            while seat is not None:
                seat = self._seated(seat)

    def _seated(self, seat: _Seat[J]) -> _Seat[J] | None:
        """Do a job; gives the next one."""
        result: R | None = None
        failed: BaseException | None = None
        try:
            result = self._do(seat.job)
        except BaseException as error:  # noqa: BLE001 - it is raised where the results are collected
            failed = error
        with self._lock:
            self._done.append(Done(seat.job, result, failed))
            self._seats.remove(seat)
            last = not self._prompt and all(other.slow for other in self._seats)
            following = self._take()
        if seat.slow or last:
            assert self._loop is not None
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._changed)
        return following
