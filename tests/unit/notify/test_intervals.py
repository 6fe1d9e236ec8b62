"""Time intervals: what is within them, across months, zones, and the days on which clocks are changed."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from exporter.notify.intervals import (
    Span,
    TimeInterval,
    parse_clock,
    parse_days_of_month,
    parse_months,
    parse_times,
    parse_weekdays,
    parse_years,
    parse_zone,
)


def at(text: str, zone: str = "UTC", fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def test_times_include_their_start_and_not_their_end():
    span = Span(times=(parse_times("09:00", "17:00"),))
    assert span.contains(at("2026-03-02 09:00"))
    assert span.contains(at("2026-03-02 16:59:59"))
    assert not span.contains(at("2026-03-02 17:00"))
    assert not span.contains(at("2026-03-02 08:59:59"))


def test_midnight_is_24_00():
    span = Span(times=(parse_times("22:00", "24:00"), parse_times("00:00", "06:00")))
    assert span.contains(at("2026-03-02 23:59:59"))
    assert span.contains(at("2026-03-03 00:00"))
    assert not span.contains(at("2026-03-03 06:00"))
    assert parse_clock("24:00") == 1440


def test_weekdays_count_from_sunday():
    weekend = Span(weekdays=(parse_weekdays("Saturday"), parse_weekdays("sunday")))
    assert weekend.contains(at("2026-03-01 12:00"))  # a Sunday
    assert weekend.contains(at("2026-02-28 12:00"))
    assert not weekend.contains(at("2026-03-02 12:00"))
    assert parse_weekdays("monday:FRIDAY") == (1, 5)
    assert parse_weekdays("sunday") == (0, 0)


@pytest.mark.parametrize(
    ("days", "inside", "outside"),
    [
        ("1:5", ["2026-02-01", "2026-02-05"], ["2026-02-06", "2026-02-28"]),
        ("-3:-1", ["2026-02-26", "2026-02-28", "2024-02-29", "2026-04-30"], ["2026-02-25", "2024-02-26", "2026-04-27"]),
        ("15:-1", ["2026-02-15", "2026-02-28"], ["2026-02-14"]),
        ("31", ["2026-01-31"], ["2026-01-30", "2026-02-28", "2026-04-30"]),
        ("30:31", ["2026-01-30", "2026-04-30"], ["2026-02-28"]),
        ("-31:-30", ["2026-01-01", "2026-01-02", "2026-04-01"], ["2026-01-03", "2026-02-01", "2026-04-02"]),
    ],
)  # fmt: skip
def test_days_of_the_month_count_from_both_ends(days: str, inside: list[str], outside: list[str]):
    span = Span(days_of_month=(parse_days_of_month(days),))
    assert [day for day in inside + outside if span.contains(at(f"{day} 12:00"))] == inside


def test_months_and_years():
    span = Span(months=(parse_months("december"), parse_months("1:2")), years=(parse_years("2026:2027"),))
    assert span.contains(at("2026-12-31 23:59"))
    assert span.contains(at("2027-02-01 00:00"))
    assert not span.contains(at("2027-03-01 00:00"))
    assert not span.contains(at("2028-01-01 00:00"))
    assert parse_months("january:3") == (1, 3)


def test_every_kind_of_a_span_must_hold_and_any_span_of_an_interval():
    interval = TimeInterval(
        (
            Span(weekdays=(parse_weekdays("monday"),), times=(parse_times("09:00", "10:00"),)),
            Span(months=(parse_months("may"),)),
        )
    )
    assert interval.contains(at("2026-03-02 09:30"))
    assert not interval.contains(at("2026-03-02 10:30"))
    assert interval.contains(at("2026-05-05 22:00"))
    assert not TimeInterval(()).contains(at("2026-05-05 22:00"))


def test_nothing_said_is_any_time_and_an_empty_list_is_none():
    assert Span().contains(0.0)
    assert not Span(times=()).contains(0.0)
    assert not Span(weekdays=()).contains(0.0)


def test_the_hour_is_that_of_the_wall_where_the_interval_is():
    night = Span(times=(parse_times("00:00", "06:00"),), zone=parse_zone("Asia/Shanghai"))
    assert night.contains(at("2026-03-01 20:00"))
    assert not night.contains(at("2026-03-01 22:00"))
    new_year = Span(years=(parse_years("2027"),), zone=parse_zone("Pacific/Auckland"))
    assert new_year.contains(at("2026-12-31 12:00"))


def test_an_hour_that_clocks_skip_is_skipped_and_one_that_comes_twice_counts_twice():
    span = Span(times=(parse_times("02:00", "03:00"),), zone=parse_zone("Europe/Berlin"))
    spring = at("2026-03-29 00:30")
    assert [span.contains(spring + 1800 * step) for step in range(4)] == [False, False, False, False]
    autumn = at("2026-10-24 23:30")
    assert [span.contains(autumn + 1800 * step) for step in range(7)] == [
        False,
        True,
        True,
        True,
        True,
        False,
        False,
    ]


def test_local_is_the_zone_of_the_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert Span(times=(parse_times("09:00", "10:00"),), zone=parse_zone("Local")).contains(
            at("2026-03-02 00:30")
        )
    finally:
        monkeypatch.undo()
        time.tzset()
    assert parse_zone("") is UTC
    assert parse_zone("UTC") is UTC


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_clock, "9:00"),
        (parse_clock, "24:01"),
        (parse_clock, "12:60"),
        (parse_clock, "09:00\n"),
        (parse_weekdays, "mon"),
        (parse_weekdays, "friday:monday"),
        (parse_weekdays, "monday:tuesday:friday"),
        (parse_months, "13"),
        (parse_months, "0:3"),
        (parse_months, "may:april"),
        (parse_years, "twenty"),
        (parse_years, "2027:2026"),
        (parse_days_of_month, "0"),
        (parse_days_of_month, "32"),
        (parse_days_of_month, "-1:5"),
        (parse_days_of_month, "20:10"),
        (parse_days_of_month, "-1:-3"),
        (parse_days_of_month, "29:-2"),
        (parse_days_of_month, ""),
        (parse_zone, "Europe/Berln"),
        (parse_zone, "../../etc/passwd"),
        (parse_zone, "/etc/localtime"),
    ],
)  # fmt: skip
def test_what_no_clock_or_calendar_has_is_refused(parse: object, text: str):
    with pytest.raises(ValueError):
        parse(text)  # type: ignore[operator]


def test_times_must_be_in_order():
    with pytest.raises(ValueError, match="over midnight takes two ranges"):
        parse_times("22:00", "06:00")
    with pytest.raises(ValueError, match="before end_time"):
        parse_times("06:00", "06:00")
