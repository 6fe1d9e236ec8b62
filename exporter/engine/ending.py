"""Ends an engine's processes, patiently; at once when a stop is asked for meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from exporter.engine.events import Inbox
from exporter.engine.process.stopping import StopReport

log = structlog.get_logger(__name__)

End = Callable[[float], Coroutine[Any, Any, StopReport]]
"""Stops what there is to stop; the argument is the seconds from SIGTERM to SIGKILL."""


async def end_or_kill(inbox: Inbox, end: End, kill_timeout: float) -> StopReport:
    """Run `end` with `kill_timeout`; a stop that is asked for from now on means SIGKILL at once.

    Call it from the inbox's one reader: events that come meanwhile are about processes that are to go anyway.
    """
    async with asyncio.TaskGroup() as tasks:
        ending = tasks.create_task(end(kill_timeout), name="engine end")
        asked = tasks.create_task(_stop_asked(inbox, inbox.stops), name="engine end in a hurry")
        await asyncio.wait({ending, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if ending.done():
            return ending.result()
        ending.cancel()
        log.info("engine_kill_asked")
        return await end(0.0)


async def _stop_asked(inbox: Inbox, already: int) -> None:
    while inbox.stops == already:
        await inbox.next()
