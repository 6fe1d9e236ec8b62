from __future__ import annotations

import pytest

from exporter.engine.verdict.health import Health, HealthPolicy, HealthWatch, judge_health

POLICY = HealthPolicy(failures=3, timeout=10.0, grace=60.0, gap=30.0)


def judged(
    *healths: Health, start: float = 100.0, took: float = 10.0, moved_at: float | None = None
) -> HealthWatch:
    watch = HealthWatch(ready_since=0.0)
    for number, health in enumerate(healths):
        watch = judge_health(POLICY, watch, health, start + 15.0 * number, took=took, moved_at=moved_at)
    return watch


@pytest.mark.parametrize("miss", [Health.SILENT, Health.REFUSED, Health.ERROR])
def test_three_misses_in_a_row_are_enough_and_two_are_not(miss: Health) -> None:
    assert not judged(miss, miss).down
    assert judged(miss, miss, miss).down


def test_a_good_answer_between_misses_starts_the_count_again() -> None:
    bad = Health.ERROR
    assert not judged(bad, bad, Health.OK, bad, bad).down


def test_a_good_answer_brings_the_engine_back() -> None:
    bad = Health.REFUSED
    watch = judged(bad, bad, bad, Health.OK)
    assert (watch.down, watch.misses) == (False, 0)


def test_silence_is_forgiven_while_the_first_requests_compile_but_a_dead_port_is_not() -> None:
    silent, refused = Health.SILENT, Health.REFUSED
    assert not judged(silent, silent, silent, silent, start=0.0).down
    assert judged(refused, refused, refused, start=0.0).down


def test_a_silent_engine_whose_counters_moved_meanwhile_is_busy_not_dead() -> None:
    watch = HealthWatch(ready_since=0.0, misses=2)
    busy = judge_health(POLICY, watch, Health.SILENT, 200.0, took=10.0, moved_at=191.0)
    assert (busy.down, busy.misses) == (False, 0)
    idle = judge_health(POLICY, watch, Health.SILENT, 200.0, took=10.0, moved_at=150.0)
    assert idle.down


def test_a_probe_that_the_daemon_slept_through_says_nothing() -> None:
    watch = HealthWatch(ready_since=0.0, misses=2)
    assert judge_health(POLICY, watch, Health.SILENT, 4000.0, took=3600.0, moved_at=None) == watch
