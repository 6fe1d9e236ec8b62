"""Watching a ready engine: feeds scrapes, probes and canaries into the verdicts and keeps what they say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from exporter.engine.events import Answered, CanaryEnded, Inbox, Probed, Scraped, Seen, Unanswered
from exporter.engine.metrics import EngineMetrics
from exporter.engine.output.diagnosis import Failure
from exporter.engine.verdict import hang, health
from exporter.engine.verdict.hang import HangPolicy, Verdict
from exporter.engine.verdict.health import HealthPolicy
from exporter.engine.verdict.probes import EngineClient
from exporter.settings import EngineSettings

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
"""Starts a named task that its caller owns."""


class Vigil:
    """The verdicts on one engine since it became ready. `life` marks the events that it posts."""

    def __init__(
        self,
        life: int,
        settings: EngineSettings,
        client: EngineClient,
        inbox: Inbox,
        spawn: Spawn,
        metrics: EngineMetrics,
        *,
        now: float,
    ) -> None:
        """`now`: monotonic seconds at which the engine became ready."""
        # Inputs come with every probe, and a silent one takes its whole timeout: a longer gap is the daemon's own.
        gap = settings.health_timeout + 4.0 * settings.health_interval
        grace = settings.hang_grace
        self._hang_policy = HangPolicy(settings.hang_timeout, grace, settings.canary_timeout, gap)
        self._health_policy = HealthPolicy(settings.health_failures, settings.health_timeout, grace, gap)
        self._hang = hang.watch_from(now)
        self._health = health.HealthWatch(ready_since=now)
        self._life = life
        self._client = client
        self._inbox = inbox
        self._spawn = spawn
        self._metrics = metrics
        self.canary: asyncio.Task[None] | None = None
        """The canary that is out; whoever owns the vigil cancels it at the end."""
        self.last_probe = ""
        """What the last failed probe met, in words."""

    @property
    def signals(self) -> tuple[str, ...]:
        """What says that the engine is unresponsive now: `no_progress`, `health`, both, or nothing."""
        return ("no_progress",) * self._hang.hung + ("health",) * self._health.down

    def judge(self, event: Seen, model: str) -> None:
        """Take in what was seen; a canary for `model` goes out where the verdict asks for one."""
        match event:
            case Scraped():
                self.scraped(event, model)
            case Probed():
                self.probed(event)
            case CanaryEnded():
                self.canary_ended(event)
            case Answered():
                self._hang, _ = hang.judge_progress(self._hang_policy, self._hang, event.at, event.at)
            case Unanswered():
                self._hang = hang.judge_unanswered(self._hang_policy, self._hang, event.since, event.at)

    def scraped(self, event: Scraped, model: str) -> None:
        """Take in a scrape; a canary for `model` goes out where the verdict asks for one."""
        if event.token_at is not None:
            self._hang, _ = hang.judge_progress(self._hang_policy, self._hang, event.token_at, event.at)
        self._hang, verdict = hang.judge_scrape(self._hang_policy, self._hang, event.progress, event.at)
        if verdict is Verdict.SEND_CANARY:
            self.canary = self._spawn(self._send_canary(model), "engine canary")

    def canary_ended(self, event: CanaryEnded) -> None:
        self._metrics.canary(event.outcome)
        self._hang, _ = hang.judge_canary(
            self._hang_policy, self._hang, event.outcome, event.at, took=event.took
        )

    def probed(self, event: Probed) -> None:
        answer = event.answer
        self._metrics.probed(answer.health, answer.took)
        self._hang = hang.tick(self._hang_policy, self._hang, event.at)
        self._health = health.judge_health(
            self._health_policy,
            self._health,
            answer.health,
            event.at,
            took=answer.took,
            moved_at=self._hang.moved_at,
        )
        self.last_probe = answer.detail

    async def _send_canary(self, model: str) -> None:
        outcome, took = await self._client.canary(model, self._hang_policy.canary_timeout)
        self._inbox.post(CanaryEnded(self._life, outcome, took, time.monotonic()))

    def failure(self, signal: str) -> Failure:
        """What a signal means, in words."""
        if signal == "no_progress":
            seconds = f"{self._hang_policy.timeout:g}"
            message = (
                f"requests made no progress for {seconds} s, and a one-token canary got no answer either"
            )
            return Failure("hang", message, "", retryable=True)
        misses = self._health.misses
        return Failure(
            "health", f"/health failed {misses} times in a row: {self.last_probe}", "", retryable=True
        )
