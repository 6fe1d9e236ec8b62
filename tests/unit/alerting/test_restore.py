"""After a restart: alerts go on from what was saved, as in Prometheus."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.alerting.restore import Saved, resumed

MINUTE = 60_000
HOUR = 60 * MINUTE
NOW = 1_700_000_000_000
RULE = """
groups:
  - name: g
    rules:
      - alert: Queue
        expr: waiting > 5
        for: 30m
        labels: {severity: "{{ $labels.severity }}-x", nothing: "{{ $labels.none }}", team: sre}
"""


@pytest.mark.parametrize(
    ("pending", "down", "left"),
    [
        (10 * MINUTE, 5 * MINUTE, 20 * MINUTE),  # the down time counts neither way
        (25 * MINUTE, 5 * MINUTE, 10 * MINUTE),  # less than the grace period left: so much
        (30 * MINUTE, 5 * MINUTE, -5 * MINUTE),  # was firing: fires again at once
        (45 * MINUTE, MINUTE, -16 * MINUTE),
        (0, MINUTE, 30 * MINUTE),
    ],
)
def test_what_is_left_to_wait_follows_from_what_had_passed(pending: int, down: int, left: int) -> None:
    saved = Saved(NOW - down, (NOW - down - pending) // 1000)
    assert resumed(saved, 30 * MINUTE, NOW, grace=10 * MINUTE) + 30 * MINUTE - NOW == left


def test_times_of_the_store_count_in_whole_seconds() -> None:
    """Prometheus cuts the sample's time to seconds, too."""
    saved = Saved(NOW - 299_001, NOW // 1000 - 600)
    assert resumed(saved, HOUR, NOW, grace=0) == NOW - 600_000 + 300_000


def lived(bench: Any, minutes: int, rule: str = RULE) -> None:
    """A daemon before the restart: the alert is active for so many minutes up to second 0."""
    bench.load(rule)
    for second in range(-60 * minutes, 1, 60):
        bench.put(second, {'waiting{severity="w"}': 9})
        bench.run(second)


def restart(bench: Any, rule: str = RULE) -> Any:
    bench.groups = ()
    return bench.load(rule, restored=False)


def again(bench: Any, group: Any, second: float, value: float = 9, *, grace: float = 600) -> str:
    """One evaluation of the daemon after the restart; the alert's state."""
    bench.put(second, {'waiting{severity="w"}': value})
    bench.run(second)
    now = 1_700_000_000_000 + round(second * 1000)
    if not group.restored:
        group.restore(now, bench.conditions, tolerance_ms=HOUR, grace_ms=round(grace * 1000))
    return str(group.status().rules[0].state)


def active_at(group: Any) -> float:
    return float(group.status().rules[0].alerts[0].active_at - 1_700_000_000)


def test_a_pending_alert_goes_on_from_where_it_stood(bench: Any) -> None:
    lived(bench, 15)
    group = restart(bench)
    assert again(bench, group, 300) == "pending"
    assert active_at(group) == 300
    assert again(bench, group, 305) == "pending"
    assert active_at(group) == -900 + 305
    assert again(bench, group, 1204) == "pending"
    assert again(bench, group, 1205) == "firing"


def test_a_firing_alert_fires_with_the_third_evaluation(bench: Any) -> None:
    lived(bench, 35)
    group = restart(bench)
    assert [again(bench, group, second) for second in (60, 65, 70)] == ["pending", "pending", "firing"]
    assert active_at(group) == -35 * 60


def test_nothing_is_written_over_what_was_saved_before_it_is_looked_at(bench: Any) -> None:
    lived(bench, 15)
    group = restart(bench)
    again(bench, group, 60)
    assert list(bench.ask("ALERTS_FOR_STATE", 60).values()) == [1_700_000_000 - 900]
    again(bench, group, 65)
    again(bench, group, 70)
    assert list(bench.ask("ALERTS_FOR_STATE", 70).values()) == [1_700_000_000 - 900 + 65]


def test_an_alert_that_had_ended_before_the_restart_begins_anew(bench: Any) -> None:
    lived(bench, 15)
    bench.put(30, {'waiting{severity="w"}': 0})
    bench.run(30)
    group = restart(bench)
    assert [again(bench, group, second) for second in (60, 65)] == ["pending", "pending"]
    assert active_at(group) == 60


def test_what_is_older_than_the_tolerance_counts_for_nothing(bench: Any) -> None:
    lived(bench, 15)
    group = restart(bench)
    assert [again(bench, group, second) for second in (3600, 3605)] == ["pending", "pending"]
    assert active_at(group) == 3600


def test_a_rule_that_waits_less_than_the_grace_period_begins_anew(bench: Any) -> None:
    lived(bench, 15)
    group = restart(bench)
    for second in (60, 65):
        again(bench, group, second, grace=1801)
    assert active_at(group) == 60
    again(bench, group, 70)
    assert list(bench.ask("ALERTS_FOR_STATE", 70).values()) == [1_700_000_060]


def test_two_evaluations_in_a_row_by_an_event_are_no_reason_to_hurry(bench: Any) -> None:
    lived(bench, 15)
    group = restart(bench)
    again(bench, group, 60)
    again(bench, group, 60.5)
    assert not group.restored
    again(bench, group, 65)
    assert group.restored


def test_a_daemon_without_a_past_writes_its_alerts_after_the_second_evaluation(bench: Any) -> None:
    group = restart(bench)
    again(bench, group, 0)
    again(bench, group, 5)
    assert bench.ask("ALERTS", 5) == {}
    again(bench, group, 10)
    assert len(bench.ask("ALERTS", 10)) == 1


def test_a_reload_before_the_second_evaluation_restores_all_the_same(bench: Any) -> None:
    lived(bench, 15)
    group = restart(bench)
    again(bench, group, 60)
    group = bench.load(RULE.replace("> 5", "> 6"))
    assert not group.restored
    again(bench, group, 65)
    assert active_at(group) == -900 + 65


def test_alerts_go_on_in_a_store_that_was_loaded_from_what_was_saved(bench: Any) -> None:
    lived(bench, 35)
    fresh = type(bench)()
    for batch in bench.head.unsaved():
        fresh.head.load(batch)
    group = fresh.load(RULE, restored=False)
    assert [again(fresh, group, second) for second in (60, 65, 70)] == ["pending", "pending", "firing"]
    shown = fresh.ask("ALERTS", 70)
    assert len(shown) == 1
    assert 'alertstate="firing"' in next(iter(shown))
    assert again(fresh, group, 75, value=0) == "inactive"
    assert fresh.ask('{__name__=~"ALERTS.*"}', 75) == {}


def test_an_alert_that_ended_while_the_daemon_was_down_does_not_haunt_the_store(bench: Any) -> None:
    lived(bench, 35)
    fresh = type(bench)()
    for batch in bench.head.unsaved():
        fresh.head.load(batch)
    group = fresh.load(RULE, restored=False)
    for second in (60, 65, 70):
        assert again(fresh, group, second, value=0) == "inactive"
    assert fresh.ask("ALERTS", 299) != {}  # as in Prometheus: nothing ends it, it is just too old some day
    assert fresh.ask("ALERTS", 300) == {}
