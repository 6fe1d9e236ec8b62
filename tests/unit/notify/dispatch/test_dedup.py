"""The cases of `TestDedupStageNeedsUpdate` in Alertmanager's notify_test.go, and some more, in our words."""

from __future__ import annotations

import pytest

from exporter.notify.dispatch.dedup import Reason, Told, reason_to_tell
from exporter.notify.outbox.model import LogEntry


def reason(
    told: tuple[set[int], set[int]] | None,
    firing: set[int],
    resolved: set[int],
    *,
    send_resolved: bool = True,
    age: float = 10.0,
) -> Reason:
    entry = None
    if told is not None:
        entry = Told(LogEntry("{}:{}", "r", "webhook[0]", frozenset(told[0]), frozenset(told[1]), 0.0), 0.0)
    return reason_to_tell(
        entry,
        frozenset(firing),
        frozenset(resolved),
        send_resolved=send_resolved,
        repeat_interval=3600.0,
        timer=age,
    )


@pytest.mark.parametrize(
    ("told", "firing", "resolved", "expected"),
    [
        (None, {1}, set(), Reason.FIRST),
        (None, set(), {1}, Reason.NOTHING_NEW),
        (({1}, set()), {1}, set(), Reason.NOTHING_NEW),
        (({1}, set()), {1, 2}, set(), Reason.NEW_ALERTS),
        ((set(), {1}), {1}, set(), Reason.FIRST),
        (({1, 2}, set()), {1}, {2}, Reason.NEW_RESOLVED),
        (({1, 2}, {2}), {1}, {2}, Reason.NOTHING_NEW),
        (({1, 2}, set()), {1}, set(), Reason.NOTHING_NEW),
        (({1}, set()), set(), {1}, Reason.ALL_RESOLVED),
        ((set(), {1}), set(), {1}, Reason.NOTHING_NEW),
        ((set(), {1}), set(), {2}, Reason.NOTHING_NEW),
    ],
)
def test_an_endpoint_is_told_what_is_new_to_it(
    told: tuple[set[int], set[int]] | None, firing: set[int], resolved: set[int], expected: Reason
) -> None:
    assert reason(told, firing, resolved) is expected


def test_who_does_not_want_to_hear_of_ends_is_not_told_that_some_have_ended() -> None:
    assert reason(({1, 2}, set()), {1}, {2}, send_resolved=False) is Reason.NOTHING_NEW


def test_that_all_have_ended_is_noted_for_everyone() -> None:
    assert reason(({1}, set()), set(), {1}, send_resolved=False) is Reason.ALL_RESOLVED


def test_what_is_not_new_is_said_again_when_the_interval_is_over_and_not_before() -> None:
    assert reason(({1}, set()), {1}, set(), age=3599.0) is Reason.NOTHING_NEW
    assert reason(({1}, set()), {1}, set(), age=3600.0) is Reason.REPEAT
