"""PagerDuty's events."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import PagerdutyOptions
from exporter.notify.dispatch.dispatcher import Dispatcher
from exporter.notify.model import Alert, Context, Notification, Receiver
from exporter.notify.outbox.outbox import Outbox
from exporter.notify.receivers.build import build
from exporter.notify.receivers.pagerduty import EVENT_BYTES, event, severity
from exporter.notify.receivers.payload import encode
from exporter.notify.trial import trial_config

NOW = 1_700_000_000.0
OPTIONS = PagerdutyOptions(routing_key="R0123456789")
Make = Callable[..., Any]


def test_a_group_that_fires_triggers_an_incident_under_the_groups_own_key(
    make_notification: Make, context: Context
) -> None:
    made = event(make_notification(), context, OPTIONS)
    assert made["event_action"] == "trigger"
    assert made["routing_key"] == "R0123456789"
    assert made["dedup_key"] == hashlib.sha256(b'{}:{alertname="QueueLong"}').hexdigest()
    inner = made["payload"]
    assert inner["severity"] == "critical"
    assert inner["summary"]
    assert inner["source"] == "vllm-exporter"
    assert inner["timestamp"] == "2023-11-14T22:12:20Z"
    assert inner["class"] == "QueueLong"
    assert inner["group"] == "vllm"
    assert inner["custom_details"]["num_firing"] == "1"
    assert made["client"] == "vllm-exporter"
    assert made["client_url"] == "http://box:9108"
    assert {"href": "http://box:9108/", "text": "console"} in made["links"]


def test_the_same_group_resolves_the_same_incident(
    make_alert: Make, make_notification: Make, context: Context
) -> None:
    fired = event(make_notification(make_alert()), context, OPTIONS)
    ended = event(make_notification(make_alert(ends_at=NOW - 1)), context, OPTIONS)
    assert ended["event_action"] == "resolve"
    assert ended["dedup_key"] == fired["dedup_key"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["critical"], "critical"), (["page"], "critical"), (["Warning"], "warning"), (["info"], "info"),
        (["none"], "info"), (["error"], "error"), (["sev-2"], "error"), ([None], "error"),
        (["info", "warning"], "warning"), (["warning", "critical"], "critical"),
    ],
)  # fmt: skip
def test_severity_is_the_worst_label_in_pagerdutys_words(
    make_notification: Make, labels: list[str | None], expected: str
) -> None:
    alerts = [
        Alert((("alertname", f"A{n}"), *((("severity", one),) if one else ())), (), NOW - 5)
        for n, one in enumerate(labels)
    ]
    assert severity(make_notification(*alerts)) == expected


def test_an_alert_that_ended_does_not_make_what_still_fires_worse(
    make_alert: Make, make_notification: Make
) -> None:
    over = make_alert(ends_at=NOW - 1)
    fires = make_alert(labels=(("alertname", "B"), ("severity", "info")))
    assert severity(make_notification(over, fires)) == "info"


def test_what_the_configuration_says_goes_first(make_notification: Make, context: Context) -> None:
    options = PagerdutyOptions(
        routing_key="k", severity="info", client="c", client_url="http://c", source="s", component="p", group="g",
        **{"class": "x"},
    )  # fmt: skip
    made = event(make_notification(), context, options)
    inner = made["payload"]
    assert (made["client"], made["client_url"]) == ("c", "http://c")
    assert [inner[name] for name in ("severity", "source", "component", "group", "class")] == [
        "info", "s", "p", "g", "x",
    ]  # fmt: skip


def test_an_event_stays_within_what_pagerduty_takes(
    make_alert: Make, make_notification: Make, context: Context
) -> None:
    huge = make_alert(labels=(("alertname", "A"), ("severity", "critical"), ("x", "é" * (EVENT_BYTES // 2))))
    made = event(make_notification(huge), context, OPTIONS)
    assert len(encode(made)) <= EVENT_BYTES
    assert made["payload"]["severity"] == "critical"
    many = [make_alert(labels=(("alertname", "A"), ("n", str(n)))) for n in range(10_000)]
    made = event(make_notification(*many), context, OPTIONS)
    assert made["payload"]["custom_details"]["num_firing"] == "10000"
    assert len(encode(made)) < 50_000


async def test_the_event_is_posted_and_the_key_never_comes_back(
    start: Callable[..., Awaitable[Any]],
    respond: Callable[..., bytes],
    make_notification: Callable[..., Notification],
    context: Context,
) -> None:
    said = {"status": "invalid event", "errors": ["routing key R0123456789 is invalid"]}
    server = await start(respond(202, "{}"), respond(429), respond(400, json.dumps(said)))
    options = PagerdutyOptions(routing_key="R0123456789", url=f"{server.url}/v2/enqueue")
    receiver = build(Endpoint("ops", "pagerduty[0]", "pagerduty", True, options))
    outcomes = [await receiver.send(make_notification(), context) for _ in range(3)]
    await receiver.close()
    assert [one.result for one in outcomes] == ["delivered", "retry", "refused"]
    assert server.requests[0].path == "/v2/enqueue"
    assert server.requests[0].json["routing_key"] == "R0123456789"
    assert "<secret> is invalid" in outcomes[2].answer
    assert "R0123456789" not in repr(outcomes)


async def test_what_is_only_announced_opens_no_incident(
    start: Callable[..., Awaitable[Any]], make_alert: Make, context: Context, reach: Callable[..., Receiver]
) -> None:
    server = await start()
    receiver = reach("pagerduty", server.url)
    said = {"summary": "Last week: 99.95%", "description": "TTFT held."}
    report = make_alert("VLLMSLOReport", annotations=tuple(sorted(said.items())))
    endpoint = Endpoint("ops", "pagerduty[0]", "pagerduty", True, OPTIONS)
    outbox = Outbox.in_memory()
    written: list[Notification] = []
    dispatcher = Dispatcher(trial_config([endpoint]), outbox, deliver=written.extend)
    dispatcher.announce(report, "ops")
    await dispatcher.drain()
    await outbox.close()
    assert len(written) == 1
    for notification in written:
        assert (await receiver.send(notification, context)).result == "delivered"
    (request,) = server.requests
    assert request.path == "/v2/change/enqueue"
    body = request.json
    assert body.keys() == {"routing_key", "payload", "links"}
    inner = body["payload"]
    assert inner.keys() == {"summary", "source", "timestamp", "custom_details"}
    assert inner["summary"] == "Last week: 99.95%"
    assert inner["custom_details"]["alerts"][0]["how_bad"] == "TTFT held."
