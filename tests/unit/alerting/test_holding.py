"""Alerts without data: held, going on, over, given up. Nothing but values; times in ms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from exporter.alerting.holding import (
    ABSENT_MS,
    ABSENT_STEP_MS,
    GIVEN_UP,
    GRACE_MS,
    NEVER_BACK,
    PAUSE_MS,
    RULE_GONE,
    Change,
    Held,
    Holding,
    hold,
    moved,
    release,
)
from exporter.alerting.state import Alert, Found, Move, State, Terms, forget, step
from exporter.storage.model import Labels

A: Labels = (("alertname", "A"),)
B: Labels = (("alertname", "B"),)
MINUTE = 60_000


def alert(state: State, labels: Labels = A, *, fired: int | None = 10, active: int = 5) -> Alert:
    return Alert(labels, (), 1.0, state, active, fired, 20 if state == "inactive" else None)


def held(labels: Labels = A, *, since: int = 20, told: bool = True) -> Mapping[Labels, Held]:
    return {labels: Held(alert("inactive", labels), since, since, told=told)}


def standing(holding: Holding) -> list[tuple[Labels, int, bool]]:
    """Who is held, since when, and whether that was told."""
    return [(labels, one.since, one.told) for labels, one in holding.held.items()]


def judged(
    before: Mapping[Labels, Held],
    now: int,
    *moves: Move,
    alerts: Mapping[Labels, Alert] | None = None,
    known: bool = False,
    well: bool = False,
    timeout: int = 0,
) -> Holding:
    return hold(
        before,
        alerts or {},
        moves,
        now,
        timeout=timeout,
        known=lambda labels: known,
        well=lambda labels: well,
    )


ENDED = Move(alert("inactive"), "firing", "inactive")


def test_an_alert_that_ends_without_data_is_held_and_with_data_it_is_over() -> None:
    without = judged({}, 20, ENDED)
    assert without.held == {A: Held(alert("inactive"), 20, 20)}
    assert without.changes == [Change(alert("inactive"), "firing", "held", 20)]
    with_data = judged({}, 20, ENDED, known=True)
    assert not with_data.held
    assert with_data.changes == [Change(alert("inactive"), "firing", "inactive")]


def test_a_pending_alert_that_goes_is_nobodys_news_and_never_held() -> None:
    move = Move(alert("inactive", fired=None), "pending", "inactive")
    assert judged({}, 20, move) == Holding({}, {}, [Change(*move)])


def test_an_alert_that_fires_again_goes_on_since_it_first_fired() -> None:
    again = alert("firing", fired=40, active=30)
    result = judged(held(), 40, Move(again, "pending", "firing"), alerts={A: again})
    on = replace(again, fired_at=10)
    assert result == Holding({}, {A: on}, [Change(on, "held", "firing")])


def test_an_alert_is_held_in_silence_while_its_condition_holds_for_less_than_for() -> None:
    pending = alert("pending", fired=None, active=30)
    begins = judged(held(), 30, Move(pending, "inactive", "pending"), alerts={A: pending}, known=True)
    assert (standing(begins), begins.changes) == ([(A, 20, True)], [])
    for known in (False, True):
        later = judged(held(), 500, alerts={A: pending}, known=known, timeout=100)
        assert (standing(later), later.changes) == ([(A, 20, True)], [])


def test_an_alert_is_over_when_its_data_is_back_and_it_does_not_fire() -> None:
    away = judged(held(), 30)
    assert (standing(away), away.changes) == ([(A, 20, True)], [])
    result = judged(away.held, 40, known=True)
    assert not result.held
    assert result.changes == [Change(replace(alert("inactive"), resolved_at=40), "held", "inactive")]


def test_one_that_was_pending_again_and_is_found_no_more_is_judged_like_any_other() -> None:
    gone = Move(alert("inactive", fired=None, active=30), "pending", "inactive")
    assert standing(judged(held(), 40, gone)) == [(A, 20, True)]
    assert [one.after for one in judged(held(), 40, gone, known=True).changes] == ["inactive"]


def test_after_the_timeout_an_alert_is_given_up_and_that_is_said() -> None:
    assert judged(held(since=20), 119, timeout=100).held
    given_up = judged(held(since=20), 120, timeout=100)
    assert not given_up.held
    over = replace(alert("inactive"), resolved_at=120)
    assert given_up.changes == [Change(over, "held", "inactive", 20, GIVEN_UP)]
    assert judged(held(since=20), 10**12, timeout=0).held


def test_a_machine_that_slept_for_days_has_not_waited_and_gives_nothing_up_on_waking() -> None:
    day = 86_400_000
    woken = judged(judged(held(since=0), 1000, timeout=day).held, 3 * day, timeout=day)
    assert (standing(woken), woken.changes) == ([(A, 0, True)], [])
    (one,) = woken.held.values()
    assert one.waited == 1000 + PAUSE_MS


def evaluated(every: int, minutes: int, *, well: Callable[[int], bool] = lambda now: True) -> list[int]:
    """Evaluations of a held alert whose data stays away: when it ended."""
    holding = Holding(held(since=0), {}, ())
    ends: list[int] = []
    for now in range(every, minutes * MINUTE + 1, every):
        holding = judged(holding.held, now, well=well(now))
        ends += [now for one in holding.changes if one.after == "inactive"]
        assert all((one.no_data_since, one.reason) == (0, NEVER_BACK) for one in holding.changes)
    return ends


def test_what_does_not_come_back_in_ten_minutes_although_its_source_is_well_is_over() -> None:
    assert evaluated(5_000, 30) == [5_000 + ABSENT_MS]
    assert evaluated(5_000, 30, well=lambda now: now > 10 * MINUTE) == [10 * MINUTE + 5_000 + ABSENT_MS]
    assert evaluated(5_000, 600, well=lambda now: False) == []


def test_a_source_that_comes_and_goes_is_not_well() -> None:
    assert evaluated(5_000, 600, well=lambda now: now % (9 * MINUTE) != 0) == []


def test_a_rare_evaluation_and_one_after_a_machine_slept_do_not_count_for_ten_minutes() -> None:
    assert evaluated(60 * MINUTE, 360) == [360 * MINUTE], "the sixth, as each is for two minutes at most"
    before = judged(judged(held(since=0), 5_000, well=True).held, 10_000, well=True)
    woken = judged(before.held, 3 * 1440 * MINUTE, well=True)
    assert not woken.changes
    assert [one.absent for one in woken.held.values()] == [5_000 + ABSENT_STEP_MS]


def test_a_remembered_alert_is_told_to_have_no_data_only_when_it_has_none() -> None:
    pending = alert("pending", fired=None, active=30)
    waiting = judged(held(told=False), 30, alerts={A: pending})
    assert (standing(waiting), waiting.changes) == ([(A, 20, False)], [])
    starting = judged(held(told=False), 20 + GRACE_MS - 1)
    assert (standing(starting), starting.changes) == ([(A, 20, False)], [])
    result = judged(held(told=False), 20 + GRACE_MS)
    assert standing(result) == [(A, 20, True)]
    assert result.changes == [Change(alert("inactive"), "firing", "held", 20)]
    assert not judged(result.held, 30 + GRACE_MS).changes


def test_alerts_are_judged_one_by_one() -> None:
    result = hold(
        {**held(A), **held(B)},
        {},
        (),
        40,
        timeout=0,
        known=lambda labels: labels == B,
        well=lambda labels: False,
    )
    assert standing(result) == [(A, 20, True)]
    assert [one.alert.labels for one in result.changes] == [B]


def test_where_a_rule_is_gone_its_held_alerts_are_over() -> None:
    over = replace(alert("inactive"), resolved_at=50)
    assert release(held(), 50) == [Change(over, "held", "inactive", reason=RULE_GONE)]


def test_a_clock_that_is_set_back_takes_held_alerts_along() -> None:
    (one,) = moved(held(since=20), -7).values()
    assert (one.since, one.judged, one.alert.fired_at, one.alert.active_at) == (13, 13, 3, -2)


def test_states_and_what_is_told_stay_in_step_over_a_long_outage() -> None:
    """Fires at 0, data gone at 10, back at 50 with the condition, over at 60."""
    terms = Terms(0, 0, 0)
    alerts: Mapping[Labels, Alert] = {}
    holding: Mapping[Labels, Held] = {}
    told: list[tuple[int, str, str]] = []
    for now in range(0, 80, 10):
        data = not 10 <= now < 50
        found = [Found(A, (), 1.0)] if data and now < 60 else []
        after = step(alerts, found, terms, now)
        result = judged(holding, now, *after.moves, alerts=after.alerts, known=data)
        alerts, holding = result.alerts, result.held
        told += [(now, one.before, one.after) for one in result.changes]
        if result.changes and now < 60:
            assert result.changes[0].alert.fired_at == 0
    assert told == [
        (0, "inactive", "firing"),
        (10, "firing", "held"),
        (50, "held", "firing"),
        (60, "firing", "inactive"),
    ]


def test_a_rule_that_exceeds_its_limit_has_not_resolved_anything() -> None:
    firing = {A: alert("firing"), B: alert("firing", B)}
    result = hold(
        {}, {}, forget(firing, 30), 30, timeout=0, known=lambda labels: False, well=lambda labels: False
    )
    assert set(result.held) == {A, B}
