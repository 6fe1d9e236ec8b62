"""Alerts as a real Alertmanager takes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import AlertmanagerOptions
from exporter.notify.model import Context
from exporter.notify.receivers.alertmanager import postable
from exporter.notify.receivers.build import build

NOW = 1_700_000_000.0
Make = Callable[..., Any]
Start = Callable[..., Awaitable[Any]]


def test_an_alert_that_fires_is_to_be_believed_for_four_minutes(make_alert: Make) -> None:
    assert postable(make_alert(), NOW) == {
        "labels": {"alertname": "QueueLong", "job": "vllm", "severity": "critical"},
        "annotations": {"summary": "重い"},
        "startsAt": "2023-11-14T22:12:20Z",
        "endsAt": "2023-11-14T22:17:20Z",
        "generatorURL": "http://box:9108/graph",
    }


def test_one_that_ended_says_when_and_one_without_link_has_none(make_alert: Make) -> None:
    made = postable(make_alert(ends_at=NOW - 5, generator_url=""), NOW)
    assert made["endsAt"] == "2023-11-14T22:13:15Z"
    assert "generatorURL" not in made


def test_one_that_was_pushed_to_us_keeps_its_own_end(make_alert: Make) -> None:
    assert postable(make_alert(until=NOW + 600), NOW)["endsAt"] == "2023-11-14T22:23:20Z"


def test_one_without_data_fires_on_and_says_so(make_alert: Make) -> None:
    made = postable(make_alert(no_data_since=NOW - 100), NOW)
    assert "no data since" in made["annotations"]["no_data"]
    assert made["endsAt"] == "2023-11-14T22:17:20Z"


async def test_all_of_them_are_tried_and_one_that_takes_it_is_enough(
    start: Start, respond: Callable[..., bytes], make_notification: Make, context: Context
) -> None:
    broken, good = await start(respond(500)), await start(respond(200))
    options = AlertmanagerOptions(
        urls=(f"{broken.url}/am/", good.url),
        http_config={"bearer_token": "t0ken"},
    )
    receiver = build(Endpoint("fleet", "alertmanager[0]", "alertmanager", True, options))
    outcome = await receiver.send(make_notification(), context)
    assert outcome.result == "delivered"
    assert outcome.detail == f"127.0.0.1:{broken.port} answered 500; 127.0.0.1:{good.port} answered 200"
    assert broken.requests[0].path == "/am/api/v2/alerts"
    assert good.requests[0].path == "/api/v2/alerts"
    assert good.requests[0].headers["Authorization"] == "Bearer t0ken"
    assert [one["labels"]["alertname"] for one in good.requests[0].json] == ["QueueLong"]
    good.answers[:] = [respond(400, "bad")]
    assert (await receiver.send(make_notification(), context)).result == "retry"
    broken.answers[:] = [respond(400, "bad")]
    assert (await receiver.send(make_notification(), context)).result == "refused"
    await receiver.close()
