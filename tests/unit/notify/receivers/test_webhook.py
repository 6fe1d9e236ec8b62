"""The webhook as a receiver: from options to bytes on the wire."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import ConfigError
from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import WebhookOptions
from exporter.notify.model import Alert, Context, Notification, Outcome
from exporter.notify.receivers import webhook
from exporter.notify.receivers.build import build

Start = Callable[..., Awaitable[Any]]


def endpoint(url: str, **options: Any) -> Endpoint:
    return Endpoint("on-call", "webhook[0]", "webhook", True, WebhookOptions(url=url, **options))


async def send(to: Endpoint, notification: Notification, context: Context) -> Outcome:
    receiver = build(to)
    try:
        return await receiver.send(notification, context)
    finally:
        await receiver.close()


async def test_a_consumer_of_alertmanager_gets_what_it_knows(
    start: Start, make_notification: Callable[..., Notification], context: Context
) -> None:
    server = await start()
    outcome = await send(endpoint(f"{server.url}/hook"), make_notification(), context)
    assert outcome == Outcome("delivered", f"127.0.0.1:{server.port} answered 200", 200)
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/hook")
    assert request.headers["Content-Type"] == "application/json"
    assert request.json["version"] == "4"
    assert request.json["groupKey"] == '{}:{alertname="QueueLong"}'
    assert request.json["externalURL"] == "http://box:9108"
    assert request.json["alerts"][0]["annotations"] == {"summary": "重い"}


async def test_a_storm_is_cut_off_at_a_thousand_alerts_and_counted(
    start: Start,
    make_alert: Callable[..., Alert],
    make_notification: Callable[..., Notification],
    context: Context,
) -> None:
    server = await start()
    alerts = [make_alert(labels=(("alertname", "A"), ("n", str(n)))) for n in range(1500)]
    await send(endpoint(server.url), make_notification(*alerts), context)
    body = server.requests[0].json
    assert len(body["alerts"]) == 1000
    assert body["truncatedAlerts"] == 500
    await send(endpoint(server.url, max_alerts=0), make_notification(*alerts), context)
    assert len(server.requests[1].json["alerts"]) == 1500


@pytest.mark.parametrize("options", [{}, {"body": "{{ alerts | length }}"}])
@pytest.mark.parametrize(("count", "in_loop"), [(3, True), (1000, False)])
async def test_the_payload_of_a_storm_is_made_beside_the_loop(
    start: Start,
    make_alert: Callable[..., Alert],
    make_notification: Callable[..., Notification],
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    count: int,
    in_loop: bool,
) -> None:
    threads: set[int] = set()
    made_by = "payload" if options else "encoded"
    real = getattr(webhook, made_by)

    def watched(*arguments: Any) -> Any:
        threads.add(threading.get_ident())
        return real(*arguments)

    monkeypatch.setattr(webhook, made_by, watched)
    server = await start()
    alerts = [make_alert(labels=(("alertname", "A"), ("n", str(n)))) for n in range(count)]
    outcome = await send(endpoint(server.url, **options), make_notification(*alerts), context)
    assert outcome.result == "delivered"
    assert (threads == {threading.get_ident()}) is in_loop


@pytest.mark.parametrize(
    ("http_config", "header"),
    [
        ({"basic_auth": {"username": "u", "password": "pässword"}}, "Basic dTpww6Rzc3dvcmQ="),
        ({"authorization": {"type": "Token", "credentials": "abc"}}, "Token abc"),
        ({"authorization": {"credentials": "abc\n"}}, "Bearer abc"),
        ({"bearer_token": "tok"}, "Bearer tok"),
    ],
)
async def test_it_says_who_it_is(
    start: Start,
    make_notification: Callable[..., Notification],
    context: Context,
    http_config: dict[str, Any],
    header: str,
) -> None:
    server = await start()
    await send(endpoint(server.url, http_config=http_config), make_notification(), context)
    assert server.requests[0].headers["Authorization"] == header


async def test_headers_of_both_kinds_go_along(
    start: Start, make_notification: Callable[..., Notification], context: Context
) -> None:
    server = await start()
    to = endpoint(
        server.url,
        headers={"X-Token": "t1", "Content-Type": "application/vnd.own+json"},
        http_config={"http_headers": {"X-Team": {"values": ["ml"]}, "X-Key": {"secrets": ["k1"]}}},
    )
    await send(to, make_notification(), context)
    headers = server.requests[0].headers
    assert (headers["X-Token"], headers["X-Team"], headers["X-Key"]) == ("t1", "ml", "k1")
    assert headers["Content-Type"] == "application/vnd.own+json"


async def test_the_signature_is_of_the_bytes_that_arrive_and_of_the_attempts_time(
    start: Start, make_notification: Callable[..., Notification], context: Context
) -> None:
    server = await start()
    await send(endpoint(server.url, signature={"secret": "s3cret"}), make_notification(), context)
    request = server.requests[0]
    made = hmac.new(b"s3cret", f"{int(context.now)}.".encode() + request.body, hashlib.sha256).hexdigest()
    assert request.headers["X-Vllm-Exporter-Signature"] == f"t={int(context.now)},v1={made}"


async def test_a_template_makes_the_body(
    start: Start, make_notification: Callable[..., Notification], context: Context
) -> None:
    server = await start()
    to = endpoint(server.url, body='{"msg": "{{ status }} {{ commonLabels.alertname }} {{ facts.engine }}"}')
    await send(to, make_notification(), context)
    assert server.requests[0].json == {"msg": "firing QueueLong vllm"}


async def test_a_template_that_fails_is_refused_and_nothing_is_sent(
    start: Start, make_notification: Callable[..., Notification], context: Context
) -> None:
    server = await start()
    outcome = await send(endpoint(server.url, body="{{ 1 / 0 }}"), make_notification(), context)
    assert outcome.result == "refused"
    assert "ZeroDivisionError" in outcome.detail
    assert server.requests == []


async def test_no_secret_comes_back_in_what_the_server_says(
    start: Start,
    respond: Callable[..., bytes],
    make_notification: Callable[..., Notification],
    context: Context,
) -> None:
    said = "no: /hooks/T000/abcdefghij tok-12345 hunter22 dTpodW50ZXIyMg== hdr-secret sig-secret"
    server = await start(respond(403, said))
    to = endpoint(
        f"{server.url}/hooks/T000/abcdefghij",
        http_config={"basic_auth": {"username": "u", "password": "hunter22"}},
        headers={"X-Token": "hdr-secret", "X-Other": "tok-12345"},
        signature={"secret": "sig-secret"},
    )
    outcome = await send(to, make_notification(), context)
    assert outcome.answer == "no: <secret> <secret> <secret> <secret> <secret> <secret>"
    assert "abcdefghij" not in repr(outcome)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"headers": {"Bearer my-secret": "z"}}, "the headers: one has a name that cannot be"),
        ({"headers": {"X-Y": "geheim\r\nEvil: 1"}}, "the value of the header X-Y has a line break"),
        ({"headers": {"Content-Length": "5"}}, "Content-Length is set by the program"),
        ({"body": "{{ nope }}"}, "'nope'"),
    ],
)
def test_what_cannot_be_is_a_mistake_in_the_configuration(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as told:
        build(endpoint("http://h/x", **options))
    assert str(told.value).startswith("on-call/webhook[0]: ")
    assert problem in str(told.value)
    assert "geheim" not in str(told.value) and "secret" not in str(told.value)


def test_a_file_that_holds_no_certificate_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("nothing of the kind")
    with pytest.raises(ConfigError, match=r"tls_config: .*ca\.pem: "):
        build(endpoint("https://h/x", http_config={"tls_config": {"ca_file": file}}))


def test_a_timeout_of_zero_is_the_default_and_the_limit_from_outside_leaves_room_for_reading() -> None:
    assert build(endpoint("http://h/x", timeout="0s")).timeout == 12.0
    assert build(endpoint("http://h/x", timeout="3s")).timeout == 5.0
    assert build(endpoint("http://h/x")).send_resolved
    assert build(endpoint("http://h/x")).kind == "webhook"
