"""When a group is due, played over the landings of scrapes."""

from __future__ import annotations

import itertools
import random

import pytest

from exporter.alerting.due import Slots, Timetable, Verdict, begin, decide


def play(interval: int, landings: list[int], slots: Slots | None = None) -> tuple[list[int], int, Slots]:
    """The landings at which a group was evaluated, and the slots that it missed."""
    slots = slots or Slots(interval)
    taken, missed = [], 0
    before: int | None = None
    for now in landings:
        verdict = decide(slots, now, landed=True, spacing=0 if before is None else now - before)
        before = now
        slots = verdict.slots
        missed += verdict.missed
        if verdict.due:
            taken.append(now)
    return taken, missed, slots


def gaps(times: list[int]) -> list[int]:
    return [b - a for a, b in itertools.pairwise(times)]


def test_a_group_is_evaluated_with_the_first_scrape() -> None:
    assert play(5000, [1234])[0] == [1234]


def test_a_group_as_fast_as_the_scrapes_is_evaluated_with_each() -> None:
    landings = list(range(0, 100_000, 1000))
    assert play(1000, landings)[:2] == (landings, 0)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("interval", "jitter"), [(5000, 5), (5000, 140), (1000, 140), (30_000, 140)])
def test_jitter_of_the_scrapes_neither_slows_a_group_nor_makes_it_miss(
    interval: int, jitter: int, seed: int
) -> None:
    rng = random.Random(seed)
    landings = [1000 * n + rng.randint(-jitter, jitter) for n in range(300)]
    taken, missed, _ = play(interval, landings)
    assert missed == 0
    assert all(abs(gap - interval) <= 2 * jitter for gap in gaps(taken))


def test_a_group_that_is_no_multiple_of_the_scrapes_is_never_behind_its_grid() -> None:
    taken, missed, _ = play(5000, list(range(0, 200_000, 2000)))
    assert missed == 0
    assert all(now <= 5000 * n for n, now in enumerate(taken))
    assert taken[-1] > 190_000


def test_a_group_faster_than_the_scrapes_is_evaluated_with_each() -> None:
    landings = list(range(0, 150_000, 15_000))
    assert play(15_000, landings)[0] == landings
    taken, missed, _ = play(5000, landings)
    assert taken == landings
    assert missed == 2 * (len(landings) - 1)


def test_when_nothing_lands_a_group_is_late_after_a_second_and_then_due_without_a_scrape() -> None:
    _, _, slots = play(5000, [0])
    assert not decide(slots, 5999, landed=False).due
    verdict = decide(slots, 6000, landed=False)
    assert verdict.due
    assert verdict.slots.next == 10_000


def test_a_fast_group_waits_half_its_interval() -> None:
    table = Timetable()
    table.adopt({"a": 5000, "b": 200})
    assert table.due(0, landed=True).keys() == {"a", "b"}
    assert table.wait(0) == 300
    assert table.wait(1000) == 0


def test_a_group_that_never_ran_waits_for_the_first_scrape() -> None:
    assert not decide(Slots(5000), 0, landed=False).due


def test_slots_that_went_by_are_counted() -> None:
    _, missed, slots = play(5000, [0, 5000, 21_000, 22_000, 25_000])
    assert missed == 2
    assert slots == Slots(5000, 30_000, 25_000)


def test_an_event_is_evaluated_at_once_and_moves_no_slot() -> None:
    _, _, slots = play(5000, [0])
    verdict = decide(slots, 300, landed=False, event=True)
    assert verdict.due
    assert verdict.slots == Slots(5000, 5000, 300)


def test_an_event_after_a_slot_takes_it() -> None:
    _, _, slots = play(5000, [0])
    verdict = decide(slots, 5050, landed=False, event=True)
    assert verdict == (True, Slots(5000, 10_000, 5050), 0)


def test_an_event_before_the_first_scrape_begins_the_grid() -> None:
    verdict = decide(Slots(5000), 300, landed=False, event=True)
    assert verdict == (True, Slots(5000, 5300, 300), 0)


def test_two_events_at_one_time_are_one() -> None:
    slots = Slots(5000, 5000, 300)
    assert not decide(slots, 300, landed=False, event=True).due


def test_a_clock_that_is_set_back_begins_a_new_grid() -> None:
    _, _, slots = play(5000, [1_000_000])
    verdict = decide(slots, 400_000, landed=True, spacing=-600_000)
    assert verdict == (True, Slots(5000, 405_000, 400_000), 0)


def test_a_clock_that_slips_back_a_little_is_waited_for() -> None:
    _, _, slots = play(5000, [1_000_000])
    assert not decide(slots, 999_500, landed=True, spacing=-500).due
    assert decide(slots, 1_004_900, landed=True, spacing=1000).due


def test_a_clock_that_leaps_ahead_counts_what_it_skipped_and_goes_on() -> None:
    taken, missed, _ = play(5000, [0, 5000, 3_605_000, 3_606_000, 3_610_000])
    assert taken == [0, 5000, 3_605_000, 3_610_000]
    assert missed == 719


def test_slow_groups_are_spread_over_their_interval_after_their_first_evaluation() -> None:
    landings = list(range(0, 300_000, 1000))
    begun = [play(60_000, landings, begin(60_000, f"rules.yml;group{n}")) for n in range(30)]
    assert all(taken[0] == 0 and missed == 0 for taken, missed, _ in begun)
    assert all(gap == 60_000 for taken, _, _ in begun for gap in gaps(taken[1:]))
    assert len({taken[1] for taken, _, _ in begun}) > 8
    assert all(taken[1] % 5000 == 0 for taken, _, _ in begun), (
        "they fall together with the groups of five seconds"
    )


def test_without_groups_nothing_is_late() -> None:
    table = Timetable()
    assert table.due(0, landed=True) == {}
    assert table.wait(0) == 60_000


def test_groups_that_never_ran_are_looked_for_within_an_interval() -> None:
    table = Timetable()
    table.adopt({"a": 30_000, "b": 5000})
    assert table.wait(1_000_000) == 5000


def test_a_reload_keeps_the_grid_of_a_group_whose_interval_stays() -> None:
    table = Timetable()
    table.adopt({"a": 5000, "b": 5000})
    table.due(0, landed=True)
    table.adopt({"a": 5000, "b": 2000, "c": 5000})
    assert table.due(2000, landed=True).keys() == {"b", "c"}
    assert table.due(5000, landed=True).keys() == {"a", "b"}


@pytest.mark.parametrize("seed", range(20))
def test_the_timetable_finds_what_a_look_at_each_group_finds(seed: int) -> None:
    random_ = random.Random(seed)
    intervals = {f"g{n}": random_.choice((200, 1000, 5000, 7000, 15_000, 60_000)) for n in range(6)}
    table = Timetable()
    table.adopt(intervals)
    each = {key: begin(interval, key) for key, interval in intervals.items()}
    now = 1_000_000
    for _ in range(400):
        step = random_.choice((1000, 1000, 1000, random_.randrange(1, 3000), -random_.randrange(1, 3000)))
        now += step
        landed = random_.random() < 0.8
        events = {"g1", "g4"} if random_.random() < 0.05 else set()
        expected: dict[str, Verdict] = {}
        for key, slots in each.items():
            verdict = decide(slots, now, landed=landed, spacing=step if landed else 0, event=key in events)
            each[key] = verdict.slots
            if verdict.due:
                expected[key] = verdict
        assert table.due(now, landed=landed, spacing=step if landed else 0, events=events) == expected


def test_fast_groups_are_evaluated_together() -> None:
    assert begin(5000, "a") == begin(5000, "b") == Slots(5000)


def test_a_group_that_is_held_is_not_due_and_counts_what_it_missed_when_it_is_released() -> None:
    table = Timetable()
    table.adopt({"slow": 1000, "fast": 1000})
    assert set(table.due(0, landed=True)) == {"slow", "fast"}
    table.hold("slow")
    for now in (1000, 2000, 3000):
        assert set(table.due(now, landed=True, spacing=1000)) == {"fast"}
    assert table.wait(3000) == 1500
    assert table.release("slow", 0) == 0
    verdict = table.due(3000, landed=True)["slow"]
    assert verdict.missed == 2
    table.hold("slow")
    assert table.release("slow", 6000) == 3  # it was due at 3000, and evaluated for 6000
    assert "slow" not in table.due(6000, landed=True)
    assert "slow" in table.due(7000, landed=True, spacing=1000)
