"""Requests are counted several at once, and nobody can tell."""

from __future__ import annotations

from exporter.exposition.block import Block
from exporter.gateway.measuring.recorder import COUNTED_TOGETHER, Recorder
from exporter.gateway.model import Dialect, Endpoint, Exchange, Outcome
from exporter.settings import SliSettings

CHAT = Endpoint("/v1/chat/completions", Dialect.CHAT, frozenset({"POST"}))


def one(recorder: Recorder) -> None:
    exchange = Exchange(CHAT, "POST", "id", "127.0.0.1", 1.0)
    exchange.model, exchange.backend = "m", "engine"
    recorder.begin(exchange)
    exchange.outcome, exchange.ended, exchange.tries = Outcome.SUCCESS, 2.0, 2
    recorder.end(exchange)


def make() -> Recorder:
    return Recorder(Block(), Block(), SliSettings(), model_limit=9, patience=1.0)


def test_whatever_looks_finds_each_request_counted() -> None:
    for count in (1, COUNTED_TOGETHER - 1, COUNTED_TOGETHER, COUNTED_TOGETHER + 1, 3 * COUNTED_TOGETHER):
        recorder = make()
        before = recorder.version
        for _ in range(count):
            one(recorder)
        assert recorder.version == before + count
        assert recorder.running == 0
        state = recorder.state()
        assert recorder.version == before + count
        assert state["models"][0]["outcomes"]["success"] == count
        assert (state["retries"], state["sent"]) == (count, {"engine": count})


def test_an_interval_has_the_requests_that_ended_in_it() -> None:
    recorder = make()
    recorder.interval(0.0)
    one(recorder)
    recorder.interval(1.0)
    assert sum(recorder.state()["models"][0]["distributions"]["vllm_slo_error_ratio"]["counts"]) == 1
