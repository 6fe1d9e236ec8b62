from __future__ import annotations

import math

from exporter.exposition.block import Block
from exporter.sli.report import Report
from exporter.sli.summary import Summary
from exporter.sli.together import Together

TTFT = (1.0, 2.0, 4.0)
DURATION = (10.0,)


class Engine:
    """A report that is told totals: successes, and the times to first token below 1, 2 and 4 s."""

    def __init__(self) -> None:
        self.report = Report(
            Block(), window=300.0, scrape_interval=1.0, ttft_bounds=TTFT, duration_bounds=DURATION
        )
        self.report.started = True
        self.report.begin(0.0, self.vector(0, (0, 0, 0)))

    def vector(self, success: int, ttft: tuple[int, ...]) -> list[float]:
        took = [success, success, 0.0]
        return [success, 0.0, success, 0.0, 10.0 * success, 0.0, *ttft, ttft[-1], 1.5 * ttft[-1], *took]

    def at(self, now: float, success: int, ttft: tuple[int, ...], running: float) -> None:
        self.report.conclude(now, self.vector(success, ttft), running, 0.0, 0.1, up=True)


def test_quantiles_are_of_all_requests_and_not_of_the_engines_quantiles():
    fast, slow = Engine(), Engine()
    together = Together([fast.report, slow.report], window=300.0)
    fast.at(100.0, 90, (90, 90, 90), 1.0)
    slow.at(100.0, 10, (0, 0, 10), 2.0)
    together.advance(100.0)
    summary = together.summary()
    assert summary.total_requests == 100
    assert summary.requests_per_second == 1.0
    assert (summary.num_running_requests, summary.peak_concurrent_requests) == (3.0, 3.0)
    assert summary.ttft_p50 is not None
    assert summary.ttft_p50 < 1.0
    assert summary.ttft_p95 is not None
    assert math.isclose(summary.ttft_p95, 3.0)  # half of the slow one's, which lie between 2 and 4 s
    assert summary.success_rate_percent == 100.0


def test_the_speed_is_what_all_made_in_an_interval():
    one, other = Engine(), Engine()
    together = Together([one.report, other.report], window=300.0)
    for second in range(1, 4):
        one.at(float(second), second, (second,) * 3, 0.0)
        other.at(float(second), 2 * second, (second,) * 3, 0.0)
        together.advance(float(second))
    assert together.summary().decoding_throughput_mean == 30.0


def test_what_no_engine_knows_is_not_known_and_what_one_knows_counts():
    one, silent = (
        Engine(),
        Report(Block(), window=300.0, scrape_interval=1.0, ttft_bounds=TTFT, duration_bounds=DURATION),
    )
    assert Together([silent], window=300.0).summary() == Summary()
    one.at(10.0, 5, (5, 5, 5), 1.0)
    assert Together([one.report, silent], window=300.0).summary().successful_requests == 5


def test_the_peak_of_all_outlives_the_daemon():
    one, other = Engine(), Engine()
    together = Together([one.report, other.report], window=300.0)
    one.at(1.0, 0, (0, 0, 0), 4.0)
    other.at(1.0, 0, (0, 0, 0), 3.0)
    together.advance(1.0)
    after = Together([Engine().report], window=300.0)
    after.restore(together.state())
    assert after.summary().peak_concurrent_requests == 7.0
    after.restore({"peak": "much"})
    assert after.summary().peak_concurrent_requests == 7.0
