"""The alert state machine: sentences, and a slow reference that is written the other way round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from exporter.alerting.state import DUPLICATE, Alert, Found, Move, Step, Terms, forget, shift, step

MINUTE = 60_000
A = (("alertname", "Slow"), ("host", "a"))
B = (("alertname", "Slow"), ("host", "b"))


def found(*labels: Any, value: float = 1.0) -> list[Found]:
    return [Found(one, (("summary", f"at {value}"),), value) for one in labels]


def play(terms: Terms, *history: tuple[int, list[Found]]) -> Step:
    after = Step({}, ())
    for now, vector in history:
        after = step(after.alerts, vector, terms, now)
    return after


def states(terms: Terms, *history: tuple[int, list[Found]]) -> list[str]:
    """The state of alert A after each evaluation; `gone` when it is not known."""
    alerts: Any = {}
    seen = []
    for now, vector in history:
        alerts = step(alerts, vector, terms, now).alerts
        seen.append(alerts[A].state if A in alerts else "gone")
    return seen


def test_an_alert_without_for_fires_at_once() -> None:
    after = play(Terms(0, 0, 0), (5, found(A)))
    assert after.alerts[A] == Alert(A, (("summary", "at 1.0"),), 1.0, "firing", active_at=5, fired_at=5)
    assert [(move.before, move.after) for move in after.moves] == [("inactive", "firing")]


def test_an_alert_of_which_nothing_is_new_stays_the_same_object() -> None:
    """Whoever was told of it keeps it: with each evaluation 10,000 equal ones and their texts were made anew."""
    terms = Terms(0, 0, 0)
    labels, said = (("alertname", "A"),), (("summary", "9 wait"),)
    first = step({}, [Found(labels, said, 9.0)], terms, 0).alerts
    second = step(first, [Found(labels, (("summary", "9 wait"),), 9.0)], terms, 5000)
    assert second.alerts[labels] is first[labels] and not second.moves
    third = step(second.alerts, [Found(labels, (("summary", "9 wait"),), 10.0)], terms, 10_000).alerts[labels]
    assert third.value == 10.0 and third.annotations is said


def test_an_alert_is_pending_until_for_has_passed_to_the_millisecond() -> None:
    times = (0, 30_000, 59_999, 60_000)
    assert states(Terms(MINUTE, 0, 0), *[(now, found(A)) for now in times]) == [
        "pending",
        "pending",
        "pending",
        "firing",
    ]


def test_a_pending_alert_whose_condition_ends_is_gone_and_begins_anew() -> None:
    terms = Terms(MINUTE, 0, 0)
    assert states(terms, (0, found(A)), (50_000, []), (55_000, found(A)), (70_000, found(A))) == [
        "pending",
        "gone",
        "pending",
        "pending",
    ]


def test_a_firing_alert_whose_condition_ends_is_resolved_and_remembered_for_15_minutes() -> None:
    terms = Terms(0, 0, 0)
    after = play(terms, (0, found(A)), (10, []))
    assert (after.alerts[A].state, after.alerts[A].resolved_at) == ("inactive", 10)
    assert [(move.before, move.after) for move in after.moves] == [("firing", "inactive")]
    later = step(after.alerts, [], terms, 10 + 15 * MINUTE)
    assert A in later.alerts and not later.moves
    assert A not in step(later.alerts, [], terms, 11 + 15 * MINUTE).alerts


def test_a_resolved_alert_that_comes_back_is_active_since_then() -> None:
    after = play(
        Terms(MINUTE, 0, 0), (0, found(A)), (MINUTE, found(A)), (2 * MINUTE, []), (3 * MINUTE, found(A))
    )
    alert = after.alerts[A]
    assert (alert.state, alert.active_at, alert.fired_at, alert.resolved_at) == (
        "pending",
        3 * MINUTE,
        None,
        None,
    )


def test_value_and_annotations_follow_while_the_time_stays() -> None:
    after = play(Terms(MINUTE, 0, 0), (0, found(A, value=1)), (5, found(A, value=2)))
    assert (after.alerts[A].value, after.alerts[A].annotations) == (2, (("summary", "at 2"),))
    assert after.alerts[A].active_at == 0
    assert not after.moves


def test_an_alert_is_kept_firing_for_a_while_after_its_condition_ended() -> None:
    terms = Terms(0, MINUTE, 0)
    history = [(0, found(A)), (10_000, []), (69_999, []), (70_000, [])]
    assert states(terms, *history) == ["firing", "firing", "firing", "inactive"]
    assert play(terms, *history[:2]).alerts[A].keep_firing_since == 10_000


def test_a_condition_that_comes_back_in_time_ends_the_keeping() -> None:
    terms = Terms(0, MINUTE, 0)
    history = [(0, found(A)), (10_000, []), (20_000, found(A)), (75_000, []), (130_000, []), (135_000, [])]
    assert states(terms, *history) == ["firing"] * 5 + ["inactive"]
    assert play(terms, *history[:3]).alerts[A].active_at == 0


def test_a_pending_alert_is_never_kept() -> None:
    assert states(Terms(MINUTE, MINUTE, 0), (0, found(A)), (10_000, [])) == ["pending", "gone"]


def test_a_longer_for_after_a_reload_makes_a_firing_alert_pending_again() -> None:
    fired = play(Terms(MINUTE, 0, 0), (0, found(A)), (MINUTE, found(A)))
    after = step(fired.alerts, found(A), Terms(5 * MINUTE, 0, 0), 2 * MINUTE)
    assert (after.alerts[A].state, after.alerts[A].active_at, after.alerts[A].fired_at) == (
        "pending",
        0,
        None,
    )
    assert [(move.before, move.after) for move in after.moves] == [("firing", "pending")]


def test_the_same_labels_twice_are_an_error_and_change_nothing() -> None:
    before = play(Terms(MINUTE, 0, 0), (0, found(A)))
    after = step(before.alerts, found(B, B), Terms(MINUTE, 0, 0), 5)
    assert after == Step(before.alerts, (), DUPLICATE)


def test_more_active_alerts_than_the_limit_are_an_error_and_all_are_forgotten() -> None:
    before = play(Terms(0, 0, 1), (0, found(A)))
    after = step(before.alerts, found(A, B), Terms(0, 0, 1), 5)
    assert after.alerts == {}
    assert after.error == "exceeded limit of 1 with 2 alerts"
    assert [(move.alert.labels, move.after) for move in after.moves] == [(A, "inactive")]


def test_resolved_alerts_do_not_count_for_the_limit() -> None:
    after = play(Terms(0, 0, 1), (0, found(A)), (5, found(B)))
    assert after.error is None
    assert {alert.state for alert in after.alerts.values()} == {"inactive", "firing"}


def test_a_kept_alert_counts_for_the_limit() -> None:
    assert play(Terms(0, MINUTE, 1), (0, found(A)), (5, found(B))).error is not None


def test_a_rule_that_is_gone_ends_its_active_alerts_only() -> None:
    alerts = play(Terms(0, 0, 0), (0, found(A, B)), (5, found(B))).alerts
    assert [(move.alert.labels, move.before, move.alert.resolved_at) for move in forget(alerts, 9)] == [
        (B, "firing", 9)
    ]


def test_a_clock_that_is_set_back_leaves_what_has_passed() -> None:
    terms = Terms(MINUTE, 0, 0)
    alerts = play(terms, (1_000_000, found(A)), (1_050_000, found(A))).alerts
    after = step(shift(alerts, -900_000), found(A), terms, 160_000)
    assert (after.alerts[A].state, after.alerts[A].active_at) == ("firing", 100_000)


@dataclass
class Known:
    """An alert as the reference sees it, with Prometheus' fields; 0 is Go's zero time."""

    state: str
    active_at: int
    value: float
    resolved_at: int | None = None
    keep_since: int | None = None


class Reference:
    """One label at a time, changed in place, in the order of the description in Prometheus' documentation."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.known: dict[str, Known] = {}

    def evaluate(self, now: int, vector: dict[str, float]) -> str | None:
        hold, keep, limit = self.terms
        for name, value in vector.items():
            old = self.known.get(name)
            if old is None or old.state == "inactive":
                self.known[name] = Known("pending", now, value)
            else:
                old.value = value
        active = 0
        for name in list(self.known):
            one = self.known[name]
            if name in vector:
                one.keep_since = None
            else:
                kept = False
                if one.state == "firing" and keep:
                    if one.keep_since is None:
                        one.keep_since = now
                    kept = now - one.keep_since < keep
                old_enough = one.resolved_at is not None and now - one.resolved_at > 900_000
                if one.state == "pending" or old_enough:
                    del self.known[name]
                if one.state != "inactive" and not kept:
                    one.state, one.resolved_at = "inactive", now
                if not kept:
                    continue
            active += 1
            if one.state == "pending" and now - one.active_at >= hold:
                one.state = "firing"
            if one.state == "firing" and now - one.active_at < hold:
                one.state, one.keep_since = "pending", None
        if limit and active > limit:
            self.known = {}
            return f"exceeded limit of {limit} with {active} alerts"
        return None


NAMES = ("a", "b", "c")
evaluations = st.lists(
    st.tuples(
        st.sampled_from([1, 999, 1000, 5000, 30_000, 300_000, 900_000, 900_001]),
        st.dictionaries(st.sampled_from(NAMES), st.floats(allow_nan=False)),
        st.sampled_from([0, 1000, 5000, 60_000]),
    ),
    max_size=30,
)


@given(
    history=evaluations,
    keep=st.sampled_from([0, 1, 5000, 60_000, 1_000_000]),
    limit=st.sampled_from([0, 0, 1, 2]),
    reloads=st.booleans(),
)
def test_any_history_gives_what_the_reference_gives(
    history: list[tuple[int, dict[str, float], int]], keep: int, limit: int, reloads: bool
) -> None:
    reference = Reference(Terms(5000, keep, limit))
    alerts: Any = {}
    now = 1_700_000_000_000
    for wait, vector, hold in history:
        now += wait
        terms = Terms(hold if reloads else 5000, keep, limit)
        reference.terms = terms
        error = reference.evaluate(now, vector)
        after = step(alerts, [Found((("n", name),), (), value) for name, value in vector.items()], terms, now)
        assert after.error == error
        check_moves(alerts, after)
        alerts = after.alerts
        assert {
            dict(labels)["n"]: Known(
                alert.state, alert.active_at, alert.value, alert.resolved_at, alert.keep_firing_since
            )
            for labels, alert in alerts.items()
        } == {
            name: Known(
                one.state,
                one.active_at,
                one.value,
                one.resolved_at,
                one.keep_since if one.state == "firing" else None,
            )
            for name, one in reference.known.items()
        }


def check_moves(before: Any, after: Step) -> None:
    """The moves say exactly what differs between before and after."""

    def told(alerts: Any) -> dict[Any, str]:
        return {labels: alert.state for labels, alert in alerts.items() if alert.state != "inactive"}

    old, new = told(before), told(after.alerts)
    expected = {
        labels: (old.get(labels, "inactive"), new.get(labels, "inactive"))
        for labels in old.keys() | new.keys()
        if old.get(labels) != new.get(labels)
    }
    assert {move.alert.labels: (move.before, move.after) for move in after.moves} == expected
    assert all(isinstance(move, Move) and move.alert.state == move.after for move in after.moves)
