"""The real apprise against a real server on loopback: what goes out, and what its answers become."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("apprise")

from apprise.plugins.discord import NotifyDiscord

from exporter.errors import ConfigError
from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import (
    AppriseOptions,
    DiscordOptions,
    Options,
    TeamsOptions,
    TelegramOptions,
)
from exporter.notify.model import Context, Notification, Receiver
from exporter.notify.receivers.build import build

TOKEN = "123456789:AAbbCCddEEffGGhhIIjjKKllMMnnOOppQQr"


def built(kind: str, options: Options) -> Receiver:
    return build(Endpoint("people", f"{kind}[0]", kind, True, options))


def telegram(url: str, **more: Any) -> Receiver:
    options = {"bot_token": TOKEN, "chat_id": -1001, "api_url": url, **more}
    return built("telegram", TelegramOptions.model_validate(options))


def discord() -> Receiver:
    url = "https://discord.com/api/webhooks/4242424242/w3bh00k-t0ken"
    return built("discord", DiscordOptions.model_validate({"webhook_url": url, "username": "vllm"}))


async def test_telegram_gets_html_in_the_right_thread(
    start: Any, make_notification: Callable[..., Notification], make_alert: Any, context: Context
) -> None:
    endpoint = await start()
    receiver = telegram(endpoint.url, message_thread_id=7, disable_notifications=True)
    alert = make_alert(annotations=(("description", "a < b & @everyone"), ("summary", "重 <b>")))
    outcome = await receiver.send(make_notification(alert), context)
    assert (outcome.result, outcome.detail) == ("delivered", "telegram took it")
    (request,) = endpoint.requests
    assert request.path == f"/bot{TOKEN}/sendMessage"
    body = request.json
    assert (body["chat_id"], body["message_thread_id"]) == (-1001, 7)
    assert body["disable_notification"] and body["disable_web_page_preview"]
    assert body["parse_mode"] == "HTML"
    lines = body["text"].splitlines()
    assert lines[0] == "<b>CRITICAL: 重 &lt;b&gt;</b>"
    assert "a &lt; b &amp; @\u2060everyone" in lines
    assert lines[-1] == '<a href="http://box:9108/">Console</a>'


async def test_telegram_gets_no_more_than_it_takes(
    start: Any, make_notification: Callable[..., Notification], make_alert: Any, context: Context
) -> None:
    endpoint = await start()
    long = (("description", "😀 & <\n" * 300), ("last_log", "12:30:45 error\n" * 90), ("summary", "S" * 190))
    alerts = [make_alert(f"A{i}", annotations=long) for i in range(12)]
    await telegram(endpoint.url).send(make_notification(*alerts), context)
    text = endpoint.requests[0].json["text"]
    assert 1000 < len(text.encode("utf-16-le")) // 2 <= 4096


async def test_discord_gets_markdown_that_calls_nobody(
    start: Any,
    make_notification: Callable[..., Notification],
    make_alert: Any,
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    respond: Callable[..., bytes],
) -> None:
    endpoint = await start(respond(204))
    monkeypatch.setattr(NotifyDiscord, "notify_url", f"{endpoint.url}/api/webhooks")
    said = (
        ("description", "@everyone :fire: 12:30:45 " * 99),
        ("last_log", "1:2:3:4\n" * 40),
        ("summary", "重"),
    )
    outcome = await discord().send(make_notification(make_alert(annotations=said)), context)
    assert outcome.result == "delivered"
    (request,) = endpoint.requests
    assert request.path == "/api/webhooks/4242424242/w3bh00k-t0ken"
    assert request.json["username"] == "vllm"
    assert "avatar_url" not in request.json, "no pictures from elsewhere"
    content = request.json["content"]
    assert content.startswith("**CRITICAL: 重**")
    assert "@everyone" not in content
    assert len(content.encode("utf-16-le")) // 2 <= 2000


async def test_teams_gets_a_card(
    start: Any,
    reach: Callable[..., Receiver],
    make_notification: Callable[..., Notification],
    context: Context,
) -> None:
    endpoint = await start()
    assert (await reach("msteamsv2", endpoint.url).send(make_notification(), context)).result == "delivered"
    (request,) = endpoint.requests
    assert request.path.startswith("/workflows/w0rkfl0w/")
    assert "sig=s1gnature" in request.path
    (block,) = request.json["attachments"][0]["content"]["body"]
    assert block["text"].startswith("**CRITICAL: 重い**\n\n")


async def test_any_service_of_apprises_is_told_in_its_own_markup(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    endpoint = await start()
    url = endpoint.url.replace("http://", "json://user:p4ssword@") + "/hook"
    outcome = await built("apprise", AppriseOptions.model_validate({"url": url})).send(
        make_notification(), context
    )
    assert outcome.result == "delivered"
    (request,) = endpoint.requests
    assert request.json["title"] == "CRITICAL: 重い"
    assert request.json["type"] == "failure"
    assert "Console: http://box:9108/" in request.json["message"]
    assert "Authorization" in request.headers


@pytest.mark.parametrize(
    ("code", "body", "result", "pause"),
    [
        (429, {"ok": False, "error_code": 429, "parameters": {"retry_after": 17}}, "retry", 17),
        (401, {"ok": False, "description": "Unauthorized"}, "refused", None),
        (400, {"ok": False, "description": "Bad Request: chat not found"}, "refused", None),
        (503, "busy", "retry", None),
        (503, "upstream error: 404 while reading", "retry", None),
        (400, "<html>status 503</html>", "refused", None),
        (302, "", "refused", None),
    ],
)
async def test_an_answer_becomes_an_outcome(
    code: int,
    body: Any,
    result: str,
    pause: float | None,
    start: Any,
    make_notification: Callable[..., Notification],
    context: Context,
    respond: Callable[..., bytes],
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    endpoint = await start(respond(code, text, Location="http://127.0.0.1:1/"))
    outcome = await telegram(endpoint.url).send(make_notification(), context)
    assert (outcome.result, outcome.code, outcome.retry_after) == (result, code, pause)
    assert outcome.answer == text


async def test_discord_says_in_its_answer_how_long_to_wait_and_nobody_sleeps_here(
    start: Any,
    make_notification: Callable[..., Notification],
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    respond: Callable[..., bytes],
) -> None:
    later = {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "4000000000"}
    endpoint = await start(respond(429, '{"message": "rate limited", "retry_after": 2.5}', **later))
    monkeypatch.setattr(NotifyDiscord, "notify_url", f"{endpoint.url}/api/webhooks")
    outcome = await asyncio.wait_for(discord().send(make_notification(), context), 5)
    assert (outcome.result, outcome.code, outcome.retry_after) == ("retry", 429, 2.5)


KINDS = ["telegram", "discord", "msteamsv2", "apprise"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_header_that_says_how_long_to_wait_is_honoured(
    kind: str,
    reach: Callable[..., Receiver],
    start: Any,
    make_notification: Callable[..., Notification],
    context: Context,
    respond: Callable[..., bytes],
) -> None:
    endpoint = await start(respond(429, "slow down", Retry_After="30"))
    receiver = reach(kind, endpoint.url)
    outcomes = await asyncio.gather(*(receiver.send(make_notification(), context) for _ in range(3)))
    assert {(one.result, one.code, one.retry_after) for one in outcomes} == {("retry", 429, 30)}


async def test_a_server_that_is_not_there_may_be_tried_again_whatever_the_message_says(
    make_notification: Callable[..., Notification], make_alert: Any, context: Context, unused_tcp_port: int
) -> None:
    notification = make_notification(make_alert(annotations=(("summary", "31% end with status 404"),)))
    outcome = await telegram(f"http://127.0.0.1:{unused_tcp_port}").send(notification, context)
    assert outcome.result == "retry"
    assert outcome.detail == "no connection to telegram: the connection was refused"


async def test_a_server_that_says_nothing_is_given_up_in_time_and_stops_no_other_group(
    start: Any, make_notification: Callable[..., Notification], context: Context
) -> None:
    release = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()

    endpoint = await start(hang, hang, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    receiver = telegram(endpoint.url, timeout="300ms")
    outcomes = await asyncio.gather(*(receiver.send(make_notification(), context) for _ in range(3)))
    assert sorted(outcome.result for outcome in outcomes) == ["delivered", "retry", "retry"]
    release.set()


async def test_nothing_shows_a_token(
    start: Any,
    make_notification: Callable[..., Notification],
    context: Context,
    respond: Callable[..., bytes],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_root: list[str] = []

    class Root(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            at_root.append(record.getMessage())

    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [Root()])
    monkeypatch.setattr(root, "level", logging.DEBUG)
    endpoint = await start(respond(404, f"no bot at /bot{TOKEN}/sendMessage"))
    receiver = telegram(endpoint.url)
    outcome = await receiver.send(make_notification(), context)
    assert outcome.result == "refused"
    assert "no bot at" in outcome.answer
    printed = capfd.readouterr()
    shown = f"{outcome} {receiver!r} {vars(receiver)} {printed.out} {printed.err} {at_root}"
    assert "AAbbCC" not in shown


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("discord", DiscordOptions.model_validate({"webhook_url": "https://chat.example/api/t0pp-secret"}), "webhook_url: expected https://discord.com/"),
        ("msteams", TeamsOptions.model_validate({"webhook_url": "https://x.webhook.office.com/t0pp-secret"}), "retired"),
        ("telegram", TelegramOptions.model_validate({"bot_token": "t0pp-secret", "chat_id": 1}), "bot_token: expected"),
        ("apprise", AppriseOptions.model_validate({"url": "nonsense://t0pp-secret"}), "url: apprise does not take it"),
    ],
)  # fmt: skip
async def test_an_address_that_apprise_does_not_take_is_a_mistake_that_is_not_shown(
    kind: str, options: Options, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        built(kind, options)
    assert str(caught.value).startswith(f"people/{kind}[0]: ")
    assert words in str(caught.value)
    assert "t0pp" not in str(caught.value)


async def test_without_the_package_the_mistake_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigError, match=r"pip install 'vllm-exporter\[notify\]'"):
        discord()
