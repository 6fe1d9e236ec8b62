"""The store, the rules and the sample file together, without a daemon around them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from exporter.exposition.block import Block
from exporter.exposition.model import Family
from exporter.monitor import ROUND_SECONDS, Monitor
from exporter.settings import load_settings
from exporter.storage.archive import Archive

UP = Family("vllm_exporter_engine_up", "gauge", "Up.")
START = 1_790_000_000.0


class Keeper:
    """Stands for the file of totals; `sync` waits until it is let go."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.go = asyncio.Event()

    def save(self) -> None:
        self.calls.append("save")

    async def sync(self) -> None:
        self.calls.append("sync")
        await self.go.wait()


def monitor(keeper: Keeper, block: Block, *, engines: tuple[str, ...] = ("",), **settings: object) -> Monitor:
    return Monitor(
        load_settings({"rules.builtin": False, **settings}, environ={}),
        (block,),
        daemon=block,
        instance="box:9108",
        external_url="http://box:9108",
        reserved=(),
        refresh=lambda _costly: None,
        keeper=keeper,  # type: ignore[arg-type]
        engines=engines,
    )


@pytest.fixture
def block() -> Block:
    block = Block()
    block.gauge(UP).set(1.0)
    return block


def samples_on_disk(path: Path) -> int:
    archive = Archive.open(path)
    try:
        return sum(len(batch.times) for batch in archive.load() if batch.stream == "exporter")
    finally:
        archive.close()


async def test_a_flush_that_is_cancelled_loses_no_sample(tmp_path: Path, block: Block):
    keeper = Keeper()
    watched = monitor(keeper, block)
    await watched.start(tmp_path)
    for second in range(5):
        watched.landed(None, START + second)
    flush = asyncio.create_task(watched.flush())
    while "sync" not in keeper.calls:
        await asyncio.sleep(0)
    flush.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flush
    keeper.go.set()
    await watched.stop()
    assert samples_on_disk(tmp_path / "samples.db") == 5


async def test_totals_are_saved_before_samples_are_handed_to_the_disk(tmp_path: Path, block: Block):
    keeper = Keeper()
    keeper.go.set()
    watched = monitor(keeper, block)
    await watched.start(tmp_path)
    watched.landed(None, START)
    await watched.flush()
    assert keeper.calls == ["save", "sync"]
    assert samples_on_disk(tmp_path / "samples.db") == 1
    await watched.stop()


async def test_without_persistence_nothing_is_written_but_the_totals(tmp_path: Path, block: Block):
    keeper = Keeper()
    keeper.go.set()
    watched = monitor(keeper, block, **{"storage.persist": False})
    await watched.start(tmp_path)
    watched.landed(None, START)
    await watched.flush()
    await watched.stop()
    assert "sync" in keeper.calls
    assert not list(tmp_path.iterdir())


async def test_a_clock_that_was_set_back_does_not_make_the_store_deaf(tmp_path: Path, block: Block):
    keeper = Keeper()
    keeper.go.set()
    watched = monitor(keeper, block)
    await watched.start(tmp_path)
    for second in (0, 1, 2, 3600, 3601, 3, 4):
        watched.landed(None, START + second)
    stats = watched.head.stats()
    assert stats.dropped["clock_step"] > 0
    assert stats.dropped["out_of_order"] == 0
    await watched.flush()
    await watched.stop()
    assert samples_on_disk(tmp_path / "samples.db") == 5


def rows(watched: Monitor) -> list[int]:
    """The times, in seconds since START, at which the daemon's own series were stored."""
    return [round(at / 1000 - START, 3) for at in watched.head.stream("exporter").stamps.tolist()]


async def test_of_several_engines_the_last_one_to_land_makes_the_round(tmp_path: Path, block: Block):
    keeper = Keeper()
    keeper.go.set()
    watched = monitor(keeper, block, engines=("a", "b"))
    await watched.start(tmp_path)
    for second in (0, 1):
        watched.landed(None, START + second, "a")
        watched.landed(None, START + second + 0.01, "b")
    assert rows(watched) == [0.01, 1.01]
    await asyncio.sleep(ROUND_SECONDS * 2)
    assert rows(watched) == [0.01, 1.01]  # nobody is waited for
    await watched.stop()


async def test_an_engine_that_hangs_does_not_hold_up_what_the_others_show(tmp_path: Path, block: Block):
    keeper = Keeper()
    keeper.go.set()
    watched = monitor(keeper, block, engines=("a", "b"))
    await watched.start(tmp_path)
    watched.landed(None, START, "a")
    assert rows(watched) == []
    await asyncio.sleep(ROUND_SECONDS * 3)
    assert rows(watched) == [ROUND_SECONDS]
    watched.landed(None, START + 0.4, "b")  # late: no row for it alone
    await asyncio.sleep(ROUND_SECONDS * 3)
    assert rows(watched) == [ROUND_SECONDS]
    watched.landed(None, START + 1, "a")
    assert rows(watched) == [ROUND_SECONDS, 1.0]
    await watched.stop()


async def test_each_engines_state_is_an_event_of_its_own(tmp_path: Path, block: Block):
    keeper = Keeper()
    keeper.go.set()
    watched = monitor(keeper, block, engines=("a", "b"))
    await watched.start(tmp_path)
    for state, engine in (("ready", "a"), ("ready", "b"), ("ready", "a"), ("backoff", "b")):
        watched.engine_is(state, engine)
        await asyncio.sleep(0.002)
    assert len(rows(watched)) == 3
    await watched.stop()
