from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, NamedTuple

from exporter.engine.events import Answered, CanaryEnded, Inbox, Probed, Scraped, Unanswered
from exporter.engine.metrics import EngineMetrics
from exporter.engine.verdict.hang import CanaryOutcome
from exporter.engine.verdict.health import Health
from exporter.engine.verdict.probes import EngineClient, HealthAnswer
from exporter.engine.verdict.vigil import Vigil
from exporter.exposition.block import Block
from exporter.settings import EngineSettings


class Page(NamedTuple):
    running: float
    waiting: float
    counter: float


STUCK = Page(3.0, 2.0, 7.0)


class NoEngine(EngineClient):
    """Remembers whom the canary was sent to, and fails it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def canary(self, model: str, timeout: float) -> tuple[CanaryOutcome, float]:
        self.asked.append(model)
        return CanaryOutcome.FAILED, timeout


class Watched:
    def __init__(self) -> None:
        self.client = NoEngine()
        self.inbox = Inbox()
        self.inbox.life = 4
        settings = EngineSettings(hang_timeout=10.0, hang_grace=0.0, health_failures=2)
        metrics = EngineMetrics(Block(), supervised=True)
        self.vigil = Vigil(4, settings, self.client, self.inbox, self.spawn, metrics, now=0.0)
        self.now = 0.0

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        return asyncio.create_task(work, name=name)

    def scrape(self, page: Page, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.vigil.scraped(Scraped(page, self.now), "base")

    def probe(self, health: Health) -> None:
        self.now += 5.0
        self.vigil.probed(Probed(4, HealthAnswer(health, "status 503", 0.1), self.now))

    async def canary(self) -> None:
        event = await self.inbox.next()
        assert isinstance(event, CanaryEnded)
        self.vigil.canary_ended(replace(event, at=self.now))  # the test's clock, not the real one


async def test_a_hang_is_called_by_one_canary_to_the_first_model() -> None:
    watched = Watched()
    watched.scrape(STUCK, 30)
    await watched.canary()
    assert watched.client.asked == ["base"]
    assert watched.vigil.signals == ("no_progress",)
    failure = watched.vigil.failure("no_progress")
    assert (failure.reason, failure.retryable) == ("hang", True)
    assert "10 s" in failure.message


async def test_both_signals_may_stand_at_once_and_each_goes_by_itself() -> None:
    watched = Watched()
    watched.scrape(STUCK, 12)
    for _ in range(2):
        watched.probe(Health.ERROR)
    await watched.canary()
    assert watched.vigil.signals == ("no_progress", "health")
    watched.probe(Health.OK)
    assert watched.vigil.signals == ("no_progress",)
    watched.scrape(STUCK._replace(counter=8.0), 1)
    assert watched.vigil.signals == ()


async def test_failing_health_is_told_with_its_count_and_what_it_met() -> None:
    watched = Watched()
    for _ in range(2):
        watched.probe(Health.ERROR)
    failure = watched.vigil.failure("health")
    assert failure.reason == "health"
    assert failure.message == "/health failed 2 times in a row: status 503"


IDLE = Page(0.0, 0.0, 7.0)


async def test_an_engine_that_nobody_asks_is_called_hung_by_questions_of_our_own() -> None:
    watched = Watched()
    watched.scrape(IDLE, 30)
    watched.vigil.judge(Unanswered(4, since=20.0, at=30.0), "base")
    watched.scrape(IDLE, 1)
    await watched.canary()
    assert watched.vigil.signals == ("no_progress",)
    watched.vigil.judge(Answered(4, at=32.0), "base")
    assert watched.vigil.signals == ()


async def test_a_users_token_at_the_gateway_stands_for_a_canary() -> None:
    watched = Watched()
    for _ in range(60):
        watched.now += 1.0
        watched.vigil.judge(Scraped(STUCK, watched.now, token_at=watched.now - 0.5), "base")
    assert watched.client.asked == []
    assert watched.vigil.canary is None


async def test_requests_at_the_gateway_are_demand_though_the_page_shows_none() -> None:
    """A wedged engine has been seen with 0 running and 0 waiting while users waited."""
    watched = Watched()
    watched.scrape(IDLE, 20)
    watched.scrape(Page(0.0, 3.0, 7.0), 12)
    await watched.canary()
    assert watched.vigil.signals == ("no_progress",)
