"""Calls that may hang, beside everything else.

asyncio's own threads are waited for when the process ends; one that stands in a dead file system would never let it end.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Aside(Generic[T]):
    """One call in a daemon thread of its own, begun at once; await `result`, which may be given up."""

    def __init__(self, call: Callable[[], T], *, name: str) -> None:
        loop = asyncio.get_running_loop()
        self.result: asyncio.Future[T] = loop.create_future()
        self.at_work = True
        """Whether the call goes on, awaited or not."""

        def settle(value: T | None, error: BaseException | None) -> None:
            if self.result.done():
                return
            if error is not None:
                self.result.set_exception(error)
            else:
                self.result.set_result(value)  # type: ignore[arg-type]

        def work() -> None:
            value: T | None = None
            failed: BaseException | None = None
            try:
                value = call()
            except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
                failed = error
            self.at_work = False
            with suppress(RuntimeError):  # the loop is closed: nobody asks any more
                loop.call_soon_threadsafe(settle, value, failed)

        threading.Thread(target=work, name=name, daemon=True).start()
