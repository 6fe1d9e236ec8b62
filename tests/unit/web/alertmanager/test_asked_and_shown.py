from __future__ import annotations

from typing import Any

import pytest
from multidict import MultiDict

from exporter.notify.dispatch.views import AlertView
from exporter.notify.model import Alert
from exporter.notify.outbox.model import Silence
from exporter.storage.model import Matcher
from exporter.web.alertmanager import shown
from exporter.web.alertmanager.asked import AlertFilter, SilenceFilter
from exporter.web.alertmanager.model import ApiRefused

NOW = 1_763_700_000.0


def alert(**others: Any) -> Alert:
    labels = (("alertname", "Queue"), ("severity", "critical"))
    return Alert(labels, (("summary", "many wait"),), starts_at=NOW - 60, updated_at=NOW - 2, **others)


ACTIVE = AlertView(alert(), ("team", "webhook"), "active")
SILENCED = AlertView(alert(), ("team",), "suppressed", silenced_by=("id",))
INHIBITED = AlertView(alert(), ("team",), "suppressed", inhibited_by=(255,))
WAITING = AlertView(alert(), ("team",), "unprocessed")
ENDED = AlertView(alert(ends_at=NOW), ("team",), "active")


def read(*query: tuple[str, str]) -> AlertFilter:
    return AlertFilter.read(MultiDict(query))


@pytest.mark.parametrize(
    ("query", "views"),
    [
        ((), [ACTIVE, SILENCED, INHIBITED, WAITING]),
        ((("active", "false"),), [SILENCED, INHIBITED, WAITING]),
        ((("silenced", "false"),), [ACTIVE, INHIBITED, WAITING]),
        ((("inhibited", "false"), ("silenced", "false"), ("unprocessed", "false")), [ACTIVE, WAITING]),
        (
            (("filter", "severity=critical"), ("filter", 'alertname=~"Q.*"')),
            [ACTIVE, SILENCED, INHIBITED, WAITING],
        ),
        ((("filter", "severity=critical"), ("filter", 'alertname!="Queue"')), []),
        ((("filter", 'nothing=""'), ("active", "F"), ("silenced", "0")), [INHIBITED, WAITING]),
    ],
)
def test_alerts_are_chosen_by_state_and_labels(
    query: tuple[tuple[str, str], ...], views: list[AlertView]
) -> None:
    wanted = read(*query)
    assert [
        view for view in (ACTIVE, SILENCED, INHIBITED, WAITING, ENDED) if wanted.wants(view, NOW)
    ] == views


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ((), True),
        ((("receiver", ""),), True),
        ((("receiver", "team"),), True),
        ((("receiver", "te.*|x"),), True),
        ((("receiver", "tea"),), False),
        ((("receiver_matchers", 'owner="me"'),), False),
        ((("receiver_matchers", 'owner!="me"'),), True),
    ],
)
def test_receivers_are_asked_for_by_their_whole_names(
    query: tuple[tuple[str, str], ...], found: bool
) -> None:
    assert read(*query).names(("other", "team")) is found


@pytest.mark.parametrize(
    "query",
    [
        ("filter", "=x"),
        ("filter", '{a="b"}'),
        ("filter", "a=~("),
        ("receiver", "("),
        ("receiver_matchers", "x"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused(query: tuple[str, str]) -> None:
    with pytest.raises(ApiRefused) as refused:
        read(query)
    assert refused.value.status == 400
    assert "param" in str(refused.value)


def test_silences_are_chosen_by_the_matchers_that_they_have() -> None:
    matchers = (Matcher("alertname", "=", "Queue"), Matcher("job", "=~", "v.*"))
    silence = Silence("id", matchers, NOW, NOW + 60, NOW, "me", "")

    def found(*query: tuple[str, str]) -> bool:
        return SilenceFilter.read(MultiDict(query)).wants(silence)

    assert found()
    assert found(("filter", "alertname=Queue"))
    assert found(("filter", "alertname=Queue"), ("filter", 'job=~"v.*"'))
    assert not found(("filter", 'alertname=~"Queue"'))
    assert not found(("filter", 'job="vllm"'))
    assert SilenceFilter.read(MultiDict(expired="false", pending="no")).states == ("active",)


def test_an_alert_is_shown_as_alertmanager_does() -> None:
    assert shown.alert(INHIBITED, now=NOW, resolve_timeout=300.0) == {
        "annotations": {"summary": "many wait"},
        "endsAt": "2025-11-21T04:44:58.000Z",
        "fingerprint": f"{INHIBITED.alert.fingerprint:016x}",
        "receivers": [{"name": "team"}],
        "startsAt": "2025-11-21T04:39:00.000Z",
        "status": {
            "inhibitedBy": ["00000000000000ff"],
            "mutedBy": [],
            "silencedBy": [],
            "state": "suppressed",
        },
        "updatedAt": "2025-11-21T04:39:58.000Z",
        "labels": {"alertname": "Queue", "severity": "critical"},
    }


@pytest.mark.parametrize(
    ("one", "ends_at"),
    [
        (alert(ends_at=NOW + 10), "2025-11-21T04:40:10.000Z"),
        (alert(until=NOW + 20), "2025-11-21T04:40:20.000Z"),
        (alert(no_data_since=NOW - 5), "2025-11-21T04:44:58.000Z"),
    ],
)
def test_an_alert_always_has_an_end(one: Alert, ends_at: str) -> None:
    assert shown.alert(AlertView(one, (), "active"), now=NOW, resolve_timeout=300.0)["endsAt"] == ends_at


def test_an_alert_that_nobody_has_spoken_of_for_long_does_not_end_in_the_past() -> None:
    later = shown.alert(ACTIVE, now=NOW + 9000, resolve_timeout=300.0)
    assert later["endsAt"] == "2025-11-21T07:15:00.000Z"


def test_an_alert_without_data_says_so() -> None:
    held = AlertView(alert(no_data_since=NOW - 30), ("team",), "active")
    annotations = shown.alert(held, now=NOW, resolve_timeout=300.0)["annotations"]
    assert "2025-11-21T04:39:30Z" in annotations["no_data"]
    assert annotations["summary"] == "many wait"
