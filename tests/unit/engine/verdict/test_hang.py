from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from exporter.engine.verdict.hang import (
    CanaryOutcome,
    HangPolicy,
    HangWatch,
    Verdict,
    judge_canary,
    judge_progress,
    judge_scrape,
    judge_unanswered,
    tick,
    watch_from,
)

POLICY = HangPolicy(timeout=120.0, grace=60.0, canary_timeout=30.0, gap=30.0)


class Page(NamedTuple):
    running: float | None
    waiting: float | None
    counter: float | None


class Watching:
    """Scrapes once a second, and keeps what was judged."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self.watch: HangWatch = watch_from(now)
        self.verdicts: list[tuple[float, Verdict]] = []

    def scrape(self, page: Page | None, seconds: int = 1) -> Verdict:
        verdict = Verdict.NOTHING
        for _ in range(seconds):
            self.now += 1.0
            self.watch, verdict = judge_scrape(POLICY, self.watch, page, self.now)
            if verdict is not Verdict.NOTHING:
                self.verdicts.append((self.now, verdict))
        return verdict

    def canary(self, outcome: CanaryOutcome, took: float = 1.0) -> Verdict:
        self.watch, verdict = judge_canary(POLICY, self.watch, outcome, self.now, took=took)
        return verdict

    @property
    def named(self) -> list[Verdict]:
        return [verdict for _, verdict in self.verdicts]


IDLE = Page(0.0, 0.0, 7.0)
STUCK = Page(3.0, 5.0, 7.0)


def suspicious() -> Watching:
    """An engine whose canary has just been asked for."""
    watching = Watching()
    watching.scrape(IDLE, 100)
    watching.scrape(STUCK, 121)
    assert watching.named == [Verdict.SEND_CANARY]
    return watching


def test_an_idle_engine_is_never_asked_for_a_canary() -> None:
    watching = Watching()
    watching.scrape(IDLE, 5000)
    assert watching.named == []


def test_demand_without_progress_asks_for_one_canary_after_the_timeout() -> None:
    watching = suspicious()
    watching.scrape(STUCK, 500)
    assert watching.named == [Verdict.SEND_CANARY]


def test_nothing_is_suspected_in_the_grace_period() -> None:
    watching = Watching()
    watching.scrape(STUCK, 179)
    assert watching.named == []
    watching.scrape(STUCK, 2)
    assert watching.named == [Verdict.SEND_CANARY]


def test_a_failed_canary_and_flat_counters_make_a_hang() -> None:
    watching = suspicious()
    watching.scrape(STUCK, 30)
    assert watching.canary(CanaryOutcome.FAILED, took=30.0) is Verdict.HUNG
    watching.scrape(STUCK, 500)
    assert watching.named == [Verdict.SEND_CANARY]


def test_an_answered_canary_clears_the_suspicion() -> None:
    watching = suspicious()
    assert watching.canary(CanaryOutcome.ANSWERED) is Verdict.NOTHING
    watching.scrape(STUCK, 100)
    assert watching.named == [Verdict.SEND_CANARY]


def test_a_saturated_engine_that_lets_the_canary_wait_is_busy_as_long_as_counters_move() -> None:
    watching = suspicious()
    watching.scrape(STUCK._replace(counter=8.0))
    watching.scrape(STUCK._replace(counter=8.0), 29)
    assert watching.canary(CanaryOutcome.FAILED, took=30.0) is Verdict.NOTHING
    assert not watching.watch.hung


def test_running_zero_in_a_wedged_engine_does_not_hide_the_demand_that_nobody_served() -> None:
    watching = Watching()
    watching.scrape(IDLE, 100)
    watching.scrape(STUCK, 5)
    watching.scrape(IDLE, 130)
    assert watching.named == [Verdict.SEND_CANARY]


def test_silence_after_demand_is_no_progress_and_silence_alone_is_no_suspicion() -> None:
    wanted = Watching()
    wanted.scrape(IDLE, 100)
    wanted.scrape(STUCK, 1)
    wanted.scrape(None, 121)
    assert wanted.named == [Verdict.SEND_CANARY]
    idle = Watching()
    idle.scrape(IDLE, 100)
    idle.scrape(None, 1000)
    assert idle.named == []


def test_a_page_without_progress_counters_gives_no_verdict() -> None:
    watching = Watching()
    watching.scrape(Page(3.0, 1.0, None), 1000)
    assert watching.named == []


def test_refused_canaries_leave_the_verdict_to_the_counters_over_twice_the_time() -> None:
    watching = suspicious()
    assert watching.canary(CanaryOutcome.INCONCLUSIVE) is Verdict.NOTHING
    watching.scrape(STUCK, 119)
    assert watching.named == [Verdict.SEND_CANARY]
    watching.scrape(STUCK, 2)
    assert watching.named == [Verdict.SEND_CANARY, Verdict.HUNG]


def test_a_hung_engine_that_moves_again_has_recovered() -> None:
    watching = suspicious()
    assert watching.canary(CanaryOutcome.FAILED) is Verdict.HUNG
    assert watching.scrape(STUCK._replace(counter=9.0)) is Verdict.RECOVERED
    watching.scrape(STUCK._replace(counter=9.0), 122)
    assert watching.named[-1] is Verdict.SEND_CANARY


def test_a_daemon_that_was_stopped_for_an_hour_starts_watching_again() -> None:
    watching = Watching()
    watching.scrape(IDLE, 100)
    watching.scrape(STUCK, 119)
    watching.now += 3600.0
    watching.scrape(STUCK, 119)
    assert watching.named == []


def test_a_canary_that_timed_out_while_the_daemon_was_stopped_says_nothing() -> None:
    watching = suspicious()
    watching.now += 3600.0
    assert watching.canary(CanaryOutcome.FAILED, took=3600.0) is Verdict.NOTHING
    assert not watching.watch.hung


def test_ticks_between_rare_scrapes_keep_a_long_scrape_interval_from_looking_like_a_stopped_daemon() -> None:
    watch = watch_from(0.0)
    verdicts = []
    for second in range(5, 600, 5):
        if second % 60 == 0:
            watch, verdict = judge_scrape(POLICY, watch, STUCK, float(second))
            verdicts.append((second, verdict))
        else:
            watch = tick(POLICY, watch, float(second))
    assert [at for at, verdict in verdicts if verdict is Verdict.SEND_CANARY] == [180]


def unanswered(watching: Watching, since: float) -> None:
    watching.watch = judge_unanswered(POLICY, watching.watch, since, watching.now)


def test_two_unanswered_questions_are_demand_since_the_first_of_them_and_no_verdict_yet() -> None:
    watching = Watching()
    watching.scrape(IDLE, 100)
    watching.scrape(IDLE, 20)
    unanswered(watching, since=100.0)
    watching.scrape(IDLE, 99)
    assert watching.named == []
    watching.scrape(IDLE, 2)
    assert watching.verdicts == [(220.0, Verdict.SEND_CANARY)]
    assert watching.canary(CanaryOutcome.FAILED, took=30.0) is Verdict.HUNG


def test_an_engine_that_was_only_slow_is_cleared_by_the_canary() -> None:
    watching = Watching()
    watching.scrape(IDLE, 120)
    unanswered(watching, since=100.0)
    watching.scrape(IDLE, 121)
    assert watching.canary(CanaryOutcome.ANSWERED, took=20.0) is Verdict.NOTHING
    watching.scrape(IDLE, 1000)
    assert watching.named == [Verdict.SEND_CANARY]


def test_unanswered_questions_say_nothing_where_the_counters_moved_after_the_first() -> None:
    watching = Watching()
    watching.scrape(IDLE, 100)
    watching.scrape(IDLE._replace(counter=8.0), 20)
    unanswered(watching, since=100.0)
    watching.scrape(IDLE._replace(counter=8.0), 1000)
    assert watching.named == []


def test_unanswered_questions_say_nothing_in_the_grace_period_nor_without_counters() -> None:
    young, blind = Watching(), Watching()
    young.scrape(IDLE, 50)
    unanswered(young, since=30.0)
    young.scrape(IDLE, 1000)
    blind.scrape(Page(0.0, 0.0, None), 120)
    unanswered(blind, since=100.0)
    blind.scrape(Page(0.0, 0.0, None), 1000)
    assert young.named == blind.named == []


def test_questions_that_went_unanswered_while_the_daemon_slept_say_nothing() -> None:
    watching = Watching()
    watching.scrape(IDLE, 100)
    watching.now += 3600.0
    watching.scrape(IDLE, 1)
    unanswered(watching, since=100.0)
    watching.scrape(IDLE, 1000)
    assert watching.named == []


def test_an_answered_question_ends_a_suspicion_and_a_hang_though_the_page_stands_still() -> None:
    watching = suspicious()
    assert watching.canary(CanaryOutcome.FAILED) is Verdict.HUNG
    watching.watch, verdict = judge_progress(POLICY, watching.watch, watching.now, watching.now)
    assert verdict is Verdict.RECOVERED
    assert not watching.watch.hung


def test_tokens_that_flow_to_users_are_progress_though_the_page_cannot_be_read() -> None:
    watching = Watching()
    watching.scrape(IDLE, 100)
    watching.scrape(STUCK, 5)
    for _ in range(500):
        watching.watch, _ = judge_progress(POLICY, watching.watch, watching.now, watching.now)
        watching.scrape(None)
    assert watching.named == []


def test_a_token_that_was_known_already_is_no_news() -> None:
    watching = Watching()
    watching.scrape(IDLE, 100)
    watching.scrape(STUCK, 5)
    for _ in range(121):
        watching.watch, _ = judge_progress(POLICY, watching.watch, 104.0, watching.now)
        watching.scrape(STUCK)
    assert watching.named == [Verdict.SEND_CANARY]


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0.01, 20.0),
            st.sampled_from([0.0, 1.0, 400.0]),
            st.sampled_from([0.0, 1.0, 900.0]),
            st.booleans(),
            st.sampled_from([None, *CanaryOutcome]),
        ),
        max_size=120,
    ),
)
def test_no_verdict_ever_while_the_counters_move_within_the_timeout(
    steps: list[tuple[float, float, float, bool, CanaryOutcome | None]],
) -> None:
    watch, now, counter, moved_at = watch_from(0.0), 0.0, 0.0, 0.0
    for step, running, waiting, answered, canary in steps:
        now += step
        if now - moved_at > 100.0 - 20.0:
            counter, moved_at, answered = counter + 1.0, now, True
        watch, verdict = judge_scrape(
            POLICY, watch, Page(running, waiting, counter) if answered else None, now
        )
        assert verdict is Verdict.NOTHING
        if canary is not None:
            watch, verdict = judge_canary(POLICY, watch, canary, now, took=1.0)
            assert verdict is Verdict.NOTHING
    assert not watch.hung


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0.0, 100.0), st.booleans(), st.booleans(), st.sampled_from([None, *CanaryOutcome])
        ),
        max_size=200,
    ),
)
def test_a_hang_is_never_called_before_demand_stood_still_for_the_whole_timeout(
    steps: list[tuple[float, bool, bool, CanaryOutcome | None]],
) -> None:
    watch, now, counter = watch_from(0.0), 0.0, 0.0
    demanded_at: float | None = None
    for step, demand, moves, canary in steps:
        now += step
        if moves:
            counter, demanded_at = counter + 1.0, None
        if demand and demanded_at is None and not moves:
            demanded_at = now
        watch, verdict = judge_scrape(POLICY, watch, Page(float(demand), 0.0, counter), now)
        if verdict in (Verdict.SEND_CANARY, Verdict.HUNG):
            assert demanded_at is not None
            assert now - demanded_at >= POLICY.timeout
            assert now >= POLICY.grace + POLICY.timeout
        if canary is not None:
            watch, verdict = judge_canary(POLICY, watch, canary, now, took=1.0)
            if verdict is Verdict.HUNG:
                assert demanded_at is not None
                assert now - demanded_at >= POLICY.timeout


@given(
    steps=st.lists(
        st.tuples(
            st.floats(0.01, 40.0),
            st.booleans(),
            st.none() | st.floats(0.0, 60.0),
            st.sampled_from([None, *CanaryOutcome]),
        ),
        max_size=200,
    ),
)
def test_questions_of_our_own_never_make_a_verdict_sooner_than_a_waiting_user_would(
    steps: list[tuple[float, bool, float | None, CanaryOutcome | None]],
) -> None:
    watch, now, counter, moved_at, first = watch_from(0.0), 0.0, 0.0, 0.0, float("inf")
    for step, moves, waited, canary in steps:
        now += step
        if moves:
            counter, moved_at, first = counter + 1.0, now, float("inf")
        watch, verdict = judge_scrape(POLICY, watch, Page(0.0, 0.0, counter), now)
        if canary is not None:
            watch, second = judge_canary(POLICY, watch, canary, now, took=1.0)
            verdict = second if verdict is Verdict.NOTHING else verdict
        if verdict in (Verdict.SEND_CANARY, Verdict.HUNG):
            assert now - first >= POLICY.timeout - 1e-6
            assert now - moved_at >= POLICY.timeout - 1e-6
        if waited is not None:
            since = max(now - waited, 0.0)
            watch = judge_unanswered(POLICY, watch, since, now)
            first = min(first, since)
