"""The example of `deploy/alertmanager/` is a configuration that loads, and Alertmanager's own but for one kind."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from exporter.notify.config.load import effective
from exporter.notify.receivers.build import load_receivers
from exporter.settings import NotifySettings

EXAMPLE = Path(__file__).parents[2] / "deploy" / "alertmanager" / "alertmanager.yml"
SECRETS = {
    "pagerduty.key": "0" * 32,
    "feishu.url": "https://open.feishu.cn/open-apis/bot/v2/hook/x",
    "feishu.secret": "s",
    "watchdog.url": "https://example.com/x",
}


def example(folder: Path, text: str) -> Path:
    for name, secret in SECRETS.items():
        (folder / name).write_text(secret)
    (folder / "alertmanager.yml").write_text(text, encoding="utf-8")
    return folder / "alertmanager.yml"


def test_the_example_loads(tmp_path: Path) -> None:
    file = example(tmp_path, EXAMPLE.read_text(encoding="utf-8"))
    loaded = load_receivers(NotifySettings(file=file))
    assert {receiver for receiver, _ in loaded.receivers} == {"page", "chat", "watchdog"}
    told = {
        severity: [route.receiver for route in loaded.config.route.matching((("severity", severity),))]
        for severity in ("none", "critical", "warning", "info")
    }
    assert told == {
        "none": ["watchdog"],
        "critical": ["page", "chat"],
        "warning": ["chat"],
        "info": ["chat"],
    }
    assert loaded.config.inhibitions == effective().inhibitions
    assert loaded.config.intervals["nights"].contains(
        1_700_000_000 - 1_700_000_000 % 86400 + 15 * 3600
    )  # 23:00


@pytest.mark.skipif(shutil.which("amtool") is None, reason="no amtool")
def test_alertmanager_takes_it_with_a_receiver_of_its_own_in_place_of_ours(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    ours = text[text.index("    feishu_configs:") : text.index("  # A dead man's switch")]
    theirs = "    webhook_configs:\n      - url: http://localhost/\n"
    file = example(tmp_path, text.replace(ours, theirs).replace("_key_file: pagerduty.key", "_key: x"))
    file.write_text(file.read_text().replace("url_file: watchdog.url", "url: http://localhost/"))
    checked = subprocess.run(["amtool", "check-config", str(file)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
