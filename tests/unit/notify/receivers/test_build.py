"""Every kind of endpoint has its receiver."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import KINDS
from exporter.notify.receivers.build import build

WORKFLOW = (
    "https://prod-01.westus.logic.azure.com/workflows/"
    + "a" * 32
    + "/triggers/manual/paths/invoke?api-version=2016-06-01&sig="
    + "b" * 43
)
OPTIONS: dict[str, dict[str, Any]] = {
    "webhook": {"url": "http://127.0.0.1:1/secret-path"},
    "email": {"to": "a@example.org", "from": "b@example.org", "smarthost": "127.0.0.1:25"},
    "pagerduty": {"routing_key": "secret-key"},
    "slack": {"api_url": "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX"},
    "telegram": {"bot_token": "123456789:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "chat_id": 1},
    "discord": {"webhook_url": "https://discord.com/api/webhooks/123456789012345678/" + "a" * 68},
    "msteams": {"webhook_url": WORKFLOW},
    "msteamsv2": {"webhook_url": WORKFLOW},
    "feishu": {"webhook_url": "https://open.feishu.cn/open-apis/bot/v2/hook/secret-path"},
    "dingtalk": {"webhook_url": "https://oapi.dingtalk.com/robot/send?access_token=secret-token"},
    "wecom": {"webhook_url": "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=secret-key"},
    "apprise": {"url": "json://127.0.0.1:1/secret-path"},
    "alertmanager": {"urls": ("http://127.0.0.1:1/secret-path",)},
}


@pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")  # apprise asks for it
@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_is_built_without_a_connection_and_shows_no_secret(kind: str) -> None:
    options = KINDS[kind].model_validate(OPTIONS[kind])
    receiver = build(Endpoint("r", f"{kind}[0]", kind, True, options))
    assert receiver.send_resolved
    assert 0 < receiver.timeout < 60
    assert receiver.kind
    assert "secret-" not in repr(receiver)
    await receiver.close()
