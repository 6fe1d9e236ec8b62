"""When reports are due, by people's clocks."""

from __future__ import annotations

from datetime import datetime, time, timezone
from zoneinfo import ZoneInfo

import pytest

from exporter.notify.report.plan import Plan, judge

BERLIN = ZoneInfo("Europe/Berlin")
NINE = time(9)
LATE = 12 * 3600.0


def berlin(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


def test_a_daily_report_is_due_at_its_local_time():
    plan = Plan("daily", NINE, BERLIN)
    assert plan.latest(berlin("2026-11-20 09:00")) == berlin("2026-11-20 09:00")
    assert plan.latest(berlin("2026-11-20 08:59")) == berlin("2026-11-19 09:00")
    assert plan.following(berlin("2026-11-20 09:00")) == berlin("2026-11-21 09:00")
    assert plan.following(berlin("2026-11-20 08:59")) == berlin("2026-11-20 09:00")
    assert plan.start(berlin("2026-11-20 09:00")) == berlin("2026-11-19 09:00")


def test_a_weekly_report_is_due_on_mondays():
    plan = Plan("weekly", NINE, BERLIN)
    assert datetime(2026, 11, 16, tzinfo=BERLIN).weekday() == 0
    for day in ("2026-11-16 09:00", "2026-11-18 12:00", "2026-11-22 23:00", "2026-11-23 08:59"):
        assert plan.latest(berlin(day)) == berlin("2026-11-16 09:00")
        assert plan.following(berlin(day)) == berlin("2026-11-23 09:00")
    assert plan.start(berlin("2026-11-16 09:00")) == berlin("2026-11-09 09:00")


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29 09:00", 23), ("2026-10-25 09:00", 25), ("2026-10-26 09:00", 24)]
)
def test_the_day_of_a_change_of_clocks_has_another_length(day: str, hours: int):
    plan = Plan("daily", NINE, BERLIN)
    assert berlin(day) - plan.start(berlin(day)) == hours * 3600


def test_an_hour_that_the_clocks_leave_out_or_say_twice_gives_one_report():
    for skipped in (time(2, 30), time(3, 0)):
        for month, day in ((3, 29), (10, 25)):
            plan = Plan("daily", skipped, BERLIN)
            at = datetime(2026, month, day - 1, 12, tzinfo=BERLIN).timestamp()
            first, second = plan.following(at), plan.following(plan.following(at))
            assert 20 * 3600 < second - first < 28 * 3600
            minutes = range(int(at), int(at) + 36 * 3600, 60)
            assert len({plan.latest(moment) for moment in minutes} - {plan.latest(at)}) == 1


def test_without_a_zone_the_machines_own_counts():
    plan = Plan("daily", NINE)
    when = plan.following(berlin("2026-11-20 09:00"))
    assert (plan.local(when).hour, plan.local(when).tzinfo) == (9, None)
    assert plan.latest(when) == when
    assert when - plan.start(when) in (23 * 3600, 24 * 3600, 25 * 3600)


def test_the_first_report_comes_at_the_next_time():
    plan = Plan("daily", NINE, BERLIN)
    started = berlin("2026-11-20 15:00")
    due, last = judge(plan, None, started, LATE)
    assert due is None
    assert judge(plan, last, berlin("2026-11-21 08:59"), LATE) == (None, last)
    assert judge(plan, last, berlin("2026-11-21 09:00"), LATE) == (berlin("2026-11-21 09:00"),) * 2


def test_a_daemon_that_was_off_at_the_time_makes_up_for_it_unless_it_is_long_ago():
    plan = Plan("daily", NINE, BERLIN)
    before, missed = berlin("2026-11-20 09:00"), berlin("2026-11-21 09:00")
    assert judge(plan, before, berlin("2026-11-21 09:40"), LATE) == (missed, missed)
    assert judge(plan, before, berlin("2026-11-21 22:00"), LATE) == (None, missed)


def test_a_clock_that_is_set_back_an_hour_gives_no_second_report():
    plan = Plan("daily", NINE, BERLIN)
    made = berlin("2026-11-21 09:00")
    assert judge(plan, made, berlin("2026-11-21 08:10"), LATE) == (None, made)
    assert judge(plan, made, berlin("2026-11-21 09:00"), LATE) == (None, made)


def test_a_clock_that_was_years_ahead_stops_no_report_for_years():
    plan = Plan("daily", NINE, BERLIN)
    due, last = judge(plan, berlin("2036-01-01 09:00"), berlin("2026-11-21 10:00"), LATE)
    assert due is None
    assert judge(plan, last, berlin("2026-11-22 09:00"), LATE)[0] == berlin("2026-11-22 09:00")


def test_any_zone_will_do():
    plan = Plan("daily", NINE, timezone.utc)  # noqa: UP017
    assert plan.latest(1_795_253_500.0) % 86400 == 9 * 3600
