from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from exporter.notify.dispatch.merging import arrived, ended, merged, same
from exporter.notify.model import Alert

Make = Callable[..., Alert]


def test_an_alert_that_fires_on_keeps_its_earliest_start(alert: Make) -> None:
    old, new = alert(starts_at=10.0), alert(starts_at=20.0, says="worse")
    assert merged(old, True, new, 30.0) == replace(new, starts_at=10.0)


def test_an_end_ends_the_alert_that_fires_until_further_notice(alert: Make) -> None:
    old, new = alert(starts_at=10.0), alert(starts_at=10.0, ends_at=25.0)
    assert merged(old, True, new, 30.0) is new


def test_an_alert_that_fires_again_after_its_end_is_a_new_one(alert: Make) -> None:
    old, new = alert(starts_at=10.0, ends_at=20.0), alert(starts_at=25.0)
    assert merged(old, False, new, 30.0).starts_at == 25.0


def test_of_two_ends_in_the_past_the_later_one_stands(alert: Make) -> None:
    old, new = alert(starts_at=10.0, ends_at=20.0), alert(starts_at=10.0, ends_at=15.0)
    assert merged(old, False, new, 30.0).ends_at == 20.0


def test_an_end_that_was_given_stands_against_an_earlier_one(alert: Make) -> None:
    old = arrived(alert(starts_at=10.0, ends_at=3600.0), False, 10.0)
    new = alert(starts_at=11.0, until=300.0)
    result = merged(old, True, new, 12.0)
    assert (result.starts_at, result.ends_at, result.until) == (10.0, 3600.0, 3600.0)


def test_an_end_for_want_of_news_gives_way_to_one_that_is_given(alert: Make) -> None:
    old = alert(starts_at=10.0, until=300.0)
    new = arrived(alert(starts_at=10.0, ends_at=100.0), False, 12.0)
    assert merged(old, True, new, 12.0).ends_at == 100.0


def test_an_end_that_is_ahead_only_by_rounding_has_come(alert: Make) -> None:
    assert arrived(alert(starts_at=10.0, ends_at=20.0004), False, 20.0).ends_at == 20.0


def test_what_fired_until_further_notice_ends_though_the_clock_went_back(alert: Make) -> None:
    result = arrived(alert(starts_at=5000.0, ends_at=5000.0), True, 1400.0)
    assert (result.starts_at, result.ends_at, result.until) == (1400.0, 1400.0, None)


def test_an_alert_whose_time_is_up_ended_then_and_never_ahead(alert: Make) -> None:
    assert ended(alert(until=20.0), 25.0).ends_at == 20.0
    assert ended(alert(until=20.0), 15.0).ends_at == 15.0


def test_only_what_people_see_is_a_change(alert: Make) -> None:
    one = alert()
    assert same(one, replace(one, updated_at=99.0))
    assert not same(one, alert(says="much too slow"))
    assert not same(one, replace(one, no_data_since=5.0))
