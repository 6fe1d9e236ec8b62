"""Attached mode without a server: what the next daemon goes on with."""

from __future__ import annotations

import aiohttp

from exporter.engine.attached import AttachedEngine
from exporter.exposition.block import Block
from exporter.settings import EngineSettings


def engine(block: Block) -> AttachedEngine:
    def no_http() -> aiohttp.ClientSession:
        raise AssertionError("nothing is asked")

    url = "http://127.0.0.1:1"
    return AttachedEngine(EngineSettings(url=url), url, None, http=no_http, block=block)


def test_the_counts_of_a_watched_engine_go_on_in_the_next_daemon() -> None:
    saved = {"counters": {"vllm_exporter_engine_stalls_total": {"health": 3.0}}}
    block = Block()
    first = engine(block)
    first.restore(saved)
    assert (
        'vllm_exporter_engine_stalls_total{signal="health"} 3\n' in block.render(openmetrics=False).decode()
    )
    assert first.state()["counters"]["vllm_exporter_engine_stalls_total"] == {"health": 3.0}
