"""Engines of an earlier daemon that the settings name no more: nobody would look after them, so they are ended.

An engine that was kept (`on_exit: keep`) and is left out of `[[engines]]` since holds its GPUs, and so does the only engine
of a daemon that has several by now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp
import structlog

from exporter.engine import adoption, leftover
from exporter.engine.ending import end_or_kill
from exporter.engine.events import Inbox
from exporter.engine.process.stopping import stop_tree
from exporter.settings import EngineSettings

log = structlog.get_logger(__name__)


class Strays:
    """Ends what the records in these folders stand for; `settings` say how patiently."""

    def __init__(
        self, folders: Sequence[Path], settings: EngineSettings, http: Callable[[], aiohttp.ClientSession]
    ) -> None:
        self._settings = settings
        self._http = http
        self._inboxes = {folder: Inbox() for folder in folders}

    def stop(self) -> None:
        """The daemon is to stop: nobody is waited for any longer."""
        for inbox in self._inboxes.values():
            inbox.ask_stop()

    async def end(self) -> None:
        """Drain and stop all of them, at once; returns when nothing is left of any."""
        async with asyncio.TaskGroup() as tasks:
            for folder, inbox in self._inboxes.items():
                tasks.create_task(self._end(folder, inbox), name=f"stray engine {folder.name}")

    async def _end(self, folder: Path, inbox: Inbox) -> None:
        record = adoption.load(folder)
        if record is None:
            return
        found = await asyncio.to_thread(adoption.examine, record, ())
        if found is not adoption.Found.GONE:
            log.warning(
                "engine_of_earlier_run_stopped", pid=record.pid, found="not_configured", url=record.base_url
            )
            settings = self._settings
            if found is adoption.Found.OTHER_COMMAND:
                await leftover.drain(
                    record.base_url,
                    self._http,
                    inbox,
                    patience=settings.drain_timeout,
                    answer_within=settings.health_timeout,
                    tls_verify=settings.tls_verify,
                )
                if inbox.stops and settings.on_exit == "keep":
                    return
            await end_or_kill(
                inbox,
                lambda patience: stop_tree(adoption.remains(record), kill_timeout=patience),
                settings.kill_timeout,
            )
        adoption.forget(folder)
