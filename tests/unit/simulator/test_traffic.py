from __future__ import annotations

import random

import pytest

from exporter.simulator.traffic import BURST_PERIOD, DIURNAL_PERIOD, PATIENCE, draw_call, rate_at


@pytest.mark.parametrize(("pattern", "period"), [("steady", 60.0), ("diurnal", DIURNAL_PERIOD), ("burst", BURST_PERIOD)])  # fmt: skip
def test_each_pattern_keeps_its_mean_over_a_period(pattern: str, period: float) -> None:
    rates = [rate_at(pattern, 3.0, period * i / 6000) for i in range(6000)]
    assert sum(rates) / len(rates) == pytest.approx(3.0, rel=1e-3)
    assert min(rates) > 0


def test_a_burst_comes_at_the_end_of_each_period() -> None:
    assert rate_at("burst", 1.0, 55.0) == pytest.approx(5 * rate_at("burst", 1.0, 10.0))


def test_calls_are_mixed_and_follow_from_the_seed() -> None:
    calls = [draw_call(rng, "m") for rng in [random.Random(5)] for _ in range(400)]
    rng = random.Random(5)
    assert calls == [draw_call(rng, "m") for _ in range(400)]
    assert {call.path for call in calls} == {"/v1/completions", "/v1/chat/completions"}
    assert {call.body["stream"] for call in calls} == {True, False}
    assert any(call.hang_up_after for call in calls)
    assert any(call.vanishes for call in calls)
    assert all(call.hang_up_after for call in calls if call.vanishes)
    assert 0 < sum(call.patience < PATIENCE for call in calls) < 40
    texts = [str(call.body) for call in calls]
    chinese = sum(any("\u4e00" <= c <= "\u9fff" for c in text) for text in texts)
    assert 60 < chinese < 200
    assert len({call.body["max_tokens"] for call in calls}) > 50
