"""Runs one engine: starts or adopts it, sees it become ready, watches it, restarts it, stops it.

One task writes the state: `Supervisor.run` reads top to bottom, takes its events from one inbox and applies the contract
table of `states`. Everything else (exit watch, probes, output, scrapes, signals) only posts events.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from exporter.engine import adoption, launcher
from exporter.engine.board import StatusBoard
from exporter.engine.command import EngineCommand
from exporter.engine.diagnosis import Failure
from exporter.engine.events import (
    Cleared,
    Inbox,
    Probed,
    Scraped,
    StopAsked,
)
from exporter.engine.hang import Progress
from exporter.engine.life import Life, port_taken
from exporter.engine.metrics import EngineMetrics
from exporter.engine.probes import EngineClient
from exporter.engine.restart import RestartHistory, RestartPlan, RestartPolicy, plan_restart
from exporter.engine.states import ALIVE, EngineState, Event
from exporter.engine.status import EngineStatus
from exporter.engine.stopping import stop_tree
from exporter.engine.tenure import Parts, Tenure
from exporter.exposition.block import Block
from exporter.settings import EngineSettings

log = structlog.get_logger(__name__)

OUTPUT_NAME = "engine.log"
"""The engine's own output, in the data folder."""


class Supervisor:
    """An engine that this daemon starts and stops.

    `http` gives the shared HTTP session, `recent_samples(seconds)` the latest indicators for an incident,
    `gpu_memory_of(pids)` the bytes that these processes hold on GPUs (None: unknown).
    """

    def __init__(
        self,
        settings: EngineSettings,
        command: EngineCommand,
        *,
        data_dir: Path,
        http: Callable[[], aiohttp.ClientSession],
        block: Block,
        recent_samples: Callable[[float], list[dict[str, Any]]] = lambda seconds: [],
        gpu_memory_of: Callable[[frozenset[int]], int | None] = lambda pids: None,
    ) -> None:
        self._settings = settings
        self._command = command
        self._metrics = EngineMetrics(block, supervised=True)
        status = EngineStatus("supervised", command.base_url, since=time.time())
        self._board = StatusBoard(status, self._metrics)
        self._client = EngineClient(command.base_url, command.api_key, http, tls_verify=settings.tls_verify)
        self._inbox = Inbox()
        self._parts = Parts(
            settings=settings,
            command=command,
            data_dir=data_dir,
            client=self._client,
            inbox=self._inbox,
            board=self._board,
            metrics=self._metrics,
            recent_samples=recent_samples,
            gpu_memory_of=gpu_memory_of,
        )
        self._restart_policy = RestartPolicy(
            delay=settings.restart_delay,
            delay_max=settings.restart_delay_max,
            stable_after=settings.stable_after,
            crash_limit=settings.crash_limit,
            crash_window=settings.crash_window,
        )
        self._history = RestartHistory()
        self._life: Life | None = None
        self._tasks: asyncio.TaskGroup

    # What others call. Nothing here waits for the engine's life, and only `run` changes the state.

    @property
    def status(self) -> EngineStatus:
        return self._board.status

    def subscribe(self, callback: Callable[[EngineStatus], None]) -> None:
        """Call back at each change of the status, at once and in the event loop."""
        self._board.subscribe(callback)

    def observe(self, progress: Progress | None, *, now: float) -> None:
        """A scrape landed, or failed (None), at `now` in monotonic seconds."""
        if self.status.state in ALIVE:
            self._inbox.post(Scraped(progress, now))

    async def probe(self) -> None:
        """Ask `/health` once after ready; before ready the engine is looked at more often anyway."""
        life = self._life
        if life is None:
            return
        life.count_output()
        if self.status.state in (EngineState.ready, EngineState.unresponsive):
            answer = await self._client.health(self._settings.health_timeout)
            self._inbox.post(Probed(life.number, answer, time.monotonic()))

    def pids(self) -> frozenset[int]:
        """The engine's processes as last seen."""
        return self._life.pids() if self._life is not None else frozenset()

    def stop(self) -> None:
        """Ask for the end: the first call drains, a second one skips what is left of the drain."""
        self._inbox.ask_stop()

    # The engine's life, top to bottom.

    async def run(self) -> None:
        """Run the engine until stopped; with `on_exit: keep` it is left running and recorded."""
        launcher.become_subreaper()
        async with asyncio.TaskGroup() as self._tasks:
            try:
                await self._take_over()
                while not self._inbox.stops:
                    failure = await self._start() if self._life is None else None
                    if self._life is not None and failure is None:
                        failure = await Tenure(self._parts, self._life).last()
                    if failure is None or not await self._recover(failure):
                        break
                await self._finish()
            finally:
                if self._life is not None:  # an error or a cancellation: no engine is left by accident
                    if self._life.exited or not self._parts.keep:
                        await self._life.end(self._settings.kill_timeout)
                    self._life.close()

    async def _take_over(self) -> None:
        """Adopt the engine that an earlier daemon left running, or stop what is left of it."""
        record = await asyncio.to_thread(adoption.load, self._parts.data_dir)
        if record is None:
            return
        found = await asyncio.to_thread(adoption.examine, record, self._command.argv)
        self._board.update(generation=record.generation, restarts=dict(record.restarts))
        if found is adoption.Found.RUNNING and self._parts.keep:
            process = adoption.adopt(record, keep=True, kill_timeout=self._settings.kill_timeout)
            # A log that somebody deleted is no reason to end a good engine.
            process.output.touch(exist_ok=True)
            self._board.move(Event.START, {"mode": "adopted"}, pid=record.pid, generation=record.generation)
            self._begin(process, record.ready_since)
            return
        if found is adoption.Found.GONE:
            log.info("engine_of_earlier_run_is_gone", pid=record.pid)
        else:
            log.warning("engine_of_earlier_run_stopped", pid=record.pid, found=found.value)
            await stop_tree(adoption.remains(record), kill_timeout=self._settings.kill_timeout)
        adoption.forget(self._parts.data_dir)

    async def _start(self) -> Failure | None:
        """Start a new process; or say why that makes no sense."""
        if (taken := await asyncio.to_thread(port_taken, *self._client.address)) is not None:
            return taken
        self._board.move(
            Event.START, {"mode": "supervised"}, command=self._command.line, url=self._command.base_url
        )
        try:
            process = launcher.start(
                self._command,
                output=self._parts.data_dir / OUTPUT_NAME,
                keep=self._parts.keep,
                kill_timeout=self._settings.kill_timeout,
            )
        except launcher.StartError as error:
            return Failure(
                "start_failed", str(error), "free some memory, processes or disk space", retryable=True
            )
        self._board.update(generation=self.status.generation + 1)
        self._begin(process)
        return None

    def _begin(self, process: launcher.EngineProcess, ready_since: float | None = None) -> None:
        """Watch a process that runs."""
        self._inbox.life += 1
        self._life = life = Life(
            self._inbox.life,
            process,
            self._settings,
            self._client,
            self._inbox,
            self._spawn,
            self._metrics,
            secrets=self._command.secrets,
        )
        adopted = self.status.mode == "adopted"
        log.info("engine_adopted" if adopted else "engine_started", pid=process.pid, epoch=life.epoch)
        self._board.update(
            pid=process.pid,
            epoch=life.epoch,
            started_at=process.started_at,
            ready_since=ready_since,
            was_ready=self.status.was_ready or ready_since is not None,
        )

    async def _recover(self, failure: Failure) -> bool:
        """After an end that nobody asked for: told at once, swept, waited out. True: start again; False: stop."""
        now = time.monotonic()
        ready_for = self._life.ready_for(now) if self._life is not None else None
        plan = plan_restart(
            self._restart_policy,
            self._history,
            now=now,
            ready_for=ready_for,
            jitter=random.random(),  # noqa: S311
        )
        self._history = plan.history
        self._told_end(failure, plan)
        resume_at = now + plan.delay if failure.retryable and plan.delay is not None else None
        clearing = None
        if self._life is not None:
            clearing = self._spawn(self._life.clear(self._parts.gpu_memory_of), "engine sweep")
        while True:
            match await self._inbox.next(None if self._life is not None else resume_at):
                case None:
                    return True
                case StopAsked():
                    if clearing is not None:
                        clearing.cancel()
                    return False
                case Cleared() if self._life is not None:
                    self._life.close()
                    self._life = None
                    adoption.forget(self._parts.data_dir)

    def _told_end(self, failure: Failure, plan: RestartPlan) -> None:
        """Count, show and log the end of a process, or that it could not be started."""
        if self._life is not None:
            self._metrics.crashed(failure.reason)
        changes: dict[str, Any] = {
            "last_failure": failure,
            "pid": None,
            "ready_since": None,
            "load_stage": None,
            "load_ratio": None,
            "models": (),
        }
        if failure.retryable and plan.delay is not None:
            count = self.status.restarts.get(failure.reason, 0) + 1
            changes["restarts"] = {**self.status.restarts, failure.reason: count}
            delay = round(plan.delay, 2)
            self._board.move(
                Event.CRASH, changes, reason=failure.reason, error=failure.line, restart_in_seconds=delay
            )
        else:
            why = {"gave_up_after": plan.because} if failure.retryable else {}
            self._board.move(Event.GIVE_UP, changes, reason=failure.reason, error=failure.line, **why)

    async def _finish(self) -> None:
        """Leave nothing of the engine; or leave it running, recorded for the next start."""
        life, self._life = self._life, None
        told: dict[str, Any] = {}
        if life is not None and self._parts.keep and not life.exited:
            life.look_around(full=True)
            await Tenure(self._parts, life).record()
            life.close()
            told = {"kept_pid": life.process.pid}
        elif life is not None:
            report = await life.end(self._settings.kill_timeout)
            life.close()
            told = {"seconds": round(report.seconds, 2), "killed": report.killed}
            if report.survivors:
                told["error"] = f"these processes will not die: {sorted(p.pid for p in report.survivors)}"
            else:
                adoption.forget(self._parts.data_dir)
        changes = {"asked_to_stop": True, "pid": None, "load_stage": None, "load_ratio": None}
        if not self._board.move(Event.GONE, changes, **told):
            self._board.update(**changes)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._tasks.create_task(work, name=name)
