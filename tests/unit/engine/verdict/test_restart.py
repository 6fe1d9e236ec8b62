from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.engine.verdict.restart import RestartHistory, RestartPlan, RestartPolicy, plan_restart

POLICY = RestartPolicy(delay=1.0, delay_max=60.0, stable_after=600.0, crash_limit=5, crash_window=600.0)
PATIENT = RestartPolicy(delay=1.0, delay_max=60.0, stable_after=600.0, crash_limit=100, crash_window=600.0)


def crash(
    policy: RestartPolicy,
    history: RestartHistory,
    now: float,
    ready_for: float | None = 30.0,
    jitter: float = 0.0,
) -> RestartPlan:
    return plan_restart(policy, history, now=now, ready_for=ready_for, jitter=jitter)


def test_the_delay_doubles_with_each_crash_up_to_its_limit() -> None:
    history, delays = RestartHistory(), []
    for number in range(9):
        plan = crash(PATIENT, history, now=float(number))
        history = plan.history
        delays.append(plan.delay)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_jitter_shortens_the_delay_by_a_fifth_at_most() -> None:
    assert crash(PATIENT, RestartHistory(streak=3), 0.0, jitter=0.5).delay == pytest.approx(7.2)


@given(streak=st.integers(0, 10_000), jitter=st.floats(0, 1, exclude_max=True))
def test_the_delay_stays_within_its_setting_however_often_the_engine_crashed(
    streak: int, jitter: float
) -> None:
    delay = crash(PATIENT, RestartHistory(streak=streak), 0.0, jitter=jitter).delay
    assert delay is not None
    assert 0.8 <= delay <= 60.0


def test_a_stable_run_makes_the_delay_small_again() -> None:
    history = RestartHistory(streak=6)
    assert crash(PATIENT, history, 0.0, ready_for=599.0).delay == 60.0
    plan = crash(PATIENT, history, 0.0, ready_for=600.0)
    assert (plan.delay, plan.history.streak) == (1.0, 1)


def test_the_fifth_crash_within_the_window_ends_it() -> None:
    history = RestartHistory()
    for number in range(4):
        plan = crash(POLICY, history, now=100.0 * number)
        assert plan.delay is not None
        history = plan.history
    plan = crash(POLICY, history, now=400.0)
    assert plan.delay is None
    assert plan.because == "5 crashes within 600 s"


def test_crashes_older_than_the_window_are_forgotten() -> None:
    history = RestartHistory()
    for number in range(50):
        plan = crash(POLICY, history, now=160.0 * number)
        assert plan.delay is not None
        history = plan.history
    assert len(history.crashes) == 4


def test_a_slow_loader_that_never_gets_ready_is_given_up_although_its_crashes_are_far_apart() -> None:
    history, plans = RestartHistory(), []
    for number in range(5):
        plans.append(crash(POLICY, history, now=1000.0 * number, ready_for=None))
        history = plans[-1].history
    assert [plan.delay is None for plan in plans] == [False, False, False, False, True]
    assert plans[-1].because == "5 starts in a row ended before the engine was ready"


def test_one_start_that_got_ready_ends_the_streak_of_starts_that_did_not() -> None:
    plan = crash(POLICY, RestartHistory(never_ready=4), now=0.0, ready_for=5.0)
    assert plan.delay is not None
    assert plan.history.never_ready == 0


def test_a_limit_of_one_never_restarts() -> None:
    policy = RestartPolicy(delay=1.0, delay_max=60.0, stable_after=600.0, crash_limit=1, crash_window=600.0)
    assert crash(policy, RestartHistory(), 0.0).delay is None
