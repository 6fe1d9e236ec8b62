"""The report on the service levels in the daemon: made when it is due, told, and remembered over restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import time
from pathlib import Path

import structlog

from exporter.notify.model import Alert
from exporter.notify.report.plan import Plan
from exporter.notify.report.report import Report
from exporter.settings import Settings
from exporter.state import StateFile
from exporter.storage.model import Storage

log = structlog.get_logger(__name__)


class Reporting:
    """Of settings that ask for a report; `file` says when the last one was told."""

    def __init__(self, settings: Settings, storage: Storage, external_url: str, file: Path) -> None:
        notify = settings.notify
        assert notify.report != "off", "nobody asks for a report"
        self._report = Report(
            storage,
            Plan(notify.report, time.fromisoformat(notify.report_time)),
            labels=settings.rules.external_labels,
            external_url=external_url,
        )
        self._file = StateFile(file)
        self._report.restore(self._file.load())

    async def run(self, announce: Callable[[Alert], Awaitable[None]]) -> None:
        """Make each report when it is due; it counts as told once `announce` has written it down."""

        async def send(alert: Alert) -> None:
            await announce(alert)
            try:
                await asyncio.to_thread(self._file.save, self._report.state())
            except OSError as error:
                log.warning("report_time_not_saved", error=str(error))

        await self._report.run(send)
