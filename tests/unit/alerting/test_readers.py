"""Which groups an event concerns."""

from __future__ import annotations

from typing import Any

from exporter.alerting.readers import Footprint, concerned, footprint


def of(*reads: str, writes: tuple[str, ...] = (), reads_any: bool = False) -> Footprint:
    return Footprint(frozenset(reads), reads_any, frozenset(writes))


def test_the_groups_that_read_what_changed_are_concerned_in_order() -> None:
    assert concerned([of("a"), of("b"), of("a", "b"), of("c")], {"a"}) == [0, 2]


def test_so_are_the_groups_that_read_what_these_record_wherever_they_stand() -> None:
    groups = [of("r2"), of("a", writes=("r1",)), of("r1", writes=("r2",)), of("other")]
    assert concerned(groups, {"a"}) == [0, 1, 2]


def test_a_selector_without_a_name_reads_everything() -> None:
    assert concerned([of(reads_any=True), of("b")], {"a"}) == [0]


def test_nothing_changed_concerns_nobody() -> None:
    assert concerned([of(reads_any=True)], set()) == []


def test_a_groups_footprint_is_made_of_its_selectors_and_names(bench: Any) -> None:
    group = bench.load("""
groups:
  - name: g
    rules:
      - {record: one, expr: "sum(rate(a[5m])) / b"}
      - {alert: Two, expr: 'one > 1 and on () max_over_time(c[1h:1m]) > 2'}
""")
    assert footprint(group) == Footprint(
        frozenset({"a", "b", "c", "one"}), False, frozenset({"one", "ALERTS", "ALERTS_FOR_STATE"})
    )
    bench.groups = ()
    group = bench.load("groups: [{name: g, rules: [{alert: Any, expr: 'count({job=\"x\"})'}]}]")
    assert footprint(group).reads_any
