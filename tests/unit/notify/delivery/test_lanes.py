"""What an endpoint is sent next, by times passed in."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.notify.delivery.lanes import Item, Lanes, covers, given_up
from exporter.notify.delivery.pace import Circuit, Pace, wait_after
from exporter.notify.model import Alert, Notification, Outcome

PACE = Pace()
DELIVERED = Outcome("delivered", "200", 200)
BUSY = Outcome("retry", "503", 503)
REFUSED = Outcome("refused", "400", 400)
FOREVER = 1e9


def alert(name: str) -> Alert:
    return Alert((("alertname", name),), (), 1.0)


def notification(number: int, group: str = "g", *names: str) -> Notification:
    alerts = tuple(alert(name) for name in names or (group,))
    return Notification(number, "r", "webhook[0]", group, (), alerts, 100.0)


def item(number: int, group: str = "g", *names: str, deadline: float = FOREVER) -> Item:
    return Item(notification(number, group, *names), deadline)


def put(lanes: Lanes, *items: Item, now: float = 0.0) -> list[int]:
    return [old.notification.number for one in items for old in lanes.put(one, now)]


def started(lanes: Lanes, now: float) -> list[Item]:
    return lanes.start(now)


def numbers(items: list[Item]) -> list[int]:
    return [one.notification.number for one in items]


def finish(lanes: Lanes, one: Item, outcome: Outcome, now: float, draw: float = 1.0) -> str:
    verdict = lanes.ended(one, outcome, now, draw)
    lanes.release(one)
    return verdict.became


def test_a_group_is_sent_in_order_and_one_at_a_time() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1), item(2), item(3))
    for number in (1, 2, 3):
        (one,) = started(lanes, 0.0)
        assert one.notification.number == number
        assert started(lanes, 0.0) == []
        assert lanes.ended(one, DELIVERED, 0.0, 0.5).became == "delivered"
        assert started(lanes, 0.0) == [], "not before it is struck off"
        lanes.release(one)
    assert len(lanes) == 0 and lanes.wake() == pytest.approx(FOREVER)


def test_groups_go_side_by_side_but_not_more_than_four() -> None:
    lanes = Lanes(PACE)
    put(lanes, *(item(n, f"g{n}") for n in range(6)))
    first = started(lanes, 0.0)
    assert numbers(first) == [0, 1, 2, 3]
    finish(lanes, first[2], DELIVERED, 0.1)
    assert numbers(started(lanes, 0.1)) == [4]


def test_a_failing_group_does_not_hold_another_back() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1, "bad"), item(2, "good"))
    bad, good = started(lanes, 0.0)
    assert finish(lanes, bad, BUSY, 0.0) == "retry"
    assert finish(lanes, good, DELIVERED, 0.0) == "delivered"
    put(lanes, item(3, "good"))
    assert numbers(started(lanes, 0.0)) == [3]
    assert lanes.wake() == 1.0
    assert numbers(started(lanes, 1.0)) == [1]


def test_waits_double_with_full_jitter_up_to_five_minutes() -> None:
    assert [wait_after(n, None, 1.0, PACE) for n in (1, 2, 3, 9, 10, 400)] == [1, 2, 4, 256, 300, 300]
    assert wait_after(5, None, 0.25, PACE) == 4.0
    assert wait_after(5, None, 0.0, PACE) == 0.0


def test_retry_after_is_honoured_by_the_whole_endpoint_and_within_reason() -> None:
    assert wait_after(1, 120.0, 0.5, PACE) == 120.0
    assert wait_after(1, 1e9, 0.5, PACE) == 3600.0
    lanes = Lanes(PACE)
    put(lanes, item(1, "a"))
    (one,) = started(lanes, 0.0)
    finish(lanes, one, Outcome("retry", "429", 429, 30.0), 0.0)
    put(lanes, item(2, "b"), now=1.0)
    assert started(lanes, 1.0) == []
    assert lanes.wake() == 30.0
    assert sorted(numbers(started(lanes, 30.0))) == [1, 2]


def test_a_rate_limit_opens_no_circuit() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1))
    now = 0.0
    for _ in range(8):
        (one,) = started(lanes, now)
        finish(lanes, one, Outcome("retry", "429", 429, 1.0), now, draw=0.0)
        now += 1.0
    assert lanes.circuit.state == "closed"


def fail_until_open(lanes: Lanes, now: float) -> float:
    while lanes.circuit.state == "closed":
        now = max(now, lanes.wake() or 0.0)
        for one in started(lanes, now):
            finish(lanes, one, BUSY, now, draw=0.0)
    return now


def test_after_five_failures_in_a_row_one_trial_is_made_at_longer_and_longer_intervals() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1, "a"), item(2, "b"))
    now = fail_until_open(lanes, 0.0)
    gaps = []
    for _ in range(6):
        at = lanes.wake()
        assert at is not None
        assert started(lanes, at - 0.01) == []
        trial = started(lanes, at)
        assert len(trial) == 1 and lanes.circuit.state == "half_open"
        assert started(lanes, at) == [] and lanes.wake() == FOREVER
        finish(lanes, trial[0], BUSY, at)
        gaps.append(at - now)
        now = at
    assert gaps == [30, 60, 120, 240, 300, 300]


def test_when_a_trial_succeeds_all_that_waits_goes_at_once() -> None:
    lanes = Lanes(PACE)
    put(lanes, *(item(n, f"g{n}") for n in range(5)))
    fail_until_open(lanes, 0.0)
    (trial,) = started(lanes, 30.0)
    finish(lanes, trial, DELIVERED, 30.0)
    assert lanes.circuit == Circuit()
    assert len(started(lanes, 30.0)) == 4


def test_news_gets_a_trial_soon_after_the_last_failure_and_before_what_has_failed() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1, "poison"))
    now = fail_until_open(lanes, 0.0)
    for _ in range(3):
        now = lanes.wake() or 0.0
        (one,) = started(lanes, now)
        finish(lanes, one, BUSY, now)
    put(lanes, item(2, "news"), now=now + 1)
    assert lanes.wake() == now + PACE.fresh_trial
    assert numbers(started(lanes, now + PACE.fresh_trial)) == [2]


def test_what_began_and_ended_while_the_line_was_dead_is_not_told_all_at_once_afterwards() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1, "other"))
    now = fail_until_open(lanes, 0.0)
    for number in range(2, 100):
        lanes.put(item(number, "flaps"), now)
    waiting = [one.notification.number for one, _, _ in lanes.items()]
    assert len(waiting) <= PACE.crowded_lane + 1
    assert waiting[-1] == 99


def test_what_somebody_gets_up_for_does_not_wait_behind_everything_else() -> None:
    lanes = Lanes(PACE)
    for number in range(1, 100):
        put(lanes, item(number, f"g{number}"))
    urgent = replace(alert("down"), labels=(("alertname", "down"), ("severity", "critical")))
    put(lanes, Item(replace(notification(100, "urgent"), alerts=(urgent,)), FOREVER))
    assert numbers(started(lanes, 0.0))[0] == 100


def test_a_refusal_is_final_and_shows_that_the_endpoint_is_there() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1), item(2, "g", "b"))
    fail_until_open(lanes, 0.0)
    (trial,) = started(lanes, 30.0)
    assert finish(lanes, trial, REFUSED, 30.0) == "dead"
    assert lanes.circuit.state == "closed"
    assert numbers(started(lanes, 30.0)) == [2]


def test_what_failed_is_superseded_by_a_newer_one_that_says_of_each_of_its_alerts_what_is_so_now() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1, "g", "a", "b"))
    (one,) = started(lanes, 0.0)
    finish(lanes, one, BUSY, 0.0)
    assert put(lanes, item(2, "g", "a")) == [], "nothing is said of b"
    assert put(lanes, item(3, "g", "a", "b", "c"), now=0.1) == [1]
    assert numbers(started(lanes, 0.1)) == [2], "never tried, never dropped; and the wait was the old one's"
    assert len(lanes) == 2


def test_what_fails_while_a_newer_one_waits_is_superseded_then() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1, "g", "a"))
    (one,) = started(lanes, 0.0)
    assert put(lanes, item(2, "g", "a")) == [], "the attempt under way may succeed"
    assert finish(lanes, one, BUSY, 0.0) == "superseded"
    assert numbers(started(lanes, 0.0)) == [2]


def test_what_is_sent_again_takes_the_place_of_nothing_newer() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(2, "g", "a"))
    (resolved,) = started(lanes, 0.0)
    finish(lanes, resolved, BUSY, 0.0)
    assert put(lanes, item(1, "g", "a")) == [], (
        "an old dead letter struck the news off that waited to be retried"
    )
    (again,) = started(lanes, 1.0)
    assert again.notification.number == 1
    assert finish(lanes, again, DELIVERED, 1.0) == "delivered"
    assert numbers(started(lanes, 1.0)) == [2], "the last that is heard is what is so now"


def test_what_is_sent_again_and_fails_gives_way_to_what_is_newer_but_not_the_other_way() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(2, "g", "a"))
    (newer,) = started(lanes, 0.0)
    put(lanes, item(1, "g", "a"))
    assert finish(lanes, newer, BUSY, 0.0) == "retry", "the older one says nothing of what is so now"
    (older,) = started(lanes, 1.0)
    assert older.notification.number == 1
    assert finish(lanes, older, BUSY, 1.0) == "superseded"
    assert numbers(started(lanes, 1.0)) == [2]


def test_covering_asks_for_every_alert() -> None:
    old = notification(1, "g", "a", "b")
    assert covers([notification(2, "g", "b", "a", "c")], old)
    assert not covers([notification(2, "g", "a")], old)
    assert covers([notification(2, "g", "a"), notification(3, "g", "b")], old)
    assert not covers([old], notification(2, "g", "a")), "the older one never covers the newer"


def test_what_failed_is_superseded_by_newer_ones_that_say_it_together() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1, "g", "a", "b", "c"))
    (one,) = started(lanes, 0.0)
    assert put(lanes, item(2, "g", "a"), item(3, "g", "b")) == []
    assert finish(lanes, one, BUSY, 0.0) == "retry"
    assert put(lanes, item(4, "g", "c"), now=0.1) == [1]
    assert numbers(started(lanes, 0.1)) == [2]


def test_what_fails_while_newer_ones_wait_that_say_it_together_is_superseded_then() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1, "g", "a", "b"))
    (one,) = started(lanes, 0.0)
    put(lanes, item(2, "g", "a"), item(3, "g", "b"))
    assert finish(lanes, one, BUSY, 0.0) == "superseded"


def test_in_a_crowd_a_group_whose_alerts_come_and_go_keeps_no_more_than_says_what_is_so_now() -> None:
    lanes = Lanes(Pace(crowded_alerts=4))
    number = 0
    for _ in range(50):
        for pair in ("ab", "bc", "cd", "da"):
            number += 1
            put(lanes, item(number, "g", *pair))
    assert len(lanes) <= 3, "of each alone, none is told of by one newer"


def test_what_waits_has_a_bound_and_what_would_be_given_up_first_goes_first() -> None:
    lanes = Lanes(Pace(most_alerts=10))
    for number in range(1, 31):
        put(lanes, item(number, f"g{number % 3}", f"a{number}", f"b{number}", deadline=100.0 + number))
        if number == 3:
            under_way = started(lanes, 0.0)
    gone = lanes.overfull(0.0)
    assert numbers(gone) == list(range(4, 29)), "what is under way stays"
    assert lanes.overfull(0.0) == [] and len(lanes) == 5
    for one in under_way:
        finish(lanes, one, BUSY, 0.0)
    put(lanes, item(31, "g", *(f"c{n}" for n in range(11)), deadline=200.0))
    assert numbers(lanes.overfull(1.0)) == [1, 2, 3, 29, 30]
    assert numbers(started(lanes, 1.0)) == [31], "whatever its size, the news stays"
    put(lanes, item(32, "h", "d", deadline=50.0), now=1.0)
    assert lanes.overfull(1.0) == [], "one is under way, one came last"


def test_what_has_failed_and_is_over_is_withdrawn_where_nobody_would_be_told_of_its_end() -> None:
    lanes = Lanes(PACE)
    watched, other, fresh = item(1, "a"), item(2, "b"), item(3, "c")
    watched.watched = fresh.watched = True
    put(lanes, watched, other)
    for one in started(lanes, 0.0):
        finish(lanes, one, BUSY, 0.0)
    put(lanes, fresh)
    assert lanes.withdraw(lambda notification: False, 0.0) == []
    assert numbers(lanes.withdraw(lambda notification: True, 0.0)) == [1]
    assert len(lanes) == 2


def test_where_nothing_is_watched_nobody_looks_whether_it_is_over() -> None:
    lanes = Lanes(PACE)
    watched = item(1, "a")
    watched.watched = True
    put(lanes, watched, *(item(number, f"g{number}") for number in range(2, 100)))
    for one in started(lanes, 0.0):
        finish(lanes, one, BUSY if one is watched else DELIVERED, 0.0)
    assert numbers(lanes.withdraw(lambda notification: True, 0.0)) == [1]
    lanes._lanes = None  # type: ignore[assignment]  # to walk it would raise
    assert lanes.withdraw(lambda notification: True, 0.0) == []


def test_in_a_crowd_newer_ones_supersede_even_what_was_never_tried() -> None:
    lanes = Lanes(Pace(crowded_alerts=4))
    assert put(lanes, item(1, "g", "a", "b"), item(2, "g", "a", "b")) == []
    assert put(lanes, item(3, "g", "a", "b")) == [1, 2]
    assert put(lanes, item(4, "g", "a", "b")) == []
    (one,) = started(lanes, 0.0)
    assert put(lanes, item(5, "g", "a", "b"), item(6, "h", *"abcdef")) == [4], "but what is under way stays"
    assert one.notification.number == 3 and len(lanes) == 3


def test_what_fails_past_its_time_is_given_up() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1, deadline=10.0))
    (one,) = started(lanes, 0.0)
    assert finish(lanes, one, BUSY, 0.0) == "retry"
    (one,) = started(lanes, 5.0)
    verdict = lanes.ended(one, BUSY, 10.0, 0.5)
    assert verdict.became == "dead" and verdict.outcome.detail == "given up: 503"


def test_what_waits_out_its_time_is_given_up_then_and_lets_the_next_go() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1, "g", "a", deadline=0.7), item(2, "g", "b"))
    (one,) = started(lanes, 0.0)
    finish(lanes, one, BUSY, 0.0)
    assert lanes.wake() == 0.7
    assert lanes.expired(0.6) == []
    assert numbers(lanes.expired(0.7)) == [1]
    assert numbers(started(lanes, 0.7)) == [2]


def test_what_was_never_tried_is_not_given_up_before_it_was_unless_its_endpoint_is_down() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1, deadline=-5.0))
    assert lanes.expired(0.0) == []
    (one,) = started(lanes, 0.0)
    assert finish(lanes, one, BUSY, 0.0) == "dead"

    put(lanes, item(2, "down", deadline=1000.0))
    fail_until_open(lanes, 0.0)
    put(lanes, item(3, "g", deadline=20.0), now=10.0)
    assert numbers(lanes.expired(20.0)) == [3]
    assert given_up(None).detail.startswith("given up")


def test_what_is_over_leaves_nothing_behind() -> None:
    lanes = Lanes(PACE)
    for number in range(1, 2001):
        put(lanes, item(number, f"g{number}"))
        (one,) = started(lanes, 0.0)
        finish(lanes, one, DELIVERED, 0.0)
    put(lanes, item(2001, "down"))
    now = fail_until_open(lanes, 0.0)
    for number in range(2002, 4002):
        put(lanes, item(number, "down", deadline=FOREVER), now=now)
        one = lanes._items[number]
        one.attempts = 1
    assert len(lanes) == 1
    assert len(lanes._deadlines) < 100 and len(lanes._due) < 100, "one of each was kept for a day"
    assert numbers(started(lanes, now + 30.0)) == [4001]


def test_new_settings_close_the_circuit_and_forget_all_waits() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1, "a"), item(2, "b"))
    now = fail_until_open(lanes, 0.0)
    lanes.reset(now)
    assert lanes.circuit.state == "closed"
    assert sorted(numbers(started(lanes, now))) == [1, 2]


def test_clearing_leaves_what_is_under_way() -> None:
    lanes = Lanes(PACE)
    put(lanes, item(1, "a"), item(2, "a"), item(3, "b"), item(4, "b"))
    under_way = started(lanes, 0.0)
    assert sorted(numbers(lanes.clear())) == [2, 4]
    for one in under_way:
        finish(lanes, one, BUSY, 0.0)
    assert sorted(numbers(lanes.clear())) == [1, 3]
    assert len(lanes) == 0


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 0.7, 0.95]), st.booleans())
def test_whatever_happens_nothing_is_lost_and_each_group_keeps_its_order(
    seed: int, failing: float, mixed: bool
) -> None:
    dice = random.Random(seed)
    lanes = Lanes(PACE)
    now, number = 0.0, 0
    under_way: list[Item] = []
    sent: dict[str, list[int]] = defaultdict(list)
    fate: dict[int, str] = {}
    given: dict[int, Notification] = {}
    while number < 60 or len(lanes) or under_way:
        if number >= 60:
            failing = 0.0
        step = dice.random()
        if step < 0.3 and number < 60:
            number += 1
            group = dice.choice("abcdef")
            names = dice.sample("uvwxyz", dice.randint(1, 4)) if mixed else ["u"]
            one = item(number, group, *names)
            given[number] = one.notification
            waited = sum(other.notification.group_key == group for other, _, _ in lanes.items())
            for old in lanes.put(one, now):
                assert old.attempts or waited >= PACE.crowded_lane
                assert covers(given.values(), old.notification)
                fate[old.notification.number] = "superseded"
        elif step < 0.6 and under_way:
            one = under_way.pop(dice.randrange(len(under_way)))
            draw = dice.random()
            if draw < failing:
                outcome = Outcome("retry", "x", dice.choice([429, 503, None]), dice.choice([None, 2.0]))
            else:
                outcome = REFUSED if dice.random() < 0.1 else DELIVERED
            became = finish(lanes, one, outcome, now, dice.random())
            if became != "retry":
                fate[one.notification.number] = became
        else:
            new = lanes.start(now)
            for one in new:
                sent[one.notification.group_key].append(one.notification.number)
            under_way += new
            assert len(under_way) <= PACE.parallel
            groups = [one.notification.group_key for one in under_way]
            assert len(groups) == len(set(groups))
            wake = lanes.wake()
            assert wake is None or wake > now, "it would turn round and round"
            if wake is not None and wake < FOREVER:
                now = max(now, wake if dice.random() < 0.7 else now + dice.random())
            elif not under_way and len(lanes):
                raise AssertionError("it would wait for ever")
    assert fate.keys() == given.keys()
    assert all(numbers == sorted(numbers) for numbers in sent.values())
