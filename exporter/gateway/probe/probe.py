"""Asks an engine without traffic for a token now and then: how fast is it, and does it work at all."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import structlog

from exporter.engine.states import EngineState
from exporter.engine.status import EngineStatus
from exporter.engine.verdict.hang import Progress
from exporter.engine.verdict.question import TokenAnswer
from exporter.exposition.block import Block
from exporter.gateway.probe import plan
from exporter.gateway.probe.measures import ProbeMeasures
from exporter.gateway.probe.plan import Finding, ProbePolicy
from exporter.settings import SliSettings

log = structlog.get_logger(__name__)

PAGE_SECONDS = 2.0
"""Longest wait for a page to land right before a probe: what the next one has gained is then the probe's."""


class Asked(Protocol):
    """The engine, as far as the probe must know it."""

    @property
    def status(self) -> EngineStatus: ...
    def subscribe(self, callback: Callable[[EngineStatus], None]) -> None: ...
    async def ask(self, prompt: str, timeout: float) -> TokenAnswer: ...  # noqa: ASYNC109
    def answered(self, now: float) -> None: ...
    def unanswered(self, since: float, now: float) -> None: ...


class Probe:
    """One engine's probe; event loop only. It goes to the engine itself, past the gateway's queue, limits and counts.

    `in_flight`: the requests that the gateway has at the engine; None without a gateway. `token_at`: when it last saw a
    token of theirs. `own_work` is told of each probe that was answered: its tokens in and out.
    """

    def __init__(
        self,
        policy: ProbePolicy,
        engine: Asked,
        block: Block,
        settings: SliSettings,
        *,
        in_flight: Callable[[], int] | None = None,
        token_at: Callable[[], float | None] = lambda: None,
        own_work: Callable[[int, int], None] = lambda input_tokens, output_tokens: None,
        clock: Callable[[], float] = time.monotonic,
        page_patience: float = PAGE_SECONDS,
    ) -> None:
        self._policy = policy
        self._engine = engine
        self._measures = ProbeMeasures(block, settings)
        self._in_flight = in_flight
        self._token_at = token_at
        self._own_work = own_work
        self._clock = clock
        self._page_patience = page_patience
        self._quiet = plan.Quiet(clock())
        self._page = asyncio.Event()
        self._incarnation: tuple[object, ...] | None = None
        self._unsupported = False
        self._failing = ""
        self._question: asyncio.Task[TokenAnswer] | None = None
        engine.subscribe(self._engine_changed)

    def page_landed(self, progress: Progress | None, now: float, *, asleep: bool = False) -> None:
        """The engine's page was read, or could not be (None); `now` in monotonic seconds. A sleeping engine is not asked."""
        self._quiet = plan.landed(self._quiet, progress, now, asleep=asleep)
        self._page.set()

    async def tick(self) -> None:
        """Look whether a probe is due, and if so, make it; call it every second. Never raises for what an engine does."""
        now = self._clock()
        incarnation = self._present()
        if incarnation != self._incarnation:
            self._incarnation, self._unsupported, self._failing = incarnation, False, ""
            self._quiet = plan.Quiet(now, counter=self._quiet.counter)
            self._measures.fade()
        if incarnation is None or self._unsupported:
            return
        self._measures.expect(self._engine.status.models[0])
        if not self._is_due():
            if plan.fades(self._policy, self._quiet, now):
                self._measures.fade()
            return
        self._page.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._page_patience):
                await self._page.wait()
        if self._present() == incarnation and self._is_due():
            await self._probe(incarnation)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, JSON-able."""
        return self._measures.state()

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what the daemon before saved; before anybody is shown the page."""
        self._measures.restore(saved)

    @property
    def version(self) -> int:
        """Rises whenever a total changes."""
        return self._measures.version

    def _present(self) -> tuple[object, ...] | None:
        """Names the engine that can be asked now, until it starts again; None without one."""
        status = self._engine.status
        if status.state not in (EngineState.ready, EngineState.unresponsive) or not status.models:
            return None
        return status.epoch, status.ready_since, status.models[0]

    def _is_due(self) -> bool:
        now = self._clock()
        if self._in_flight is not None:
            self._quiet = plan.looked(self._quiet, self._in_flight(), now)
        return plan.due(self._policy, self._quiet, now, gateway=self._in_flight is not None)

    async def _probe(self, incarnation: tuple[object, ...]) -> None:
        """Ask; when that goes unanswered and nothing moves, ask something else; then say what was found."""
        began, counter = self._clock(), self._quiet.counter
        self._quiet = plan.asked(self._quiet)
        finding = Finding.REFUSED
        try:
            for question in plan.QUESTIONS:
                answer = await self._ask(question)
                if answer is None or self._present() != incarnation:
                    return
                self._take(answer)
                finding = plan.judge(answer, moved=self._moved(counter, began))
                known_to_hang = self._engine.status.state is EngineState.unresponsive
                if finding is not Finding.DOUBTFUL or known_to_hang:
                    break
        finally:
            now = self._clock()
            self._quiet = plan.ended(self._quiet, now, busy=finding is Finding.BUSY)
        if finding is Finding.WORKS:
            self._engine.answered(now)
        elif finding is Finding.DOUBTFUL and not known_to_hang:
            self._engine.unanswered(began, now)

    async def _ask(self, prompt: str) -> TokenAnswer | None:
        """The answer; None when the engine ends, or drains, meanwhile: it is not to wait for us."""
        question = self._question = asyncio.create_task(self._engine.ask(prompt, self._policy.timeout))
        try:
            await asyncio.wait({question})
        finally:
            question.cancel()
            self._question = None
        return None if question.cancelled() else question.result()

    def _engine_changed(self, _status: EngineStatus) -> None:
        if self._question is not None and self._present() is None:
            self._question.cancel()

    def _moved(self, counter: float | None, began: float) -> bool:
        """Whether the engine did anything since then."""
        token_at, present = self._token_at(), self._quiet.counter
        flowed = token_at is not None and token_at >= began
        return flowed or (counter is not None and present is not None and present != counter)

    def _take(self, answer: TokenAnswer) -> None:
        model = self._engine.status.models[0]
        self._measures.take(model, answer)
        if answer.unsupported:
            self._unsupported = True
            self._measures.fade()
            log.info("probe_off", model=model, reason="the engine has no way to ask this model for a token")
            return
        failed = "" if answer.outcome == "success" else answer.outcome.value
        if failed and failed != self._failing:
            log.warning(
                "probe_failed",
                model=model,
                outcome=failed,
                error=answer.detail,
                seconds=round(answer.took, 3),
            )
        elif self._failing and not failed:
            log.info("probe_recovered", model=model, seconds=round(answer.took, 3))
        self._failing = failed
        if not failed and answer.input_tokens is not None:
            self._own_work(answer.input_tokens, answer.output_tokens or 0)
