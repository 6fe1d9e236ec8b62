"""The thread that writes the outbox's file: changes that come together go down in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time

from exporter.notify.outbox.kept import Delta
from exporter.notify.outbox.link import Link

RETRY_SECONDS = 5.0
"""Between two tries to write a file that cannot be written."""
TIDY_SECONDS = 60.0
"""After so long without a change the file is tidied."""
CLOSE_SECONDS = 5.0
"""Longest wait for the last write at the end."""
BATCH = 256
"""Most changes in one transaction."""

_Job = tuple[Delta, asyncio.Future[bool]]


class Writer:
    """One file's thread; it begins with the first change."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # Not waited for at the end of the process: a disk that hangs must not keep it alive.
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._missed = False
        self._retry_at = 0.0

    def put(self, delta: Delta) -> asyncio.Future[bool]:
        """Have a delta written; the future says whether it was."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._jobs.put((delta, future))
        if self._thread.ident is None:
            self._thread.start()
        return future

    def miss(self) -> None:
        """Something is kept that is put to nobody: the file is to be written whole, once it can be."""
        self._missed = True

    def close(self) -> None:
        """Let the thread finish and the file go; blocks, but not for long."""
        if self._thread.ident is None:
            self.link.close()
            return
        self._jobs.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        tidy = True
        while True:
            jobs, closing = self._take(TIDY_SECONDS)
            if self._missed:
                self._missed = False
                self.link.behind = True
            if jobs or (self.link.behind and not closing):
                self._write(jobs)
                tidy = False
            elif not closing and not tidy:
                self.link.tidy()
                tidy = True
            if closing:
                if self.link.behind:
                    self.link.write(())
                self.link.tidy()
                self.link.close()
                return

    def _take(self, idle: float) -> tuple[list[_Job], bool]:
        """What is to be done now, and whether it is the last."""
        jobs: list[_Job] = []
        with contextlib.suppress(queue.Empty):
            while len(jobs) < BATCH:
                wait = 0.0 if jobs or self._missed else RETRY_SECONDS if self.link.behind else idle
                job = self._jobs.get(wait > 0, wait)
                if job is None:
                    return jobs, True
                jobs.append(job)
        return jobs, False

    def _write(self, jobs: list[_Job]) -> None:
        written = False
        if not self.link.behind or time.monotonic() >= self._retry_at:
            written = self.link.write([delta for delta, _ in jobs])
            if not written:
                self._retry_at = time.monotonic() + RETRY_SECONDS
        for loop in {future.get_loop() for _, future in jobs}:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
                loop.call_soon_threadsafe(_answer, [future for _, future in jobs], written)


def _answer(futures: list[asyncio.Future[bool]], written: bool) -> None:
    for future in futures:
        if not future.done():
            future.set_result(written)
