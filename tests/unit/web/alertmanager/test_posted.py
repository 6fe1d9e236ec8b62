from __future__ import annotations

import json
from typing import Any

import pytest

from exporter.notify.model import Alert
from exporter.storage.model import Matcher
from exporter.web.alertmanager import posted
from exporter.web.alertmanager.model import ApiRefused

NOW = 1_763_700_000.0


def alerts(*entries: Any) -> tuple[list[Alert], list[str]]:
    return posted.read_alerts(json.loads(json.dumps(entries)), now=NOW, resolve_timeout=300.0)


def one(**entry: Any) -> Alert:
    (alert,), mistakes = alerts({"labels": {"alertname": "Queue"}, **entry})
    assert not mistakes
    return alert


def test_an_alert_without_times_fires_from_now_until_it_is_not_sent_again() -> None:
    alert = one()
    assert (alert.starts_at, alert.ends_at, alert.until, alert.updated_at) == (NOW, None, NOW + 300, NOW)


def test_the_zero_time_that_go_clients_send_is_no_time() -> None:
    assert one(startsAt="0001-01-01T00:00:00.000Z", endsAt="0001-01-01T00:00:00.000Z") == one()


def test_an_end_that_was_given_stands() -> None:
    alert = one(startsAt="2025-11-21T04:00:00Z", endsAt="2025-11-21T04:44:00.500Z")
    assert (alert.starts_at, alert.ends_at, alert.until) == (NOW - 2400, NOW + 240.5, None)
    assert alert.status(NOW) == "firing"
    assert alert.status(NOW + 241) == "resolved"


def test_an_end_without_a_start_is_both() -> None:
    alert = one(endsAt="2025-11-21T04:30:00Z")
    assert alert.starts_at == alert.ends_at == NOW - 600


def test_labels_are_sorted_and_empty_ones_are_none() -> None:
    (alert,), _ = alerts(
        {
            "labels": {"b": "2", "alertname": "A", "gone": "", "房间": "七号"},
            "annotations": {"z": "", "a": "x"},
        }
    )
    assert alert.labels == (("alertname", "A"), ("b", "2"), ("房间", "七号"))
    assert alert.annotations == (("a", "x"),)


@pytest.mark.parametrize(
    ("entry", "mistake"),
    [
        (7, "expected an object"),
        ({}, "at least one label pair required"),
        ({"labels": {"gone": ""}}, "at least one label pair required"),
        ({"labels": ["a"]}, "labels: expected an object"),
        ({"labels": {"a": 7}}, "labels: the value of 'a' is no text"),
        ({"labels": {"": "x"}}, "labels: a name is empty"),
        ({"labels": {"a": "\ud800"}}, "labels: a text is no valid UTF-8"),
        ({"labels": {"a": "b"}, "annotations": {"a": None}}, "annotations: the value of 'a' is no text"),
        ({"labels": {"a": "b"}, "startsAt": 7}, "startsAt is no text"),
        ({"labels": {"a": "b"}, "endsAt": "soon"}, "endsAt: 'soon' is no RFC 3339 time"),
        ({"labels": {"a": "b"}, "generatorURL": []}, "generatorURL is no text"),
        (
            {"labels": {"a": "b"}, "startsAt": "2025-11-21T05:00:00Z", "endsAt": "2025-11-21T04:00:00Z"},
            "start time must be before end time",
        ),
    ],
)
def test_a_wrong_alert_is_told_and_the_others_are_taken(entry: Any, mistake: str) -> None:
    taken, mistakes = alerts({"labels": {"alertname": "Good"}}, entry)
    assert [alert.name for alert in taken] == ["Good"]
    assert mistakes == [f"alert 1: {mistake}"]


def test_an_alert_has_its_limit_in_bytes() -> None:
    labels = {"alertname": "Long"}
    fits = {"labels": labels, "annotations": {"a": "长" * 21_840}}
    longer = {"labels": labels, "annotations": {"a": "长" * 21_841}}
    elsewhere = {"labels": labels, "generatorURL": "x" * 65_536}
    taken, mistakes = alerts(fits, longer, elsewhere)
    assert len(taken) == 1
    assert mistakes == [
        "alert 1: labels and annotations are longer than 65536 bytes",
        "alert 2: labels and annotations are longer than 65536 bytes",
    ]


def test_a_thousand_mistakes_are_told_in_a_few_lines() -> None:
    _, mistakes = alerts(*[{}] * 1000)
    assert posted.shortened(mistakes).splitlines()[-1] == "and 980 more"


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(ApiRefused, match="no JSON"):
        posted.read_json(body)


def test_something_else_than_a_list_of_alerts_is_refused() -> None:
    with pytest.raises(ApiRefused, match="expected a list"):
        posted.read_alerts({}, now=NOW, resolve_timeout=1.0)


WISH: dict[str, Any] = {
    "matchers": [{"name": "alertname", "value": "Queue", "isRegex": False}],
    "startsAt": "2025-11-21T04:40:00Z",
    "endsAt": "2025-11-21T05:40:00Z",
    "createdBy": "小王",
    "comment": "maintenance",
}


def test_a_silence_is_read_whole() -> None:
    silence = posted.read_silence(
        WISH
        | {
            "id": "x",
            "matchers": [
                {"name": "a", "value": "1", "isRegex": False},
                {"name": "b", "value": "2", "isRegex": False, "isEqual": False},
                {"name": "c", "value": "3|4", "isRegex": True, "isEqual": True},
                {"name": "d", "value": "", "isRegex": True, "isEqual": False},
            ],
        },
        now=NOW,
    )
    assert silence.matchers == (
        Matcher("a", "=", "1"),
        Matcher("b", "!=", "2"),
        Matcher("c", "=~", "3|4"),
        Matcher("d", "!~", ""),
    )
    assert (silence.id, silence.created_by, silence.comment) == ("x", "小王", "maintenance")
    assert (silence.starts_at, silence.ends_at) == (NOW, NOW + 3600)


@pytest.mark.parametrize(
    ("change", "mistake"),
    [
        ({"matchers": None}, "at least one matcher required"),
        ({"matchers": []}, "at least one matcher required"),
        ({"matchers": ["a"]}, "matcher 0: expected an object"),
        ({"matchers": [{"name": "a"}]}, "matcher 0: value is missing"),
        ({"matchers": [{"value": "a"}]}, "matcher 0: name is missing"),
        ({"matchers": [{"name": "a", "value": "b", "isRegex": "no"}]}, "isRegex is neither true nor false"),
        ({"endsAt": None}, "endsAt is missing"),
        ({"startsAt": "x"}, "startsAt: 'x' is no RFC 3339 time"),
        ({"comment": None}, "comment is missing"),
        ({"createdBy": 7}, "createdBy is no text"),
        ({"id": []}, "id is no text"),
    ],
)
def test_a_wrong_silence_is_refused_with_its_mistake(change: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ApiRefused) as refused:
        posted.read_silence(WISH | change, now=NOW)
    assert refused.value.status == 400
    assert mistake in str(refused.value)
