"""Looking for the engine's processes without making anybody wait. What belongs to it: see test_engine_processes.py."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator

import pytest

from exporter.engine.process import tree
from exporter.engine.process.procfs import Stat, identify, process_table
from exporter.engine.process.tree import EngineTree


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds back the look at all processes, as thousands of them would, until it is set."""
    opened = threading.Event()

    def slow_table() -> dict[int, Stat]:
        assert opened.wait(20)
        return process_table()

    monkeypatch.setattr(tree, "process_table", slow_table)
    yield opened
    opened.set()


async def test_a_full_look_leaves_the_event_loop_and_quick_looks_alone(gate: threading.Event) -> None:
    me = identify(os.getpid())
    assert me is not None
    looked_at = EngineTree(me, our_child=False)
    assert me in looked_at.refresh()
    full = asyncio.create_task(looked_at.refresh_all())
    for _ in range(20):
        await asyncio.sleep(0)
        assert me in looked_at.refresh()
    assert not full.done()
    gate.set()
    async with asyncio.timeout(20):
        assert me in await full
