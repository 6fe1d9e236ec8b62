"""Runs one engine: starts or adopts it, sees it become ready, watches it, restarts it, stops it.

One task writes the state: `Supervisor.run` reads top to bottom, takes its events from one inbox and applies the contract
table of `states`. Everything else (exit watch, probes, output, scrapes, signals) only posts events.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import structlog

from exporter.engine import adoption, carryover, leftover
from exporter.engine.board import StatusBoard
from exporter.engine.command import EngineCommand
from exporter.engine.ending import end_or_kill
from exporter.engine.events import (
    Answered,
    Cleared,
    Inbox,
    Probed,
    Scraped,
    StopAsked,
    Unanswered,
)
from exporter.engine.life import Life, port_taken
from exporter.engine.metrics import EngineMetrics
from exporter.engine.moving import Berth
from exporter.engine.output.diagnosis import Failure
from exporter.engine.process import launcher
from exporter.engine.process.stopping import stop_tree
from exporter.engine.states import ALIVE, EngineState, Event
from exporter.engine.status import EngineStatus
from exporter.engine.tenure import Parts, Tenure
from exporter.engine.verdict.hang import Progress
from exporter.engine.verdict.probes import EngineClient
from exporter.engine.verdict.question import TokenAnswer
from exporter.engine.verdict.restart import RestartHistory, RestartPlan, RestartPolicy, plan_restart
from exporter.exposition.block import Block
from exporter.settings import EngineSettings

log = structlog.get_logger(__name__)

OUTPUT_NAME = "engine.log"
"""The engine's own output, in the data folder."""


class Supervisor:
    """An engine that this daemon starts and stops.

    `moves`: it listens on a free loopback port, because the gateway has the one that its command names.
    `http` gives the shared HTTP session, `recent_samples(seconds)` the latest indicators for an incident,
    `gpu_memory_of(pids)` the bytes that these processes hold on GPUs (None: unknown).
    """

    def __init__(
        self,
        settings: EngineSettings,
        command: EngineCommand,
        *,
        data_dir: Path,
        moves: bool = False,
        http: Callable[[], aiohttp.ClientSession],
        block: Block,
        recent_samples: Callable[[float], list[dict[str, Any]]] = lambda seconds: [],
        gpu_memory_of: Callable[[frozenset[int]], int | None] = lambda pids: None,
    ) -> None:
        """Raises ConfigError for a command that is to be moved and cannot be."""
        self._settings = settings
        self._berth = Berth(command) if moves else None
        if self._berth is not None:
            command = self._berth.command
        self._command = command
        self._http = http
        self._metrics = EngineMetrics(block, supervised=True)
        status = EngineStatus("supervised", command.base_url, since=time.time())
        # Read here and not in `run`: the page must never show counts from before the record is known.
        self._record = adoption.load(data_dir)
        if self._record is not None:
            restarts = dict(self._record.restarts)
            status = replace(status, generation=self._record.generation, restarts=restarts)
        self._board = StatusBoard(status, self._metrics)
        self._client = EngineClient(
            command.base_url,
            command.api_key,
            http,
            tls_verify=settings.tls_verify,
            has_priorities=command.has_priorities,
        )
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
        self._read_before = ("", 0)
        """The mark of the engine whose output an earlier daemon read, and up to where."""
        self._life: Life | None = None
        self._tasks: asyncio.TaskGroup

    # What others call. Nothing here waits for the engine's life, and only `run` changes the state.

    @property
    def status(self) -> EngineStatus:
        return self._board.status

    def subscribe(self, callback: Callable[[EngineStatus], None]) -> None:
        """Call back at each change of the status, at once and in the event loop."""
        self._board.subscribe(callback)

    def observe(self, progress: Progress | None, *, now: float, token_at: float | None = None) -> None:
        """A scrape landed, or failed (None), at `now` in monotonic seconds; the gateway's last token came at `token_at`."""
        if self.status.state in ALIVE:
            self._inbox.post(Scraped(progress, now, token_at))

    async def ask(self, prompt: str, timeout: float) -> TokenAnswer:  # noqa: ASYNC109
        """Ask the first model for one token."""
        return await self._client.ask(self.status.models[0], prompt, timeout)

    def answered(self, now: float) -> None:
        """A question got its token."""
        self._inbox.post(Answered(self._inbox.life, now))

    def unanswered(self, since: float, now: float) -> None:
        """Two questions in a row, the first at `since`, got no answer, and nothing moved."""
        self._inbox.post(Unanswered(self._inbox.life, since, now))

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
        """Ask for the end: the first call drains, a second one skips what is left of the drain.

        One that comes when the processes have been told to end kills them.
        """
        self._inbox.ask_stop()

    def state(self) -> dict[str, Any]:
        """Every count, for `restore` in the next daemon. JSON-able; cheap enough for each page."""
        clock_offset = time.time() - time.monotonic()
        mark, offset = self._read_before
        if self._life is not None:
            self._life.count_output()
            mark, offset = self._life.process.mark, self._life.output_offset
        return {
            "counters": self._metrics.state(),
            "restarts": dict(self.status.restarts),
            "generation": self.status.generation,
            "crashes": [round(at + clock_offset, 1) for at in self._history.crashes],
            "streak": self._history.streak,
            "never_ready": self._history.never_ready,
            "mark": mark,
            "output_offset": offset,
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state` said last; call it before `run`, and before anybody is shown the page."""
        carried = carryover.read(saved)
        now = time.monotonic()
        self._metrics.restore(carried.counters)
        self._history = carried.history(clock_offset=time.time() - now, now=now)
        self._read_before = (carried.mark, carried.output_offset)
        self._board.update(
            generation=max(self.status.generation, carried.generation),
            restarts=carryover.at_least(self.status.restarts, carried.restarts),
        )

    # The engine's life, top to bottom.

    async def run(self) -> None:
        """Run the engine until stopped; with `on_exit: keep` it is left running and recorded."""
        for remark in self._command.remarks:
            log.warning("engine_command_remark", advice=remark)
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
                if self._berth is not None:
                    self._berth.release()

    async def _take_over(self) -> None:
        """Adopt the engine that an earlier daemon left running, or stop what is left of it.

        An engine that was kept is adopted also where this daemon is to stop it in the end: its model is loaded.
        """
        record, self._record = self._record, None
        if record is None:
            return
        found = await asyncio.to_thread(
            adoption.examine, record, self._command.identity, behind_gateway=self._berth is not None
        )
        if found is adoption.Found.RUNNING:
            self._adopt(record)
            return
        if found is adoption.Found.GONE:
            log.info("engine_of_earlier_run_is_gone", pid=record.pid)
        else:
            log.warning(
                "engine_of_earlier_run_stopped", pid=record.pid, found=found.value, url=record.base_url
            )
            if found in (adoption.Found.OTHER_COMMAND, adoption.Found.OUT_OF_REACH):
                await self._drain_other(record)
                if self._inbox.stops and self._parts.keep:
                    return
            await end_or_kill(
                self._inbox,
                lambda patience: stop_tree(adoption.remains(record), kill_timeout=patience),
                self._settings.kill_timeout,
            )
        adoption.forget(self._parts.data_dir)

    def _adopt(self, record: adoption.EngineRecord) -> None:
        mark, offset = self._read_before
        if record.mark == mark and offset > record.output_offset:  # what was counted is not counted again
            record = replace(record, output_offset=offset)
        if self._berth is not None:  # where it listens, it listens
            self._use(self._berth.take(record.base_url, was_moved=record.moved))
        process = adoption.adopt(record, keep=self._parts.keep, kill_timeout=self._settings.kill_timeout)
        self._board.move(Event.START, {"mode": "adopted"}, pid=record.pid, generation=record.generation)
        self._begin(process, record.ready_since)

    async def _drain_other(self, record: adoption.EngineRecord) -> None:
        """Let an engine with another command finish its requests."""
        await leftover.drain(
            record.base_url,
            self._http,
            self._inbox,
            patience=self._settings.drain_timeout,
            answer_within=self._settings.health_timeout,
            tls_verify=self._settings.tls_verify,
        )

    def _use(self, command: EngineCommand) -> None:
        """From now on this is how the engine is started, and where it is asked."""
        if command == self._command:
            return
        self._command = command
        self._parts = replace(self._parts, command=command)
        self._client.turn_to(command.base_url)
        self._board.update(base_url=command.base_url)

    async def _start(self) -> Failure | None:
        """Start a new process; or say why that makes no sense."""
        try:
            if self._berth is not None:
                self._use(await asyncio.to_thread(self._berth.ready))
        except OSError as error:
            return Failure(
                "start_failed", f"no port is free for the engine: {error}", "free some ports", retryable=True
            )
        if self._berth is None:
            taken = await asyncio.to_thread(port_taken, *self._client.address)
            if taken is not None:
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
            moved=self._command.moved,
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
        if self._berth is not None and failure.reason == "port_in_use":
            self._berth.distrust()
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
            await life.look_everywhere()
            await Tenure(self._parts, life).record()
            life.close()
            told = {"kept_pid": life.process.pid}
        else:
            # Somebody ended it on purpose, perhaps to mend it: the next start has the whole crash budget again.
            self._history = RestartHistory()
        if life is not None and not told:
            report = await end_or_kill(self._inbox, life.end, self._settings.kill_timeout)
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
