"""One engine process from its start (or adoption) to its end, and the tasks that watch it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

import structlog

from exporter.engine.events import Cleared, Exited, Inbox, Loading, Serving
from exporter.engine.metrics import EngineMetrics
from exporter.engine.output.diagnosis import Context, Failure, diagnose
from exporter.engine.output.engine_output import EngineOutput
from exporter.engine.output.loglines import LoadProgress
from exporter.engine.output.space import is_full
from exporter.engine.process import (
    ProcessId,
    StopReport,
    boot_id,
    oom_kills,
    port_holder,
    port_is_free,
    stop_tree,
    wait_exit,
)
from exporter.engine.process.launcher import EngineProcess
from exporter.engine.verdict.elsewhere import SearchPlan, find_elsewhere
from exporter.engine.verdict.health import Health
from exporter.engine.verdict.probes import EngineClient
from exporter.engine.verdict.vigil import Spawn, Vigil
from exporter.settings import EngineSettings

log = structlog.get_logger(__name__)

POLL_SECONDS = 0.5
"""Between two looks at a port that is not open yet, and at what is not gone yet."""
HINDERED_SECONDS = 2.0
"""Between two looks at an engine that answers and that only another setting can make ready."""


class Life:
    """What is known of one process. `number` marks its events; the tasks end with `close`."""

    def __init__(
        self,
        number: int,
        process: EngineProcess,
        settings: EngineSettings,
        client: EngineClient,
        inbox: Inbox,
        spawn: Spawn,
        metrics: EngineMetrics,
        *,
        secrets: tuple[str, ...] = (),
        moved: bool = False,
    ) -> None:
        self.number = number
        self.process = process
        self.tree = process.tree()
        self.exited = False
        """Whether its root process has ended, or is being ended."""
        self.has_new_members = True
        self.vigil: Vigil | None = None
        """From ready on."""
        self.hindrance = ""
        """Why it cannot become ready for this daemon although it may be well, and what to set; empty: nothing known."""
        self.began = time.monotonic()
        self.ready_at: float | None = None
        """Monotonic; when it became ready for the first time."""
        self._settings = settings
        self._client = client
        self._inbox = inbox
        self._spawn = spawn
        self._metrics = metrics
        self._secrets = secrets
        self._moved = moved
        self._members: set[ProcessId] = {process.id}
        self._counted: dict[str, int] = {}
        self._counted_dropped = 0
        self._counted_skipped = 0
        self._output = EngineOutput(
            process.output,
            offset=process.output_offset,
            rate=settings.log_rate_limit,
            file_limit=settings.log_file_limit,
            secrets=secrets,
            on_progress=self._progressed,
        )
        self._oom_kills = oom_kills()
        self._output.start()
        self._tasks = [spawn(self._watch_exit(), "engine exit"), spawn(self._watch_port(), "engine start")]

    @property
    def epoch(self) -> str:
        """Names the process for good, for this daemon and the next."""
        return f"{boot_id()}:{self.process.id.pid}:{self.process.id.start_ticks}"

    @property
    def output_offset(self) -> int:
        """Where the next daemon goes on reading the output."""
        return self._output.offset

    def became_ready(self, now: float) -> None:
        """It serves, for the first time, at `now` (monotonic seconds): from here on it is judged."""
        self.ready_at = now
        self._output.ready()
        self.look_around()
        self.tree.note_shared_memory()
        self.vigil = Vigil(
            self.number, self._settings, self._client, self._inbox, self._spawn, self._metrics, now=now
        )

    def ready_for(self, now: float) -> float | None:
        """Seconds since it first became ready; None when it never did."""
        return None if self.ready_at is None else now - self.ready_at

    def look_around(self, *, full: bool = False) -> None:
        """Find the engine's new processes, so that they are known once their parents are gone."""
        with self._looking():
            self._take_in(self.tree.refresh(full=full))

    async def look_everywhere(self) -> None:
        """`look_around(full=True)`, without making the event loop wait."""
        with self._looking():
            self._take_in(await self.tree.refresh_all())

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        """Out of open files /proc cannot be read: what was seen last stands, and the engine is not given up for that."""
        try:
            yield
        except OSError as error:
            log.warning("engine_processes_not_seen", error=str(error))

    def _take_in(self, members: frozenset[ProcessId]) -> None:
        self.has_new_members |= not members <= self._members
        self._members |= members
        if self.process.guard is not None:
            self.process.guard.tell(members)

    def pids(self) -> frozenset[int]:
        """Its live processes as last seen."""
        return frozenset(member.pid for member in self.tree.members)

    def take_members(self) -> frozenset[ProcessId]:
        """Every live process, for the record; `has_new_members` then waits for the next one."""
        self.has_new_members = False
        return self.tree.members

    def count_output(self) -> None:
        """Bring the counters of output up to date."""
        for level, lines in self._output.lines.items():
            self._metrics.log_lines(level, lines - self._counted.get(level, 0))
            self._counted[level] = lines
        self._metrics.log_dropped(self._output.dropped - self._counted_dropped)
        self._counted_dropped = self._output.dropped
        self._metrics.log_skipped(self._output.skipped_bytes - self._counted_skipped)
        self._counted_skipped = self._output.skipped_bytes

    def diagnose(self, exit_code: int | None) -> Failure:
        """Why its root process ended, from the whole of its output."""
        self.exited = True
        folder = self.process.output.parent
        full = is_full(folder)  # before the rest of the output is read and freed
        self._output.drain()
        scan = self._output.scan
        held_by = None
        if not self._moved and any(rule.reason == "port_in_use" for rule, _ in scan.found()):
            held_by = self._stranger()  # reads every socket of the host: only where the answer counts
        context = Context(
            was_ready=self.ready_at is not None,
            port=self._client.address[1],
            port_held_by=held_by,
            port_is_ours=self._moved,
            oom_killed=oom_kills() > self._oom_kills,
            full_folder=str(folder) if full else None,
            secrets=self._secrets,
        )
        return diagnose(exit_code, scan, context)

    def _stranger(self) -> str | None:
        """Who holds the engine's port and is not of the engine, in words."""
        holder = port_holder(*self._client.address)
        stranger = holder is not None and holder not in self.tree.refresh(full=True)
        return f"process {holder.pid}" if holder is not None and stranger else None

    async def end(self, kill_timeout: float) -> StopReport:
        """Stop every process of it; returns when nothing is left, or when the rest will not die."""
        self.exited = True
        self._output.stopping()
        await self.look_everywhere()
        return await stop_tree(self.tree, kill_timeout=kill_timeout, process=self.process)

    async def clear(self, gpu_memory_of: Callable[[frozenset[int]], int | None]) -> None:
        """After the end of the root: sweep what it left, wait until its GPU memory is free, post `Cleared`.

        Killed vLLM parents leave workers that hold the memory for seconds; a start on top of them fails, and with
        enough repetition takes the host down.
        """
        report = await self.end(self._settings.kill_timeout)
        if report.signalled:
            log.warning("engine_orphans_swept", signals=report.signalled, seconds=round(report.seconds, 2))
        if report.survivors:
            log.error("engine_processes_will_not_die", pids=sorted(p.pid for p in report.survivors))
            while await self.tree.refresh_all():  # noqa: ASYNC110  the kernel tells nobody when a stuck process ends
                await asyncio.sleep(POLL_SECONDS)
        until = time.monotonic() + self._settings.gpu_release_timeout
        pids = frozenset(member.pid for member in self._members)
        while held := gpu_memory_of(pids):
            if time.monotonic() >= until:
                log.warning(
                    "engine_gpu_memory_not_released",
                    bytes=held,
                    waited_seconds=self._settings.gpu_release_timeout,
                )
                break
            await asyncio.sleep(POLL_SECONDS)
        self._inbox.post(Cleared(self.number))

    def close(self) -> None:
        """Stop watching; the process itself is left as it is."""
        for task in self._tasks:
            task.cancel()
        if self.vigil is not None and self.vigil.canary is not None:
            self.vigil.canary.cancel()
        self._output.close()
        self.count_output()
        self.process.release()

    async def _watch_exit(self) -> None:
        code = await wait_exit(self.process)
        self._inbox.post(Exited(self.number, code, time.monotonic()))

    async def _watch_port(self) -> None:
        """Look until the engine answers and lists a model; then post `Serving`."""
        patience = self._settings.health_timeout
        told = False
        search = SearchPlan(self.began)
        while not self.exited:
            self.look_around()
            self.tree.note_shared_memory()  # a core that is killed while it loads leaves what it had by then
            pause = POLL_SECONDS
            progress = self._output.progress
            if await self._client.listens(patience):
                answer = await self._client.health(patience)
                refusal = answer.refusal
                if answer.health is Health.OK:
                    listed = await self._client.models(patience)
                    refusal = listed.refusal
                    if listed.models:
                        holder = await asyncio.to_thread(port_holder, *self._client.address)
                        await self.look_everywhere()
                        if holder is None or holder in self.tree.members:
                            self._inbox.post(Serving(self.number, listed.models))
                            return
                        if not told:
                            log.warning(
                                "engine_port_taken_meanwhile", pid=holder.pid, url=self._client.base_url
                            )
                            told = True
                if refusal is not None and not refusal.retryable:
                    self._hindered(refusal.line, reason=refusal.reason)
                    pause = HINDERED_SECONDS
            elif search.due(time.monotonic(), stage=progress.stage if progress.loading else None):
                url = await find_elsewhere(self.tree.members, self._client)
                if url is not None:
                    advice = (
                        "set gateway.listen to another port than the engine's, or gateway.mode to off"
                        if self._moved
                        else "set engine.url"
                    )
                    self._hindered(
                        f"the engine listens on {url}, the daemon expects {self._client.base_url}; {advice}",
                        reason="listens_elsewhere",
                    )
            await asyncio.sleep(pause)

    def _hindered(self, hindrance: str, *, reason: str) -> None:
        """Tell once why the engine, which may be well, cannot become ready for this daemon."""
        if hindrance != self.hindrance:
            self.hindrance = hindrance
            log.warning("engine_not_usable", reason=reason, error=hindrance)

    def _progressed(self, progress: LoadProgress) -> None:
        if progress.loading:
            self._inbox.post(Loading(self.number, progress.stage, progress.ratio))


def port_taken(host: str, port: int) -> Failure | None:
    """Whether somebody has the port that an engine is to listen on: it would load for minutes and then find out.

    Blocks for some milliseconds.
    """
    if port_is_free(host, port):
        return None
    holder = port_holder(host, port)
    who = f"process {holder.pid}" if holder is not None else "a process that cannot be seen from here"
    return Failure(
        "port_in_use",
        f"port {port} is taken by {who}",
        "stop that process, or give the engine another --port",
        retryable=False,
    )
