"""Jobs in threads: in order while they are prompt, beside each other where one is slow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from exporter.alerting.aside import Aside
from exporter.alerting.workers import Workers


class Crew:
    """Jobs are texts; one that begins with `slow` waits until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.began: list[str] = []
        self.changes = 0
        self.changed = asyncio.Event()
        self.workers: Workers[str, str] = Workers(self.do, self.note)

    def do(self, job: str) -> str:
        self.began.append(job)
        if job.startswith("slow"):
            assert self.go.wait(60)
        if job == "bad":
            raise ValueError(job)
        return job.upper()

    def note(self) -> None:
        self.changes += 1
        self.changed.set()

    async def rest(self) -> None:
        """Wait until no job is left."""
        while self.workers.unfinished():
            await asyncio.wait_for(self.changed.wait(), 30)
            self.changed.clear()


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew()
    yield crew
    crew.go.set()
    assert crew.workers.close(30)


async def test_prompt_jobs_are_done_in_order_by_one_thread_and_told_of_once(crew: Crew) -> None:
    crew.workers.add(list("abcdef"), [])
    await crew.rest()
    assert crew.began == list("abcdef")
    assert [done.result for done in crew.workers.collect()] == list("ABCDEF")
    assert len(crew.workers._threads) == 1
    await asyncio.sleep(0)
    assert crew.changes == 1


async def test_another_thread_takes_the_rest_from_a_job_that_keeps_one_busy(crew: Crew) -> None:
    crew.workers.add(["slow", "a", "b"], [])
    while not crew.workers.set_aside(0.0):
        await asyncio.sleep(0.001)
    while crew.workers.waiting() or crew.workers.prompt_at_work():
        await asyncio.sleep(0.001)
    assert [done.job for done in crew.workers.collect()] == ["a", "b"]
    assert crew.workers.unfinished() == ["slow"]
    crew.go.set()
    await crew.rest()
    assert [done.job for done in crew.workers.collect()] == ["slow"]


async def test_slow_jobs_leave_a_thread_for_prompt_ones(crew: Crew) -> None:
    crew.workers.add([], [f"slow{n}" for n in range(9)])
    for name in ("a", "b"):
        crew.workers.add([name], [])
        while crew.workers.prompt_at_work():
            await asyncio.sleep(0.001)
    assert [done.job for done in crew.workers.collect()] == ["a", "b"]
    while sum(job.startswith("slow") for job in crew.began) < 3:
        await asyncio.sleep(0.001)
    assert len(crew.began) == 5
    assert len(crew.workers._threads) == 4
    crew.go.set()
    await crew.rest()
    assert len(crew.workers.collect()) == 9


async def test_what_a_job_runs_into_is_its_result_and_the_thread_goes_on(crew: Crew) -> None:
    crew.workers.add(["bad", "good"], [])
    await crew.rest()
    bad, good = crew.workers.collect()
    assert isinstance(bad.error, ValueError)
    assert good.result == "GOOD"


async def test_the_end_does_not_wait_for_ever_and_begins_nothing_more(crew: Crew) -> None:
    crew.workers.add(["slow", "a"], [])
    while not crew.began:
        await asyncio.sleep(0.001)
    assert not crew.workers.close(0.0)
    crew.go.set()
    assert crew.workers.close(30)
    assert crew.began == ["slow"]


async def test_a_call_aside_gives_its_result_or_its_error() -> None:
    def fail() -> None:
        raise KeyError("x")

    call = Aside(lambda: 5, name="test")
    assert await call.result == 5
    assert not call.at_work
    with pytest.raises(KeyError):
        await Aside(fail, name="test").result


async def test_a_call_aside_may_be_given_up() -> None:
    go = threading.Event()
    call = Aside(lambda: go.wait(60), name="test")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await call.result
    assert call.at_work
    go.set()
