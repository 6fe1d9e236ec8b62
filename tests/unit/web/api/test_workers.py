from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from exporter.promql.model import QueryError
from exporter.web.api.model import ApiError
from exporter.web.api.workers import Abandoned, RequestBudget, Workers


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers(1, name="test", queue_limit=2)
    yield workers
    workers.close()


class Work:
    """Work that goes on until it is let go, or its budget ends."""

    def __init__(self) -> None:
        self.begun, self.free, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.error: BaseException | None = None

    def __call__(self, budget: RequestBudget) -> str:
        self.begun.set()
        try:
            while not self.free.wait(0.001):
                budget.spend(0)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended.set()
        return "done"


async def run(workers: Workers, work: Work, within: float = 60.0) -> str:
    return await workers.run(work, samples=1000, within=within)


async def begun(work: Work) -> None:
    assert await asyncio.to_thread(work.begun.wait, 10)


async def test_work_is_done_in_a_thread(workers: Workers) -> None:
    name = await workers.run(lambda _budget: threading.current_thread().name, samples=1, within=60)
    assert name.startswith("test")


async def test_more_work_than_places_waits_and_too_much_is_turned_away(workers: Workers) -> None:
    first, others = Work(), [Work(), Work()]
    running = [asyncio.create_task(run(workers, first))]
    await begun(first)
    running += [asyncio.create_task(run(workers, work)) for work in others]
    await asyncio.sleep(0)
    assert (workers.running, workers.waiting) == (1, 2)
    with pytest.raises(ApiError, match="2 queries wait already") as refused:
        await run(workers, Work())
    assert refused.value.status == 503
    for work in (first, *others):
        work.free.set()
    assert await asyncio.gather(*running) == ["done"] * 3
    await asyncio.sleep(0)
    assert (workers.running, workers.waiting) == (0, 0)


async def test_time_in_the_queue_counts(workers: Workers) -> None:
    first = Work()
    running = asyncio.create_task(run(workers, first))
    await begun(first)
    with pytest.raises(ApiError, match=r"timed out after 0\.01 s in query queue") as late:
        await run(workers, Work(), within=0.01)
    assert (late.value.kind, late.value.status) == ("timeout", 503)
    first.free.set()
    assert await running == "done"


async def test_work_that_takes_too_long_ends_itself(workers: Workers) -> None:
    work = Work()
    with pytest.raises(ApiError, match="timed out") as late:
        await run(workers, work, within=0.02)
    assert late.value.kind == "timeout"
    assert isinstance(work.error, QueryError)


async def test_a_client_that_goes_away_gives_its_place_back(workers: Workers) -> None:
    work = Work()
    running = asyncio.create_task(run(workers, work))
    await begun(work)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(work.ended.wait, 10)
    assert isinstance(work.error, Abandoned)
    assert await workers.run(lambda _budget: 7, samples=1, within=60) == 7


async def test_a_client_that_goes_away_while_it_waits_leaves_the_queue(workers: Workers) -> None:
    first = Work()
    running = asyncio.create_task(run(workers, first))
    await begun(first)
    waiting = asyncio.create_task(run(workers, Work()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert workers.waiting == 0
    first.free.set()
    assert await running == "done"


async def test_what_a_query_refuses_is_the_answer(workers: Workers) -> None:
    def work(budget: RequestBudget) -> None:
        budget.spend(11)

    with pytest.raises(ApiError, match="too many samples") as refused:
        await workers.run(work, samples=10, within=60)
    assert refused.value.status == 422


async def test_after_the_end_nothing_is_begun(workers: Workers) -> None:
    workers.close()
    with pytest.raises(ApiError, match="stopping"):
        await run(workers, Work())
    assert workers.running == 0
