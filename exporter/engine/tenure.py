"""A running engine's time: loading, ready, unresponsive, draining, until it ends or has to be ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from exporter.engine import adoption
from exporter.engine.board import StatusBoard
from exporter.engine.command import EngineCommand
from exporter.engine.events import (
    Answered,
    CanaryEnded,
    Exited,
    Inbox,
    Loading,
    Probed,
    Scraped,
    Seen,
    Serving,
    StopAsked,
    Unanswered,
)
from exporter.engine.incident import write_incident
from exporter.engine.life import Life
from exporter.engine.metrics import EngineMetrics
from exporter.engine.output.diagnosis import Failure
from exporter.engine.states import EngineState, Event
from exporter.engine.verdict.hang import Progress
from exporter.engine.verdict.probes import EngineClient
from exporter.settings import EngineSettings

log = structlog.get_logger(__name__)

IDLE_SCRAPES = 2
"""Pages in a row without a request that end a drain."""
RECORD_SECONDS = 60.0
"""How old the place in the output may be from which the next daemon goes on reading."""
SAMPLES_SECONDS = 300.0
"""How much of the indicators' past goes into an incident."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a supervisor's modules share."""

    settings: EngineSettings
    command: EngineCommand
    data_dir: Path
    client: EngineClient
    inbox: Inbox
    board: StatusBoard
    metrics: EngineMetrics
    recent_samples: Callable[[float], list[dict[str, Any]]]
    gpu_memory_of: Callable[[frozenset[int]], int | None]

    @property
    def keep(self) -> bool:
        """Whether the engine outlives the daemon."""
        return self.settings.on_exit == "keep"


class Tenure:
    """Lives with one process. Runs inside the supervisor's one writing task."""

    def __init__(self, parts: Parts, life: Life) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._board = parts.board
        self._inbox = parts.inbox
        self._life = life
        self._recorded: tuple[float, int, float | None] = (0.0, 0, None)
        """When the record was last written (monotonic), the place in the output and the time of ready that it names."""

    async def last(self) -> Failure | None:
        """Why the process ended, or had to be ended; None when a stop was asked, and drained where it is to end."""
        life, board = self._life, self._board
        timeout = self._settings.start_timeout
        overdue = life.began + timeout if timeout else None
        while True:
            if self._record_is_old():
                await self.record()
            match event := await self._inbox.next(overdue if life.ready_at is None else None):
                case None:
                    return await self._put_down(_start_timeout(timeout, life.hindrance))
                case StopAsked():
                    if not self._parts.keep:
                        await self._drain()
                    return None
                case Exited():
                    return life.diagnose(event.code)
                case Loading():
                    changes = {"load_stage": event.stage, "load_ratio": event.ratio}
                    if not board.move(Event.LOAD, changes, stage=event.stage):
                        board.update(**changes)
                    life.look_around()
                case Serving():
                    self._became_ready(event)
                case Scraped() | Probed() | CanaryEnded() | Answered() | Unanswered():
                    failure = self._judge(event)
                    if failure is not None and self._settings.on_hang == "restart":
                        return await self._put_down(failure)
                    if failure is not None:
                        await self._save_evidence(failure)

    async def record(self) -> None:
        """Write down what the next daemon must know, should this one be gone without a word."""
        life, status = self._life, self._board.status
        self._recorded = (time.monotonic(), life.output_offset, status.ready_since)
        record = adoption.record_of(
            life.process,
            argv=self._parts.command.identity,
            base_url=self._parts.command.base_url,
            output_offset=life.output_offset,
            members=life.take_members(),
            generation=status.generation,
            ready_since=status.ready_since,
            restarts=status.restarts,
            kept=self._parts.keep,
            moved=self._parts.command.moved,
        )
        try:
            await asyncio.to_thread(adoption.save, self._parts.data_dir, record)
        except OSError as error:
            log.warning("engine_record_not_saved", data_dir=str(self._parts.data_dir), error=str(error))

    def _record_is_old(self) -> bool:
        at, offset, ready_since = self._recorded
        if self._life.has_new_members or ready_since != self._board.status.ready_since:
            return True
        aged = self._parts.keep and time.monotonic() - at >= RECORD_SECONDS
        return aged and self._life.output_offset != offset

    def _became_ready(self, event: Serving) -> None:
        status, now = self._board.status, time.time()
        changes: dict[str, Any] = {"models": event.models, "was_ready": True}
        told: dict[str, Any] = {"models": list(event.models)}
        if status.ready_since is None:
            changes["ready_since"] = now
            if status.mode == "supervised":
                told["load_seconds"] = round(now - (status.started_at or now), 2)
        self._life.became_ready(time.monotonic())
        self._board.move(Event.SERVE, changes, **told)

    def _judge(self, event: Seen) -> Failure | None:
        """Let the vigil judge what was seen; a failure when something new says that the engine is unresponsive."""
        vigil = self._life.vigil
        if vigil is None:
            return None
        before = vigil.signals
        vigil.judge(event, self._board.status.models[0])
        if isinstance(event, Probed):
            self._life.look_around()
        new = [signal for signal in vigil.signals if signal not in before]
        for signal in new:
            self._parts.metrics.stalled(signal)
        if not vigil.signals:
            self._board.move(Event.SERVE)
        if not new:
            return None
        failure = vigil.failure(new[0])
        self._board.move(Event.STALL, {"last_failure": failure}, reason=failure.reason, error=failure.message)
        return failure

    async def _put_down(self, failure: Failure) -> Failure:
        """End a process that will not end by itself, evidence first."""
        await self._save_evidence(failure)
        report = await self._life.end(self._settings.kill_timeout)
        log.warning(
            "engine_put_down", reason=failure.reason, seconds=round(report.seconds, 2), killed=report.killed
        )
        return failure

    async def _save_evidence(self, failure: Failure) -> None:
        life, status = self._life, self._board.status
        life.look_around()
        summary: Mapping[str, Any] = {
            "message": failure.message,
            "state": status.state.value,
            "pid": life.process.pid,
            "generation": status.generation,
            "ready_since": status.ready_since,
            "models": list(status.models),
            "health": life.vigil.last_probe if life.vigil is not None else None,
        }
        try:
            folder = await asyncio.to_thread(
                write_incident,
                self._parts.data_dir,
                failure.reason,
                summary=summary,
                command=self._parts.command,
                members=life.tree.members,
                output=life.process.output,
                samples=self._parts.recent_samples(SAMPLES_SECONDS),
                now=time.time(),
            )
        except OSError as error:
            log.error("incident_not_written", reason=failure.reason, error=str(error))
            return
        self._parts.metrics.incident(failure.reason)
        log.warning("incident_written", reason=failure.reason, folder=str(folder))

    async def _drain(self) -> None:
        """Wait until no request is left, when the engine serves and nobody is in a hurry."""
        waits = self._board.status.state is EngineState.ready and self._inbox.stops < 2
        self._board.move(Event.STOP, {"asked_to_stop": True}, waits_for_requests=waits)
        began = time.monotonic()
        until = began + (self._settings.drain_timeout if waits else 0.0)
        idle_scrapes = 0
        while waits:
            match event := await self._inbox.next(until):
                case None:
                    log.warning("engine_drain_timed_out", seconds=self._settings.drain_timeout)
                    return
                case StopAsked():
                    log.info("engine_drain_skipped")
                    return
                case Exited():
                    return
                case Scraped():
                    # The last tokens leave the gauges before they reach the client: one quiet page is not enough.
                    idle_scrapes = idle_scrapes + 1 if _is_idle(event.progress) else 0
                    if idle_scrapes == IDLE_SCRAPES:
                        log.info("engine_drained", seconds=round(time.monotonic() - began, 2))
                        return


def _is_idle(progress: Progress | None) -> bool:
    """A page came, and counts no request; several API servers show no such gauge before their first request."""
    return progress is not None and not progress.running and not progress.waiting


def _start_timeout(seconds: float, hindrance: str) -> Failure:
    return Failure(
        "start_timeout",
        f"the engine was not ready within {seconds:g} s",
        hindrance or "the last lines of its output tell what it waits for; or raise engine.start_timeout",
        retryable=True,
    )
