"""The webhook payload, version 4, as Alertmanager makes it."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable

import pytest

from exporter.notify.model import Alert, Notification
from exporter.notify.receivers.payload import NEVER, common, encode, encoded, payload, time_text

NOW = 1_700_000_000.0


def _alert(at: float = NOW - 60.5, **changes):
    labels = (("alertname", "QueueLong"), ("gpu", "0"), ("severity", "critical"))
    values = {"labels": labels, "annotations": (("summary", "重い <b>"),), "starts_at": at, **changes}
    return Alert(**values)


def _notification(*alerts: Alert, receiver: str = "on-call"):
    return Notification(
        7, receiver, "webhook[0]", '{}:{a="b"}', (("alertname", "QueueLong"),), alerts, created_at=NOW
    )


def test_keys_stand_in_alertmanagers_order_and_values_are_what_its_bytes_parse_to() -> None:
    made = payload(_notification(_alert(generator_url="http://box/graph")), "http://box:9108")
    assert list(made) == [
        "receiver", "status", "alerts", "groupLabels", "commonLabels", "commonAnnotations", "externalURL",
        "version", "groupKey", "truncatedAlerts",
    ]  # fmt: skip
    assert list(made["alerts"][0]) == [
        "status", "labels", "annotations", "startsAt", "endsAt", "generatorURL", "fingerprint",
    ]  # fmt: skip
    assert json.loads(encode(made)) == {
        "receiver": "on-call",
        "status": "firing",
        "alerts": [
            {
                "status": "firing",
                "labels": {"alertname": "QueueLong", "gpu": "0", "severity": "critical"},
                "annotations": {"summary": "重い <b>"},
                "startsAt": "2023-11-14T22:12:19.5Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://box/graph",
                "fingerprint": f"{_alert().fingerprint:016x}",
            }
        ],
        "groupLabels": {"alertname": "QueueLong"},
        "commonLabels": {"alertname": "QueueLong", "gpu": "0", "severity": "critical"},
        "commonAnnotations": {"summary": "重い <b>"},
        "externalURL": "http://box:9108",
        "version": "4",
        "groupKey": '{}:{a="b"}',
        "truncatedAlerts": 0,
    }


def test_the_payload_of_a_storm_is_written_alert_by_alert() -> None:
    alerts = [_alert(labels=(("alertname", "A"), ("n", f"{n}")), no_data_since=NOW) for n in range(3000)]
    storm = _notification(*alerts, receiver='"alerts":[]')
    for most in (0, 2):
        assert encoded(storm, "http://box", most) == encode(payload(storm, "http://box", most))
    assert _peak(encoded, storm) < _peak(lambda *given: encode(payload(*given)), storm) / 2


def _peak(make: Callable[[Notification, str], bytes], storm: Notification) -> int:
    """Most memory in bytes that making a body takes."""
    tracemalloc.start()
    make(storm, "http://box")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_an_alert_that_ends_in_the_future_fires_and_has_no_end() -> None:
    made = payload(_notification(_alert(ends_at=NOW + 1), _alert(ends_at=NOW)), "")
    assert [(one["status"], one["endsAt"]) for one in made["alerts"]] == [
        ("firing", NEVER),
        ("resolved", "2023-11-14T22:13:20Z"),
    ]
    assert made["status"] == "firing"


def test_alerts_beyond_the_limit_are_counted_and_what_is_in_common_is_of_the_others() -> None:
    alerts = [_alert(labels=(("alertname", "A"), ("gpu", str(n)))) for n in range(5)]
    made = payload(_notification(*alerts), "", max_alerts=1)
    assert made["truncatedAlerts"] == 4
    assert [one["labels"]["gpu"] for one in made["alerts"]] == ["0"]
    assert made["commonLabels"] == {"alertname": "A", "gpu": "0"}
    assert payload(_notification(*alerts), "", max_alerts=0)["truncatedAlerts"] == 0


def test_a_group_is_not_called_resolved_because_the_alert_that_fires_was_left_out() -> None:
    made = payload(_notification(_alert(ends_at=NOW - 1), _alert()), "", max_alerts=1)
    assert made["status"] == "firing"
    assert [one["status"] for one in made["alerts"]] == ["resolved"]


def test_an_alert_without_data_fires_on_and_says_since_when() -> None:
    made = payload(_notification(_alert(no_data_since=NOW - 30.25)), "")
    (one,) = made["alerts"]
    assert one["status"] == "firing"
    assert one["endsAt"] == NEVER
    assert "since 2023-11-14T22:12:50Z" in one["annotations"]["no_data"]
    assert made["commonAnnotations"]["no_data"] == one["annotations"]["no_data"]
    assert list(one["annotations"]) == ["no_data", "summary"]


def test_an_alert_that_was_given_up_without_data_is_over() -> None:
    (one,) = payload(_notification(_alert(no_data_since=NOW - 30, ends_at=NOW)), "")["alerts"]
    assert one["status"] == "resolved"
    assert "no_data" not in one["annotations"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("team-X", "team-X"), ("team.X|mail", r"team\.X\|mail"), ("a+b (c)", r"a\+b \(c\)"), ("值班", "值班")],
)
def test_the_receivers_name_is_quoted_as_alertmanager_quotes_it_for_regular_expressions(
    name: str, shown: str
) -> None:
    assert payload(_notification(_alert(), receiver=name), "")["receiver"] == shown


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (NOW, "2023-11-14T22:13:20Z"),
        (NOW + 0.123, "2023-11-14T22:13:20.123Z"),
        (NOW + 0.000001, "2023-11-14T22:13:20.000001Z"),
        (NOW + 0.9999999, "2023-11-14T22:13:21Z"),
        (0.0, "1970-01-01T00:00:00Z"),
        (-1.5, "1969-12-31T23:59:58.5Z"),
        (-62135596800.0, NEVER),
    ],
)
def test_times_are_written_as_go_writes_them(at: float, text: str) -> None:
    assert time_text(at) == text


def test_what_is_no_text_spoils_no_payload() -> None:
    assert json.loads(encode({"a": "x\udcffy\u2028"})) == {"a": "x?y\u2028"}


def test_nothing_is_in_common_where_there_is_nothing() -> None:
    assert common([]) == {}
    assert common([(("a", "1"),), ()]) == {}
    assert common([(("a", "1"), ("b", "2")), (("a", "1"), ("b", "3"))]) == {"a": "1"}
