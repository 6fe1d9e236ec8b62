"""Watches an engine that somebody else runs: never signals it, keeps trying when it is away, says so once per change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import aiohttp
import structlog
from pydantic import SecretStr

from exporter.engine import carryover
from exporter.engine.board import StatusBoard
from exporter.engine.events import (
    Answered,
    CanaryEnded,
    Inbox,
    Probed,
    Refused,
    Scraped,
    Serving,
    StopAsked,
    Unanswered,
)
from exporter.engine.metrics import EngineMetrics
from exporter.engine.output.diagnosis import Failure
from exporter.engine.states import ATTACHED_TABLE, EngineState, Event
from exporter.engine.status import EngineStatus
from exporter.engine.verdict.hang import Progress
from exporter.engine.verdict.health import Health
from exporter.engine.verdict.probes import EngineClient
from exporter.engine.verdict.question import TokenAnswer
from exporter.engine.verdict.vigil import Vigil
from exporter.exposition.block import Block
from exporter.settings import EngineSettings

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks at an engine that is not there: a refused connection costs about 0.3 ms."""


class AttachedEngine:
    """An engine behind a URL. Its states: starting, ready, unresponsive, and stopped while it cannot be reached."""

    def __init__(
        self,
        settings: EngineSettings,
        base_url: str,
        api_key: SecretStr | None,
        *,
        http: Callable[[], aiohttp.ClientSession],
        block: Block,
    ) -> None:
        self._settings = settings
        self._metrics = EngineMetrics(block, supervised=False)
        status = EngineStatus(
            "attached", base_url, EngineState.starting, since=time.time(), epoch=f"attached:{base_url}"
        )
        self._board = StatusBoard(status, self._metrics, ATTACHED_TABLE)
        self._client = EngineClient(base_url, api_key, http, tls_verify=settings.tls_verify)
        self._inbox = Inbox()
        self._vigil: Vigil | None = None
        self._refused: Failure | None = None
        self._tasks: asyncio.TaskGroup

    @property
    def status(self) -> EngineStatus:
        return self._board.status

    def subscribe(self, callback: Callable[[EngineStatus], None]) -> None:
        """Call back at each change of the status, at once and in the event loop."""
        self._board.subscribe(callback)

    def observe(self, progress: Progress | None, *, now: float, token_at: float | None = None) -> None:
        """A scrape landed, or failed (None), at `now` in monotonic seconds; the gateway's last token came at `token_at`."""
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
        """Ask `/health` once after ready; an engine that is away is looked at more often anyway."""
        if self.status.state in (EngineState.ready, EngineState.unresponsive):
            life = self._inbox.life
            answer = await self._client.health(self._settings.health_timeout)
            self._inbox.post(Probed(life, answer, time.monotonic()))

    def pids(self) -> frozenset[int]:
        """Nothing: the engine's processes are somebody else's, perhaps on another machine."""
        return frozenset()

    def stop(self) -> None:
        """End `run`; the engine stays as it is."""
        self._inbox.ask_stop()

    def state(self) -> dict[str, Any]:
        """Every count, for `restore` in the next daemon. JSON-able."""
        return {"counters": self._metrics.state()}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state` said last; call it before anybody is shown the page."""
        self._metrics.restore(carryover.read(saved).counters)

    async def run(self) -> None:
        """Watch until stopped; the only writer of the state."""
        async with asyncio.TaskGroup() as self._tasks:
            look = self._spawn(self._look(), "engine look")
            while True:
                event = await self._inbox.next()
                if isinstance(event, StopAsked):
                    break
                if isinstance(event, Probed) and self._vigil is None:
                    self._unreachable(event.answer.detail)
                elif isinstance(event, Refused) and self._vigil is None:
                    self._unusable(event.failure)
                elif isinstance(event, Serving) and self._vigil is None:
                    self._reached(event)
                elif self._vigil is not None:
                    self._watched(event, self._vigil)
                    if self._vigil is None:
                        look = self._spawn(self._look(), "engine look")
            look.cancel()
            self._end_vigil()
        if not self._board.move(Event.GONE, {"asked_to_stop": True}, asked=True):
            self._board.update(asked_to_stop=True)

    async def _look(self) -> None:
        """Try until the engine answers and lists a model."""
        patience = self._settings.health_timeout
        life = self._inbox.life
        while True:
            answer = await self._client.health(patience)
            refusal = answer.refusal
            if answer.health is Health.OK:
                listed = await self._client.models(patience)
                if listed.models:
                    self._inbox.post(Serving(life, listed.models))
                    return
                refusal = listed.refusal
            if refusal is not None:
                self._inbox.post(Refused(life, refusal))
            else:
                self._inbox.post(Probed(life, answer, time.monotonic()))
            await asyncio.sleep(LOOK_SECONDS)

    def _unusable(self, failure: Failure) -> None:
        """Something answers, and cannot be used; each new reason is told once."""
        self._board.move(Event.START, health=failure.message)
        self._board.update(last_failure=failure)
        if failure != self._refused:
            self._refused = failure
            told = log.info if failure.retryable else log.warning
            told("engine_not_usable", reason=failure.reason, error=failure.line)

    def _unreachable(self, detail: str) -> None:
        self._refused = None
        failure = Failure("unreachable", f"{self.status.base_url}: {detail}", "", retryable=True)
        changes = {"last_failure": failure, "ready_since": None, "models": ()}
        self._board.move(
            Event.GONE, changes, name="engine_unreachable", url=self.status.base_url, error=detail
        )

    def _reached(self, event: Serving) -> None:
        now = time.monotonic()
        self._refused = None
        self._vigil = Vigil(
            self._inbox.life, self._settings, self._client, self._inbox, self._spawn, self._metrics, now=now
        )
        changes = {"models": event.models, "ready_since": time.time(), "was_ready": True}
        self._board.move(Event.SERVE, changes, url=self.status.base_url, models=list(event.models))

    def _watched(self, event: object, vigil: Vigil) -> None:
        before = vigil.signals
        if isinstance(event, Scraped | Probed | CanaryEnded | Answered | Unanswered):
            vigil.judge(event, self.status.models[0])
        for signal in set(vigil.signals) - set(before):
            self._metrics.stalled(signal)
        if vigil.signals and isinstance(event, Probed) and event.answer.health is Health.REFUSED:
            self._end_vigil()
            self._unreachable(event.answer.detail)
        elif vigil.signals:
            self._board.move(Event.STALL, signals=list(vigil.signals), health=vigil.last_probe or "ok")
        else:
            self._board.move(Event.SERVE)

    def _end_vigil(self) -> None:
        if self._vigil is not None and self._vigil.canary is not None:
            self._vigil.canary.cancel()
        self._vigil = None
        self._inbox.life += 1

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return self._tasks.create_task(work, name=name)
