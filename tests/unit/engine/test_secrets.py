"""Texts that may be shown: known webhook URLs are masked, wherever an engine or a library prints them."""

from __future__ import annotations

import json
import time

import pytest

from exporter.engine.secrets import mask

HOOKS = [
    "https://hooks.slack.com/services/T0123ABCD/B0123ABCD/{}",
    "https://hooks.slack-gov.com/services/T0123ABCD/B0123ABCD/{}",
    "https://hooks.slack.com/workflows/T0123ABCD/A01/4/{}",
    "https://discord.com/api/webhooks/123456789012345678/{}",
    "https://canary.discordapp.com/api/v10/webhooks/123456789012345678/{}?wait=true",
    "https://open.feishu.cn/open-apis/bot/v2/hook/{}",
    "https://open.larksuite.com/open-apis/bot/v2/hook/{}",
    "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={}",
    "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?debug=1&key={}",
    "https://oapi.dingtalk.com/robot/send?access_token={}&timestamp=1",
    "https://oapi.dingtalk.com/robot/send?access_token=1&timestamp=1&sign={}",
    "https://api.telegram.org/bot123456789:{}/sendMessage",
    "https://api.telegram.org/bot123456789%3A{}/sendMessage",
    "https://contoso.webhook.office.com/webhookb2/guid@guid/IncomingWebhook/{}/guid",
    "https://outlook.office.com/webhook/guid@guid/IncomingWebhook/{}/guid",
    "https://prod-1.westeurope.logic.azure.com:443/workflows/a/triggers/manual/paths/invoke?sv=1.0&sig={}",
]
SECRET = "XyZ-0123456789_abcdefGHI"


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(
    "text", ["{}", "posting to {} failed", "url='{}', x", '{{"url": "{}"}}', "(<{}>)", "HTTP 404: {}."]
)
def test_the_secret_of_a_webhook_is_not_shown(hook: str, text: str) -> None:
    shown = mask(text.format(hook.format(SECRET)))
    assert SECRET not in shown
    assert shown.startswith(text.partition("{}")[0].replace("{{", "{"))
    assert "***" in shown


@pytest.mark.parametrize("hook", HOOKS)
def test_nor_is_it_in_escaped_json_or_where_a_library_names_the_path_alone(hook: str) -> None:
    url = hook.format(SECRET)
    escaped = json.dumps({"url": url}).replace("/", r"\/").replace("&", r"\u0026")
    assert SECRET not in mask(escaped)
    host, _, path = url.removeprefix("https://").partition("/")
    if "workflows/T" in path or host == "outlook.office.com":
        return
    said = f"HTTPSConnectionPool(host='{host}', port=443): Max retries exceeded with url: /{path}"
    assert SECRET not in mask(said)


def test_what_is_around_a_webhook_stays() -> None:
    text = 'error at "https://hooks.slack.com/services/T0123ABCD/B0123ABCD/abc", then retried'
    assert mask(text) == 'error at "https://hooks.slack.com/services/***", then retried'
    assert mask("https://api.telegram.org/bot123456789:AAAAAAAAAA/getMe") == (
        "https://api.telegram.org/bot***/getMe"
    )


@pytest.mark.parametrize(
    "text",
    [
        "GET /v1/models HTTP/1.1",
        "Route: /services/status, Methods: GET",
        "loading /data/services/Team/models",
        "signal 15; design of /bots/12",
        "see https://docs.vllm.ai/en/latest/api/webhooks/overview.html?page=2&key_size=4",
    ],
)
def test_other_paths_are_shown(text: str) -> None:
    assert mask(text) == text


def test_a_hostile_line_costs_little() -> None:
    begun = time.perf_counter()
    for piece in ("/services/T", "hooks.slack.com/a", "/api/webhooks/1", "?key=", r"\/", "/bot1"):
        mask("hook " + piece * 2000)
    assert time.perf_counter() - begun < 2
