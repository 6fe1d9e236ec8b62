"""Bots that are posted to directly, at a real endpoint: what they get, and what their answers mean."""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from structlog.testing import capture_logs

from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import (
    DingtalkOptions,
    FeishuOptions,
    Options,
    SlackOptions,
    WecomOptions,
)
from exporter.notify.model import Context, Notification, Receiver
from exporter.notify.receivers.build import build

Build = Callable[[str, Options], Receiver]


@pytest.fixture
async def receiver() -> AsyncIterator[Build]:
    built: list[Receiver] = []

    def one(kind: str, options: Options) -> Receiver:
        built.append(build(Endpoint("people", f"{kind}[0]", kind, True, options)))
        return built[-1]

    yield one
    for each in built:
        await each.close()


def wrapped(url: str, **more: Any) -> dict[str, Any]:
    return {"webhook_url": url + "/hook/t0ken-t0ken?key=k3y-k3y", **more}


async def test_slack_gets_an_attachment_with_a_colour_and_a_link(
    start: Any, receiver: Build, make_notification: Callable[..., Notification], context: Context
) -> None:
    endpoint = await start()
    options = SlackOptions.model_validate(
        {"api_url": endpoint.url + "/services/a/b", "channel": "#gpu", "icon_emoji": ":fire:"}
    )
    slack = receiver("slack", options)
    outcome = await slack.send(make_notification(), context)
    assert outcome.result == "delivered"
    (request,) = endpoint.requests
    assert request.path == "/services/a/b"
    body = request.json
    assert {name: body[name] for name in body if name != "attachments"} == {
        "channel": "#gpu",
        "icon_emoji": ":fire:",
    }
    (attachment,) = body["attachments"]
    assert attachment["title"] == attachment["fallback"] == "CRITICAL: 重い"
    assert attachment["title_link"] == "http://box:9108/"
    assert attachment["color"] == "#a32037"
    assert "Since " in attachment["text"]


async def test_feishu_gets_a_signed_card(
    start: Any,
    receiver: Build,
    make_notification: Callable[..., Notification],
    context: Context,
    respond: Callable[..., bytes],
) -> None:
    endpoint = await start(respond(200, '{"code":0,"msg":"success"}'))
    feishu = receiver("feishu", FeishuOptions.model_validate(wrapped(endpoint.url, secret="s3cret")))
    assert (await feishu.send(make_notification(), context)).result == "delivered"
    body = endpoint.requests[0].json
    assert body["card"]["header"] == {
        "template": "red",
        "title": {"content": "CRITICAL: 重い", "tag": "plain_text"},
    }
    assert body["timestamp"] == str(int(context.now))
    key = f"{body['timestamp']}\ns3cret".encode()
    assert body["sign"] == b64encode(hmac.digest(key, b"", sha256)).decode()


async def test_dingtalk_gets_markdown_at_a_signed_address(
    start: Any,
    receiver: Build,
    make_notification: Callable[..., Notification],
    context: Context,
    respond: Callable[..., bytes],
) -> None:
    endpoint = await start(respond(200, '{"errcode":0,"errmsg":"ok"}'))
    dingtalk = receiver("dingtalk", DingtalkOptions.model_validate(wrapped(endpoint.url, secret="SECs3cret")))
    assert (await dingtalk.send(make_notification(), context)).result == "delivered"
    (request,) = endpoint.requests
    query = {name: values[0] for name, values in parse_qs(urlsplit(request.path).query).items()}
    assert query["key"] == "k3y-k3y"
    assert query["timestamp"] == str(int(context.now * 1000))
    told = f"{query['timestamp']}\nSECs3cret".encode()
    assert query["sign"] == b64encode(hmac.digest(b"SECs3cret", told, sha256)).decode()
    assert request.json["markdown"]["title"] == "CRITICAL: 重い"
    assert request.json["markdown"]["text"].startswith("**CRITICAL: 重い**")


async def test_wecom_gets_markdown_within_4096_bytes(
    start: Any,
    receiver: Build,
    make_alert: Any,
    make_notification: Callable[..., Notification],
    context: Context,
    respond: Callable[..., bytes],
) -> None:
    endpoint = await start(respond(200, '{"errcode":0,"errmsg":"ok"}'))
    wecom = receiver("wecom", WecomOptions.model_validate(wrapped(endpoint.url)))
    long = (("description", "队列很长" * 400), ("last_log", "错误\n" * 200), ("summary", "重" * 100))
    alerts = [make_alert(f"A{i}", annotations=long) for i in range(40)]
    assert (await wecom.send(make_notification(*alerts), context)).result == "delivered"
    text = endpoint.requests[0].json["markdown"]["content"]
    assert 500 < len(text.encode()) <= 4096
    assert "And " in text


ANSWERS = [
    (
        "feishu",
        200,
        {"code": 19021, "msg": "sign match fail or timestamp is not within one hour"},
        "refused",
        None,
    ),
    ("feishu", 200, {"StatusCode": 0, "StatusMessage": "success"}, "delivered", None),
    ("feishu", 400, {"code": 11232, "msg": "create message service trigger rate limit"}, "retry", 60),
    ("feishu", 200, {"code": 9499, "msg": "too many request"}, "retry", 60),
    ("feishu", 400, {"code": 9499, "msg": "Bad Request"}, "refused", None),
    (
        "dingtalk",
        200,
        {"errcode": 130101, "errmsg": "send too fast, exceed 20 times per minute"},
        "retry",
        60,
    ),
    ("dingtalk", 200, {"errcode": 310000, "errmsg": "sign not match"}, "refused", None),
    ("wecom", 200, {"errcode": 45009, "errmsg": "api freq out of limit"}, "retry", 60),
    ("wecom", 200, {"errcode": 45002, "errmsg": "content size out of limit"}, "refused", None),
    ("wecom", 200, {"errcode": 45008, "errmsg": "article size out of limit"}, "refused", None),
    ("feishu", 200, {"code": 11246, "msg": "card content exceeds limit"}, "refused", None),
    ("feishu", 200, {"code": 99991400, "msg": "request trigger frequency limit"}, "retry", 60),
    ("wecom", 200, {"errcode": 93000, "errmsg": "invalid webhook url"}, "refused", None),
    ("wecom", 200, "<html>Log in to the guests' network</html>", "delivered", None),
    ("wecom", 502, "<html>Bad gateway</html>", "retry", None),
    ("dingtalk", 404, "not here", "refused", None),
    ("feishu", 200, {"code": True}, "delivered", None),
    ("feishu", 200, [], "delivered", None),
]


@pytest.mark.parametrize(("kind", "code", "body", "result", "pause"), ANSWERS)
async def test_an_answer_is_judged_by_what_it_says_and_not_by_its_code_alone(
    kind: str,
    code: int,
    body: Any,
    result: str,
    pause: float | None,
    start: Any,
    receiver: Build,
    make_notification: Callable[..., Notification],
    context: Context,
    respond: Callable[..., bytes],
) -> None:
    endpoint = await start(respond(code, body if isinstance(body, str) else json.dumps(body)))
    model = {"feishu": FeishuOptions, "dingtalk": DingtalkOptions, "wecom": WecomOptions}[kind]
    outcome = await receiver(kind, model.model_validate(wrapped(endpoint.url))).send(
        make_notification(), context
    )
    assert (outcome.result, outcome.code, outcome.retry_after) == (result, code, pause)


async def test_an_answer_that_is_not_understood_is_told_of_once_and_not_asked_for_again(
    start: Any,
    receiver: Build,
    make_notification: Callable[..., Notification],
    context: Context,
    respond: Callable[..., bytes],
) -> None:
    whole = respond(200, '{"errcode":0,"errmsg":"ok"}')
    cut_off = respond(200, '{"errcode":0,"errm')
    endpoint = await start(cut_off, cut_off, whole, cut_off)
    wecom = receiver("wecom", WecomOptions.model_validate(wrapped(endpoint.url)))
    with capture_logs() as logged:
        outcomes = [await wecom.send(make_notification(), context) for _ in range(4)]
    assert [outcome.result for outcome in outcomes] == ["delivered"] * 4
    assert outcomes[0].detail == "wecom answered 200, but not as wecom does"
    assert [entry["event"] for entry in logged] == ["answer_not_understood"] * 2, (
        "once for each time it begins"
    )
    assert (logged[0]["log_level"], logged[0]["receiver"]) == ("warning", "people/wecom[0]")


async def test_no_outcome_shows_the_address_or_the_secret(
    start: Any,
    receiver: Build,
    make_notification: Callable[..., Notification],
    context: Context,
    respond: Callable[..., bytes],
) -> None:
    told = '{"errcode":310000,"errmsg":"no such robot: /hook/t0ken-t0ken?key=k3y-k3y SECs3cret"}'
    endpoint = await start(respond(200, told))
    options = DingtalkOptions.model_validate(wrapped(endpoint.url, secret="SECs3cret"))
    dingtalk = receiver("dingtalk", options)
    outcome = await dingtalk.send(make_notification(), context)
    assert outcome.detail == "dingtalk refused it with code 310000"
    assert "no such robot" in outcome.answer
    shown = f"{outcome} {dingtalk!r} {options!r}"
    assert not any(secret in shown for secret in ("t0ken", "k3y", "SECs3"))


async def test_retry_after_is_honoured(
    start: Any,
    receiver: Build,
    make_notification: Callable[..., Notification],
    context: Context,
    respond: Callable[..., bytes],
) -> None:
    endpoint = await start(respond(429, "ratelimited", Retry_After="30"))
    slack = receiver("slack", SlackOptions.model_validate({"api_url": endpoint.url + "/services/a/b"}))
    outcome = await slack.send(make_notification(), context)
    assert (outcome.result, outcome.retry_after) == ("retry", 30)
