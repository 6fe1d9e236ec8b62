from __future__ import annotations

import pytest

from exporter.gateway.admission.fleet import Route
from exporter.gateway.admission.queue import Pace, Queue, Waiter
from exporter.gateway.model import Dialect, Endpoint, Exchange, Priority

CHAT = Endpoint("/v1/chat/completions", Dialect.CHAT, frozenset({"POST"}))


def waiter(
    name: str, route: Route, priority: Priority = Priority.INTERACTIVE, *, deadline: float = 60.0
) -> Waiter:
    exchange = Exchange(CHAT, "POST", name, "10.0.0.1", 0.0)
    exchange.priority = priority
    return Waiter(exchange, route, None, lambda answer: None, 0.0, deadline, held=False)


def drained(queue: Queue) -> list[str]:
    order = []
    while (first := queue.first(lambda route: True)) is not None:
        queue.remove(first)
        order.append(first.exchange.request_id)
    return order


def test_interactive_goes_before_batch_and_first_come_first_served_within_over_all_models():
    m, n = Route(), Route()
    queue = Queue()
    for name, route, priority in [
        ("1", m, Priority.BATCH),
        ("2", n, Priority.INTERACTIVE),
        ("3", m, Priority.INTERACTIVE),
        ("4", n, Priority.BATCH),
        ("5", m, Priority.BATCH),
        ("6", n, Priority.INTERACTIVE),
    ]:
        queue.push(waiter(name, route, priority))
    assert len(queue) == 6
    assert drained(queue) == ["2", "3", "6", "1", "4", "5"]
    assert len(queue) == 0
    assert not queue.lines


def test_who_waits_for_a_full_model_keeps_nobody_of_another_waiting():
    m, n = Route(), Route()
    queue = Queue()
    queue.push(waiter("m1", m))
    queue.push(waiter("n1", n, Priority.BATCH))
    first = queue.first(lambda route: route is n)
    assert first is not None and first.exchange.request_id == "n1"


def test_who_moves_to_another_line_stands_where_it_came():
    m, n = Route(), Route()
    queue = Queue()
    waiters = [waiter(str(i), m if i in (2, 4) else n) for i in range(6)]
    for one in waiters:
        queue.push(one)
    queue.move(waiters[2], n)
    assert [one.number for one in queue.lines[n]] == [1, 2, 3, 4, 6]
    queue.move(waiters[4], n)
    assert [one.number for one in queue.lines[n]] == [1, 2, 3, 4, 5, 6]
    assert m not in queue.lines
    assert drained(queue) == list("012345")


def test_those_whose_deadline_has_come_are_found_wherever_they_stand():
    m = Route()
    queue = Queue()
    for name, deadline in (("a", 10.0), ("b", 5.0), ("c", 7.0)):
        queue.push(waiter(name, m, deadline=deadline))
    assert [one.exchange.request_id for one in queue.expired(7.0)] == ["b", "c"]
    assert len(queue) == 3


def test_the_pace_is_not_known_before_the_queue_has_moved():
    pace = Pace()
    assert pace.seconds_for(5) is None
    pace.tick(0.0, waiting=False)
    pace.tick(1.0, waiting=True)
    assert pace.seconds_for(5) is None, "it stands still"


def test_the_pace_follows_how_many_are_let_in():
    pace = Pace()
    pace.tick(0.0, waiting=False)
    for second in range(1, 60):
        for _ in range(4):
            pace.let_in()
        pace.tick(float(second), waiting=True)
    assert pace.seconds_for(20) == pytest.approx(5.0)
    for second in range(60, 200):
        pace.tick(float(second), waiting=False)
    assert pace.seconds_for(20) == pytest.approx(5.0), "nobody waited: nothing is learned"
