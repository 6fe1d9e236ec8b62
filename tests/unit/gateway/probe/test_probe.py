"""The probe over an engine of the test's: whom it asks, when, and what it says of the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from exporter.engine.states import EngineState
from exporter.engine.status import EngineStatus
from exporter.engine.verdict.question import TokenAnswer, TokenOutcome
from exporter.exposition.block import Block
from exporter.gateway.probe.plan import ProbePolicy
from exporter.gateway.probe.probe import Probe
from exporter.settings import SliSettings

GOOD = TokenAnswer(TokenOutcome.SUCCESS, 0.1, 0.1, input_tokens=1, output_tokens=1, status=200)
STALLED = TokenAnswer(TokenOutcome.TIMEOUT, 10.0, detail="no token within 10 s")


@dataclass(frozen=True)
class Page:
    running: float | None = 0.0
    waiting: float | None = 0.0
    counter: float | None = 7.0


class World:
    """An engine, its page once a second, and the probe; a question takes as long as its answer says."""

    def __init__(self, *, gateway: bool = True) -> None:
        self.now = 0.0
        self.status = EngineStatus(
            "attached", "http://e", EngineState.ready, epoch="e", ready_since=1.0, models=("m",)
        )
        self.answers: list[TokenAnswer] = []
        self.asked: list[tuple[float, str]] = []
        self.said: list[str] = []
        self.own: list[tuple[int, int]] = []
        self.page: Page | None = Page()
        self.in_flight = 0
        self.token_at: float | None = None
        self.meanwhile: Callable[[], None] = lambda: None
        """Happens while a question is out."""
        self.holds = asyncio.Event()
        self.holds.set()
        self.block = Block()
        self.probe = Probe(
            ProbePolicy(30.0, 10.0),
            self,
            self.block,
            SliSettings(),
            in_flight=(lambda: self.in_flight) if gateway else None,
            token_at=lambda: self.token_at,
            own_work=lambda given, made: self.own.append((given, made)),
            clock=lambda: self.now,
            page_patience=0.0,
        )

    def subscribe(self, callback: Callable[[EngineStatus], None]) -> None:
        self.tell = callback

    async def ask(self, prompt: str, timeout: float) -> TokenAnswer:
        self.asked.append((self.now, prompt))
        await self.holds.wait()
        answer = self.answers.pop(0) if self.answers else GOOD
        self.now += answer.took
        self.meanwhile()
        self.probe.page_landed(self.page, self.now)
        return answer

    def answered(self, now: float) -> None:
        self.said.append("answered")

    def unanswered(self, since: float, now: float) -> None:
        self.said.append(f"unanswered since {since:g} at {now:g}")

    async def live(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += 1.0
            self.probe.page_landed(self.page, self.now)
            await self.probe.tick()

    @property
    def verdict(self) -> float | None:
        lines = self.block.render(openmetrics=False).decode().splitlines()
        found = [line for line in lines if line.startswith("vllm_slo_probe_success{")]
        return float(found[0].rpartition(" ")[2]) if found else None


async def test_an_idle_engine_is_asked_once_per_interval_and_told_to_work() -> None:
    world = World()
    await world.live(95)
    assert len(world.asked) == 3
    assert world.said == ["answered"] * 3
    assert world.own == [(1, 1)] * 3
    assert world.verdict == 1


async def test_a_busy_engine_is_not_asked() -> None:
    world = World()
    world.in_flight = 1
    await world.live(200)
    assert world.asked == []


async def test_without_a_gateway_the_page_tells_of_traffic() -> None:
    world = World(gateway=False)
    for count in range(100):
        world.page = Page(counter=float(count))
        await world.live(1)
    assert world.asked == []
    await world.live(31)
    assert len(world.asked) == 1


async def test_a_question_that_stalls_is_followed_by_another_and_two_are_said() -> None:
    world = World()
    world.answers = [STALLED, STALLED]
    await world.live(31)
    assert [prompt for _, prompt in world.asked] == ["1", "Hi"]
    assert world.said == ["unanswered since 31 at 51"]
    assert world.verdict == 0


async def test_a_second_question_that_is_answered_clears_the_first() -> None:
    world = World()
    world.answers = [STALLED, GOOD]
    await world.live(31)
    assert len(world.asked) == 2
    assert world.said == ["answered"]
    assert world.verdict == 1


async def test_counters_that_move_while_the_question_waits_make_the_engine_busy() -> None:
    world = World()
    world.answers = [STALLED]
    world.meanwhile = lambda: setattr(world, "page", Page(counter=8.0))
    await world.live(31)
    assert len(world.asked) == 1
    assert world.said == []
    await world.live(29)
    assert len(world.asked) == 1, "being busy is traffic"


async def test_users_tokens_at_the_gateway_make_the_engine_busy_though_its_page_stands_still() -> None:
    world = World()
    world.answers = [STALLED]
    world.meanwhile = lambda: setattr(world, "token_at", world.now)
    await world.live(31)
    assert len(world.asked) == 1
    assert world.said == []


async def test_a_refusal_of_the_server_says_nothing_about_the_engine() -> None:
    world = World()
    world.answers = [TokenAnswer(TokenOutcome.REJECTED, 0.1, status=503)]
    await world.live(31)
    assert len(world.asked) == 1
    assert world.said == []


async def test_an_engine_known_to_hang_is_asked_once_each_time_until_it_answers() -> None:
    world = World()
    world.status = replace(world.status, state=EngineState.unresponsive)
    world.answers = [STALLED]
    await world.live(31)
    assert len(world.asked) == 1
    assert world.said == []
    await world.live(30)
    assert world.said == ["answered"]


async def test_a_model_that_cannot_be_asked_is_left_alone_until_the_engine_starts_again() -> None:
    world = World()
    world.answers = [TokenAnswer(TokenOutcome.CLIENT_ERROR, 0.1, status=404)]
    await world.live(200)
    assert len(world.asked) == 1
    assert world.verdict is None
    world.status = replace(world.status, epoch="f", models=("other",))
    await world.live(31)
    assert len(world.asked) == 2


async def test_an_engine_that_is_not_ready_is_not_asked_and_has_no_verdict() -> None:
    world = World()
    await world.live(31)
    assert world.verdict == 1
    for state in (EngineState.loading, EngineState.draining, EngineState.stopped):
        world.status = replace(world.status, state=state)
        await world.live(100)
        assert len(world.asked) == 1
        assert world.verdict is None


async def test_an_answer_of_an_engine_that_is_gone_says_nothing_of_its_successor() -> None:
    world = World()
    world.answers = [STALLED, STALLED]
    world.meanwhile = lambda: setattr(world, "status", replace(world.status, epoch="f", ready_since=2.0))
    await world.live(31)
    assert len(world.asked) == 1
    assert world.said == []


async def test_an_engine_that_is_to_stop_does_not_wait_for_our_question() -> None:
    world = World()
    await world.live(30)
    world.holds.clear()
    waiting = asyncio.create_task(world.live(1))
    while not world.asked:
        await asyncio.sleep(0)
    world.status = replace(world.status, state=EngineState.draining)
    world.tell(world.status)
    async with asyncio.timeout(5):
        await waiting
    assert world.said == []
    assert world.verdict is None


async def test_failures_are_told_once_and_so_is_their_end() -> None:
    world = World()
    world.answers = [STALLED] * 6
    with structlog.testing.capture_logs() as logs:
        await world.live(200)
    assert [entry["event"] for entry in logs] == ["probe_failed", "probe_recovered"]
    assert logs[0]["outcome"] == "timeout"


async def test_the_verdict_of_the_last_probe_goes_when_users_have_taken_over() -> None:
    world = World()
    await world.live(31)
    world.in_flight = 3
    await world.live(60)
    assert world.verdict == 1
    await world.live(30)
    assert world.verdict is None
