from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest

from exporter.alerting.status import AlertStatus, GroupStatus, RuleStatus
from exporter.web.api.model import ApiError
from exporter.web.api.parameters import Form
from exporter.web.api.rules import alerts, rules

ALERT = AlertStatus(
    labels={"severity": "page", "alertname": "Down"},
    annotations={"summary": "it is down"},
    state="firing",
    active_at=1435781451.5,
    value=0.25,
)


def rule(name: str, kind: Any = "alerting", **fields: Any) -> RuleStatus:
    values: dict[str, Any] = {
        "query": "up == 0",
        "labels": {"severity": "page"},
        "annotations": {"summary": "it is down"} if kind == "alerting" else {},
        "duration": 60.0,
        "keep_firing_for": 0.0,
        "alerts": (),
        "health": "ok",
        "last_error": "",
        "evaluation_seconds": 0.001,
        "last_evaluation": 1435781460.0,
    }
    return RuleStatus(kind=kind, name=name, **values | fields)


def group(name: str, *members: RuleStatus, file: str = "a.yml") -> GroupStatus:
    return GroupStatus(
        name=name,
        file=file,
        interval=15.0,
        limit=0,
        query_offset=0.0,
        rules=members,
        evaluation_seconds=0.002,
        last_evaluation=None,
    )


GROUPS = (
    group("engine", rule("Down", alerts=(ALERT,)), rule("job:up:sum", "recording", labels={"team": "x"})),
    group("daemon", rule("Late", labels={"severity": "ticket"}), file="b.yml"),
)


def ask(**fields: Any) -> dict[str, Any]:
    return rules(GROUPS, Form(urlencode(fields, doseq=True)))


def names(answer: dict[str, Any]) -> list[tuple[str, list[str]]]:
    return [(one["name"], [entry["name"] for entry in one["rules"]]) for one in answer["groups"]]


def test_a_group_has_prometheus_fields() -> None:
    found = ask()["groups"][0]
    assert list(found) == [
        "name",
        "file",
        "rules",
        "interval",
        "limit",
        "evaluationTime",
        "lastEvaluation",
    ]
    assert found["lastEvaluation"] == "0001-01-01T00:00:00Z"
    assert found["rules"][0] == {
        "state": "firing",
        "name": "Down",
        "query": "up == 0",
        "duration": 60.0,
        "keepFiringFor": 0.0,
        "labels": {"severity": "page"},
        "annotations": {"summary": "it is down"},
        "alerts": [
            {
                "labels": {"alertname": "Down", "severity": "page"},
                "annotations": {"summary": "it is down"},
                "state": "firing",
                "activeAt": "2015-07-01T20:10:51.5Z",
                "value": "2.5e-01",
            }
        ],
        "health": "ok",
        "evaluationTime": 0.001,
        "lastEvaluation": "2015-07-01T20:11:00Z",
        "type": "alerting",
    }
    assert found["rules"][1] == {
        "name": "job:up:sum",
        "query": "up == 0",
        "labels": {"team": "x"},
        "health": "ok",
        "evaluationTime": 0.001,
        "lastEvaluation": "2015-07-01T20:11:00Z",
        "type": "recording",
    }


def test_what_went_wrong_and_what_keeps_firing_is_told() -> None:
    kept = AlertStatus({}, {}, "firing", 1.0, float("inf"), keep_firing_since=2.0)
    groups = (group("g", rule("Down", health="err", last_error="many-to-many", alerts=(kept,))),)
    found = rules(groups, Form(""))["groups"][0]["rules"][0]
    assert found["lastError"] == "many-to-many"
    assert found["alerts"][0]["keepFiringSince"] == "1970-01-01T00:00:02Z"
    assert found["alerts"][0]["value"] == "+Inf"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [("engine", ["Down", "job:up:sum"]), ("daemon", ["Late"])]),
        ({"type": "alert"}, [("engine", ["Down"]), ("daemon", ["Late"])]),
        ({"type": "RECORD"}, [("engine", ["job:up:sum"])]),
        ({"rule_name[]": ["Late", "Down"]}, [("engine", ["Down"]), ("daemon", ["Late"])]),
        ({"rule_group[]": "daemon"}, [("daemon", ["Late"])]),
        ({"file[]": "a.yml", "type": "alert"}, [("engine", ["Down"])]),
        ({"file[]": "c.yml"}, []),
    ],
)
def test_rules_can_be_chosen(fields: dict[str, Any], expected: object) -> None:
    assert names(ask(**fields)) == expected


def test_alerts_can_be_left_out() -> None:
    assert ask(exclude_alerts="true")["groups"][0]["rules"][0]["alerts"] is None
    with pytest.raises(ApiError, match="error converting exclude_alerts"):
        ask(exclude_alerts="perhaps")


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ApiError) as refused:
        ask(type="alerts")
    assert str(refused.value) == 'invalid parameter "type": not supported value "alerts"'


def test_groups_come_in_pages() -> None:
    first = ask(group_limit="1")
    assert names(first) == [("engine", ["Down", "job:up:sum"])]
    second = ask(group_limit="1", group_next_token=first["groupNextToken"])
    assert names(second) == [("daemon", ["Late"])]
    assert "groupNextToken" not in second


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"group_limit": "0"}, "needs to be greater than 0"),
        ({"group_limit": "x"}, "needs to be a valid number"),
        ({"group_limit": "9" * 5000}, "needs to be a valid number"),
        ({"group_next_token": "x"}, "group_limit needs to be present"),
        ({"group_limit": "1", "group_next_token": "x"}, "were rule groups changed"),
    ],
)
def test_a_page_that_is_none_is_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ApiError, match=message):
        ask(**fields)


def test_active_alerts_stand_in_one_list() -> None:
    assert [alert["labels"]["alertname"] for alert in alerts(GROUPS)["alerts"]] == ["Down"]
    assert alerts(()) == {"alerts": []}
