"""One cycle: what shows after a good page, a bad one, and none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from exporter.errors import ExpositionError, ScrapeError
from exporter.exposition.block import Block
from exporter.exposition.page import Page, PassThroughBlock
from exporter.scrape import cycle, metrics
from exporter.scrape.cycle import Scraper
from exporter.scrape.page import FetchedPage
from exporter.settings import ScrapeSettings, SliSettings
from exporter.sli import Indicators

CAPTURE = (Path(__file__).parents[2] / "data" / "vllm-0.32.0-metrics.txt").read_bytes()


@dataclass
class FakeTarget:
    """An engine as a cycle sees it."""

    epoch: str = "first"
    scrapable: bool = True
    serving: bool = True
    down: bool = False
    metrics_url: URL = field(default_factory=lambda: URL("http://127.0.0.1:1/metrics"))
    headers: dict[str, str] = field(default_factory=dict)


class Parts:
    """A scraper whose fetches are played by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: list[Any] = []
        self.asked: list[str] = []
        self.target = FakeTarget()
        self.block = Block()
        self.passthrough = PassThroughBlock()
        self.heard: list[bool] = []
        self.landed: list[bool] = []
        indicators = Indicators(SliSettings(), self.block, model_limit=8, scrape_interval=1.0)
        self.scraper = Scraper(
            ScrapeSettings(),
            self.target,
            None,  # type: ignore[arg-type]
            self.block,
            self.passthrough,
            indicators,
            after=lambda good, now: self.heard.append(good),
            landed=lambda row, now: self.landed.append(row is not None),
        )
        self.page = Page([self.passthrough, self.block])

        async def fetch(*args: object, **_options: object) -> FetchedPage:
            self.asked.append(str(args[1]))
            answer = self.answers.pop(0)
            if callable(answer):
                answer = answer()
            if isinstance(answer, Exception):
                raise answer
            return FetchedPage(answer, False)

        monkeypatch.setattr(cycle, "fetch_page", fetch)

    async def play(self, *answers: Any) -> str:
        self.answers += answers
        for _ in answers:
            await self.scraper.scrape()
        return self.page.render(openmetrics=False, gzip=False).decode()


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    return Parts(monkeypatch)


def reason(parts: Parts, name: str) -> float | None:
    return parts.block.counter(metrics.ERRORS, name).value


async def test_a_good_page_shows_the_engines_series_and_the_derived_ones_together(parts: Parts):
    text = await parts.play(CAPTURE)
    assert "\nvllm:prompt_tokens_total{" in text
    assert "\nvllm_slo_tokens_total{" in text
    assert "vllm_exporter_scrape_success 1" in text
    assert "vllm_exporter_scrape_samples 427" in text
    assert "_created" not in text
    assert parts.heard == [True]


async def test_an_engine_that_listens_elsewhere_is_asked_there_over_a_connection_of_its_own(parts: Parts):
    await parts.play(CAPTURE, CAPTURE)
    before = parts.scraper._connection
    parts.target.metrics_url = URL("http://127.0.0.1:2/metrics")
    await parts.play(CAPTURE)
    assert parts.asked == ["http://127.0.0.1:1/metrics"] * 2 + ["http://127.0.0.1:2/metrics"]
    assert parts.scraper._connection is not before


async def test_after_a_failed_scrape_nothing_lingers_at_its_last_value(parts: Parts):
    text = await parts.play(CAPTURE, ScrapeError("x: no answer", reason="timeout"))
    assert "\nvllm:" not in text
    assert "\nvllm_slo_requests_running" not in text
    assert "\nvllm_slo_tokens_total{" in text, "totals stay: they are ours"
    assert "vllm_exporter_scrape_success 0" in text
    assert reason(parts, "timeout") == 1
    assert parts.heard == parts.landed == [True, False]


async def test_a_malformed_page_is_an_error_and_shows_nothing_of_itself(parts: Parts):
    text = await parts.play(CAPTURE, CAPTURE + b"half a li{ne\n")
    assert "\nvllm:" not in text
    assert reason(parts, "parse") == 1
    assert "\nvllm:" in await parts.play(CAPTURE)


async def test_a_page_of_our_own_names_makes_no_family_twice(parts: Parts):
    own = b"# TYPE vllm_exporter_scrapes_total counter\nvllm_exporter_scrapes_total 7\n"
    summary = b"# TYPE vllm_ttft_mean gauge\nvllm_ttft_mean 7\n"
    text = await parts.play(CAPTURE + own + summary)
    assert text.count("# TYPE vllm_exporter_scrapes_total counter") == 1
    assert "vllm_ttft_mean 7" not in text
    assert 'vllm_exporter_scrape_series_dropped_total{reason="reserved_name"} 2' in text


async def test_one_failed_scrape_of_an_engine_that_serves_is_not_time_with_the_engine_down(parts: Parts):
    busy = ScrapeError("x: no answer", reason="timeout")
    count = 'vllm_slo_error_ratio_count{model_name="tiny-qwen",source="engine"}'
    assert f"{count} 0" in await parts.play(CAPTURE, busy)
    parts.target.down = True
    assert 'vllm_slo_error_ratio_sum{model_name="tiny-qwen",source="engine"} 1' in await parts.play(busy)


async def test_an_engine_that_cannot_answer_yet_is_not_asked(parts: Parts):
    parts.target.scrapable = False
    await parts.scraper.scrape()
    assert parts.landed == [False], (
        "the cycle ends all the same: what the daemon itself shows is stored with it"
    )
    assert parts.block.counter(metrics.SCRAPES).value == 0
    assert parts.heard == []


async def test_a_page_that_arrives_after_its_engine_died_does_not_stand_for_the_next_one(parts: Parts):
    def died() -> bytes:
        parts.target.epoch = "second"
        return CAPTURE

    text = await parts.play(died)
    assert "\nvllm:" not in text
    assert "\nvllm_slo_tokens_total{" not in text


async def test_a_dead_engines_page_goes_with_the_event_not_with_the_next_scrape(parts: Parts):
    await parts.play(CAPTURE)
    parts.target.scrapable = False
    parts.scraper.engine_changed(None)
    text = parts.page.render(openmetrics=False, gzip=False).decode()
    assert "\nvllm:" not in text
    assert "\nvllm_slo_requests_running{" not in text
    assert "\nvllm_exporter_scrape_success" not in text


async def test_a_scrape_that_waited_for_nothing_counts_for_all_its_intervals(parts: Parts):
    await parts.play(CAPTURE)
    parts.target.down = True
    parts.scraper._failed(ScrapeError("x", reason="timeout"), 1e9, waited=5.02)
    text = parts.page.render(openmetrics=False, gzip=False).decode()
    assert 'vllm_slo_error_ratio_sum{model_name="tiny-qwen",source="engine"} 5' in text


async def test_every_reason_that_a_scrape_can_fail_for_is_a_series_from_the_start(parts: Parts):
    text = await parts.play(CAPTURE)
    for name in metrics.REASONS:
        assert f'vllm_exporter_scrape_errors_total{{reason="{name}"}} 0' in text
    for error in (ExpositionError("x", line=1), ExpositionError("x", reason="sample_limit")):
        assert error.reason in metrics.REASONS
