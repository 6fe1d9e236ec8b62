"""From transitions to alerts, as Prometheus would send them. Times in unix seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from exporter.alerting.holding import RULE_GONE, Standing
from exporter.alerting.remembered import Remembered
from exporter.alerting.state import Alert as RuleAlert
from exporter.alerting.transition import Transition
from exporter.notify import intake
from exporter.notify.intake import Intake
from exporter.notify.model import Alert
from exporter.storage.model import Labels

NOW = 1_700_000_000.0
OWN: Labels = (("alertname", "Queue"), ("severity", "warning"))
SAID: Labels = (("summary", "9 wait"),)
QUERY = 'sum by (job) (waiting{source="engine"}) > 5'


class Rules:
    """Rules that say what a test tells them to."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[Sequence[Transition]], None]] = []
        self.fire: dict[Labels, tuple[Labels, float]] = {}
        self.held: list[Remembered] = []
        self.gone: set[Labels] = set()

    def subscribe(self, callback: Callable[[Sequence[Transition]], None]) -> None:
        self.callbacks.append(callback)

    def firing(self) -> Iterator[tuple[RuleAlert, str]]:
        for own, (said, fired) in self.fire.items():
            yield RuleAlert(own, said, 9.0, "firing", round((fired - 5) * 1000), round(fired * 1000)), QUERY

    def hold(self, alerts: Iterable[Remembered]) -> list[Remembered]:
        self.held = list(alerts)
        return [one for one in self.held if one.labels in self.gone]

    def tell(self, *transitions: Transition) -> None:
        for callback in self.callbacks:
            callback(transitions)


def transition(
    before: Standing,
    after: Standing,
    *,
    own: Labels = OWN,
    said: Labels = SAID,
    at: float = NOW,
    fired: float | None = NOW,
    no_data_since: float | None = None,
    reason: str = "",
) -> Transition:
    state: Any = "inactive" if after == "held" else after
    fired_ms = None if fired is None else round(fired * 1000)
    alert = RuleAlert(own, said, 9.0, state, round(at * 1000), fired_ms)
    return Transition("f.yml", "g", "Queue", QUERY, alert, before, after, at, no_data_since, reason)


class Desk:
    def __init__(self, **given: Any) -> None:
        self.rules = Rules()
        self.batches: list[list[Alert]] = []
        self.now = NOW
        self.intake = Intake(
            self.rules,
            lambda alerts: self.batches.append(list(alerts)),
            external_url="http://box:9108/",
            clock=lambda: self.now,
            **given,
        )

    @property
    def last(self) -> Alert:
        return self.batches[-1][-1]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_an_alert_that_fires_is_told_as_prometheus_tells_it(desk: Desk) -> None:
    desk.rules.tell(transition("inactive", "pending", fired=None))
    assert not desk.batches
    desk.rules.tell(transition("pending", "firing", at=NOW + 3, fired=NOW + 3))
    assert desk.last == Alert(
        labels=OWN,
        annotations=SAID,
        starts_at=NOW + 3,
        updated_at=NOW + 3,
        generator_url="http://box:9108/graph?g0.expr=sum+by+%28job%29+%28waiting%7Bsource%3D%22engine%22%7D%29+%3E+5&g0.tab=1",
    )


def test_alerts_share_what_they_have_in_common_with_each_other_and_with_their_rule(desk: Desk) -> None:
    desk.rules.tell(*[transition("inactive", "firing", own=(("alertname", f"A{n}"),)) for n in range(2)])
    one, other = desk.batches[-1]
    assert one.annotations is SAID and other.annotations is SAID
    assert one.generator_url is other.generator_url


def test_annotations_are_sorted_and_none_says_nothing(desk: Desk) -> None:
    said: Labels = (("summary", "9 wait"), ("b", ""), ("a", "x"))
    desk.rules.tell(transition("inactive", "firing", said=said))
    assert desk.last.annotations == (("a", "x"), ("summary", "9 wait"))


def test_an_alert_that_ends_says_when_and_one_that_never_fired_says_nothing(desk: Desk) -> None:
    desk.rules.tell(transition("pending", "inactive", fired=None))
    assert not desk.batches
    desk.rules.tell(transition("inactive", "firing"))
    fired = desk.last
    desk.rules.tell(transition("firing", "inactive", at=NOW + 60))
    assert desk.last == replace(fired, ends_at=NOW + 60, updated_at=NOW + 60)
    assert desk.last.status(NOW + 60) == "resolved"


def test_an_alert_whose_rule_wants_it_pending_again_is_over(desk: Desk) -> None:
    desk.rules.tell(transition("inactive", "firing"))
    desk.rules.tell(transition("firing", "pending", at=NOW + 60, fired=None))
    assert (desk.last.starts_at, desk.last.ends_at) == (NOW, NOW + 60)


def test_one_evaluation_is_one_batch(desk: Desk) -> None:
    many = [transition("inactive", "firing", own=(("alertname", f"A{n}"),)) for n in range(100)]
    desk.rules.tell(*many, transition("inactive", "pending", fired=None))
    assert [len(batch) for batch in desk.batches] == [100]


def test_an_alert_without_data_fires_on_until_its_data_says_otherwise(desk: Desk) -> None:
    desk.rules.tell(transition("inactive", "firing"))
    desk.rules.tell(transition("firing", "held", at=NOW + 10, no_data_since=NOW + 10))
    assert (desk.last.status(NOW + 99), desk.last.no_data_since) == ("firing", NOW + 10)
    desk.rules.tell(transition("held", "firing", at=NOW + 20))
    assert (desk.last.starts_at, desk.last.no_data_since) == (NOW, None)
    desk.rules.tell(transition("firing", "held", at=NOW + 30, no_data_since=NOW + 30))
    desk.rules.tell(transition("held", "inactive", at=NOW + 40))
    assert (desk.last.ends_at, desk.last.no_data_since) == (NOW + 40, None)


def test_an_alert_that_is_given_up_says_that_it_had_no_data(desk: Desk) -> None:
    desk.rules.tell(transition("inactive", "firing"))
    desk.rules.tell(transition("firing", "held", at=NOW + 10, no_data_since=NOW + 10))
    desk.rules.tell(transition("held", "inactive", at=NOW + 99, no_data_since=NOW + 10))
    assert (desk.last.ends_at, desk.last.no_data_since) == (NOW + 99, NOW + 10)


def test_an_alert_that_ends_for_another_reason_than_its_condition_says_why(desk: Desk) -> None:
    desk.rules.tell(transition("inactive", "firing"))
    desk.rules.tell(transition("firing", "held", at=NOW + 10, no_data_since=NOW + 10))
    desk.rules.tell(transition("held", "inactive", at=NOW + 99, reason=RULE_GONE))
    assert (desk.last.ends_at, desk.last.annotations) == (NOW + 99, (("ended", RULE_GONE), *SAID))
    desk.rules.tell(transition("inactive", "firing", at=NOW + 100, fired=NOW + 100))
    assert desk.last.annotations == SAID
    desk.rules.tell(transition("firing", "inactive", at=NOW + 110))
    assert desk.last.annotations == SAID


def test_external_labels_are_added_where_an_alert_has_none_of_that_name() -> None:
    desk = Desk(external_labels={"cluster": "c1", "severity": "none", "empty": ""})
    desk.rules.tell(transition("inactive", "firing"))
    assert desk.last.labels == (("alertname", "Queue"), ("cluster", "c1"), ("severity", "warning"))
    desk.rules.tell(transition("firing", "inactive", at=NOW + 1))
    assert desk.last.labels == (("alertname", "Queue"), ("cluster", "c1"), ("severity", "warning"))


def test_annotations_that_say_nothing_are_left_out(desk: Desk) -> None:
    desk.rules.tell(transition("inactive", "firing", said=(("description", ""), ("summary", "s"))))
    assert desk.last.annotations == (("summary", "s"),)


def test_a_clock_that_is_ahead_of_itself_gives_no_alert_of_the_future(desk: Desk) -> None:
    desk.rules.tell(transition("held", "firing", at=NOW, fired=NOW + 500))
    assert desk.last.starts_at == NOW


# --- refreshing


def test_texts_are_brought_up_to_date_in_one_batch_and_only_where_they_changed(desk: Desk) -> None:
    other: Labels = (("alertname", "Other"),)
    desk.rules.tell(transition("inactive", "firing"), transition("inactive", "firing", own=other))
    desk.rules.fire = {OWN: ((("summary", "12 wait"),), NOW), other: (SAID, NOW)}
    desk.now = NOW + 60
    desk.intake.refresh()
    assert len(desk.batches) == 2
    (alert,) = desk.batches[-1]
    assert (alert.annotations, alert.starts_at, alert.updated_at) == (
        (("summary", "12 wait"),),
        NOW,
        NOW + 60,
    )
    desk.intake.refresh()
    assert len(desk.batches) == 2


def test_an_alert_without_data_keeps_what_it_said_last(desk: Desk) -> None:
    desk.rules.tell(transition("inactive", "firing"))
    desk.rules.tell(transition("firing", "held", at=NOW + 10, no_data_since=NOW + 10))
    desk.rules.fire = {OWN: ((("summary", "12 wait"),), NOW)}
    desk.intake.refresh()
    assert len(desk.batches) == 2


def test_an_alert_that_fires_and_is_not_known_to_others_is_told(desk: Desk) -> None:
    desk.rules.fire = {OWN: (SAID, NOW - 100)}
    desk.intake.refresh()
    assert (desk.last.starts_at, desk.last.updated_at) == (NOW - 100, NOW)


async def test_texts_are_refreshed_again_and_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "REFRESH_SECONDS", 0)
    desk.rules.fire = {OWN: (SAID, NOW)}

    class EnoughError(Exception):
        pass

    def put(alerts: Sequence[Alert]) -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        await Intake(desk.rules, put, clock=lambda: NOW).run()


# --- what others add


def test_what_is_known_beyond_the_rules_is_asked_for_when_an_alert_fires() -> None:
    asked: list[Labels] = []

    def enrich(labels: Labels) -> Mapping[str, str]:
        asked.append(labels)
        return {"diagnosis": "out of memory", "summary": "not this one"}

    desk = Desk(enrich=enrich, external_labels={"cluster": "c"})
    desk.rules.tell(transition("inactive", "pending", fired=None))
    desk.rules.tell(transition("pending", "firing"))
    desk.rules.tell(transition("firing", "inactive", at=NOW + 1))
    assert [dict(batch[0].annotations) for batch in desk.batches] == [
        {"diagnosis": "out of memory", "summary": "9 wait"}
    ] * 2
    assert asked == [OWN]


def test_what_is_known_later_comes_with_the_next_refresh_and_stays() -> None:
    known: dict[str, str] = {}
    desk = Desk(enrich=lambda labels: dict(known))
    desk.rules.tell(transition("inactive", "firing"))
    desk.rules.fire = {OWN: (SAID, NOW)}
    desk.intake.refresh()
    assert len(desk.batches) == 1
    known["diagnosis"] = "first"
    desk.intake.refresh()
    known["diagnosis"] = "of something else"
    desk.intake.refresh()
    assert len(desk.batches) == 2
    assert dict(desk.last.annotations)["diagnosis"] == "first"


# --- after a restart


def test_alerts_that_others_knew_are_held_and_which_labels_may_be_external_is_said() -> None:
    desk = Desk(external_labels={"cluster": "c1"})
    labels = tuple(sorted((*OWN, ("cluster", "c1"))))
    saved = Alert(labels, SAID, NOW - 100, no_data_since=NOW - 50, generator_url="http://box:9108/graph")
    over = Alert((("alertname", "Over"),), (), NOW - 100, ends_at=NOW - 10)
    pushed = Alert((("alertname", "Pushed"),), (), NOW - 100, until=NOW + 100)
    desk.intake.remember([saved, over, pushed])
    assert desk.rules.held == [Remembered(labels, SAID, NOW - 100, NOW - 50, (("cluster", "c1"),))]
    assert not desk.batches
    desk.rules.tell(transition("held", "inactive", said=(), at=NOW + 5, fired=NOW - 100))
    assert desk.last == replace(saved, ends_at=NOW + 5, updated_at=NOW + 5, no_data_since=None)


def test_what_had_ended_is_not_remembered_as_firing_when_the_clock_was_set_back(desk: Desk) -> None:
    desk.intake.remember([Alert(OWN, SAID, NOW - 100, ends_at=NOW + 3600)])
    assert desk.rules.held == []


def test_a_remembered_alert_that_fires_again_is_the_same_one(desk: Desk) -> None:
    desk.intake.remember([Alert(OWN, SAID, NOW - 100)])
    desk.rules.tell(transition("held", "firing", fired=NOW - 100))
    assert (desk.last.starts_at, desk.last.labels) == (NOW - 100, OWN)


def test_a_remembered_alert_whose_rule_is_gone_is_over_at_once(desk: Desk) -> None:
    desk.rules.gone = {OWN}
    saved = Alert(OWN, SAID, NOW - 100)
    desk.intake.remember([saved])
    why = (("ended", RULE_GONE), *SAID)
    assert desk.batches == [[replace(saved, annotations=why, ends_at=NOW, updated_at=NOW)]]


def test_two_alerts_of_the_same_labels_once_external_ones_are_added_do_not_end_each_other() -> None:
    desk = Desk(external_labels={"severity": "warning"})
    desk.intake.remember([Alert(OWN, SAID, NOW - 100)])
    shadow = OWN[:1]
    desk.rules.tell(transition("held", "firing", fired=NOW - 100))
    desk.rules.tell(transition("firing", "inactive", own=shadow, fired=NOW - 100))
    assert [batch[0].ends_at for batch in desk.batches] == [None]
    desk.rules.tell(transition("firing", "inactive", at=NOW + 1))
    assert desk.last.ends_at == NOW + 1
