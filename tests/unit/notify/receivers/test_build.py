"""Every kind of endpoint has its receiver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from exporter.errors import ConfigError
from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import KINDS
from exporter.notify.receivers.build import build, load_receivers
from exporter.settings import NotifySettings

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


RECEIVERS = """
route: {receiver: all}
receivers:
- name: all
  webhook_configs: [{url: http://127.0.0.1:1/}]
- name: pushed
  alertmanager_configs: [{urls: [http://127.0.0.1:1/]}]
- name: nobody
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "am.yml"
    path.write_text(RECEIVERS)
    return path


@pytest.mark.parametrize("receiver", ["pushed", "nobody"])
def test_reports_need_a_receiver_with_an_endpoint_that_takes_them(file: Path, receiver: str) -> None:
    wanted = NotifySettings(file=file, report="weekly", report_receiver=receiver)
    with pytest.raises(ConfigError, match=f"receiver '{receiver}' has no endpoint that takes a report"):
        load_receivers(wanted)
    load_receivers(NotifySettings(file=file, report="off", report_receiver=receiver))
    load_receivers(NotifySettings(file=file, report="weekly", report_receiver="all"))


def test_every_mistake_is_told_at_once(file: Path) -> None:
    file.write_text(RECEIVERS.replace("127.0.0.1:1/}]", "127.0.0.1:1/, headers: {Host: x}}]"))
    wrong = NotifySettings(
        file=file, alertmanagers=(SecretStr("nowhere"),), report="daily", report_receiver="nobody"
    )
    with pytest.raises(ConfigError) as caught:
        load_receivers(wrong)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "notify.alertmanagers, number 1",
        "all/webhook[0]",
        "notify.report_receiver",
    ]
    file.write_text("nothing")
    with pytest.raises(ConfigError, match=r"(?s)notify\.alertmanagers, number 1.*am\.yml"):
        load_receivers(wrong)
