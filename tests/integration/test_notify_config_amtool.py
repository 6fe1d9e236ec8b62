"""The configuration file, judged by the real amtool and by ours: what one accepts the other does, and likewise refuses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from exporter.errors import ConfigError
from exporter.notify.config.load import effective, load_config
from exporter.storage.model import Labels

RULES = Path(__file__).parents[2] / "rules"
AMTOOL = shutil.which("amtool")

pytestmark = pytest.mark.skipif(AMTOOL is None, reason="amtool is not installed")


def amtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["amtool", *arguments], capture_output=True, text=True, timeout=30)


def accepted_by_amtool(file: Path) -> bool:
    return amtool("check-config", str(file)).returncode == 0


def accepted_by_us(file: Path) -> bool:
    try:
        load_config(file.read_text(), str(file))
    except ConfigError:
        return False
    return True


RECEIVERS = "receivers: [{name: a}, {name: b}]\n"
HOOK = "receivers: [{name: a, webhook_configs: [{url: http://x/}]}]\n"
EVERYTHING = """
global:
  resolve_timeout: 2m
  smtp_smarthost: mail.example.org:587
  smtp_from: a@example.org
  smtp_auth_username: u
  smtp_auth_password: p
  slack_api_url: https://hooks.slack.com/services/x
  telegram_api_url: https://api.telegram.org
route:
  receiver: team
  group_by: [alertname, cluster]
  group_wait: 0s
  group_interval: 1m30s
  repeat_interval: 1d
  routes:
  - match: {severity: page}
    match_re: {service: ^(a|b)$}
    matchers: ['team!="x"', zone=~"eu-.+"]
    receiver: duty
    continue: true
    mute_time_intervals: [night]
    active_time_intervals: [hours]
  - matchers: [severity="none"]
    group_by: ['...']
    receiver: nobody
inhibit_rules:
- source_matchers: [severity="critical"]
  target_matchers: [severity="warning"]
  equal: [alertname]
- source_match: {a: b}
  target_match_re: {a: c|d}
mute_time_intervals:
- name: night
  time_intervals:
  - times: [{start_time: 22:00, end_time: 24:00}, {start_time: '00:00', end_time: '06:00'}]
    weekdays: ['monday:friday', saturday]
    days_of_month: ['1:5', '-3:-1']
    months: ['1:3', may]
    years: ['2026', '2027:2030']
time_intervals:
- name: hours
  time_intervals: [{times: [{start_time: 09:00, end_time: 17:00}], location: Asia/Shanghai}]
receivers:
- name: team
  webhook_configs:
  - url: http://u:p@127.0.0.1:5001/hook
    max_alerts: 10
    send_resolved: false
    http_config: {basic_auth: {username: u, password: p}, tls_config: {insecure_skip_verify: true}, follow_redirects: true}
  slack_configs: [{channel: '#gpu', send_resolved: true, username: box, icon_emoji: ':fire:'}]
  discord_configs: [{webhook_url: https://discord.com/api/webhooks/1/x}]
  telegram_configs: [{bot_token: t, chat_id: -5, disable_notifications: true}]
  email_configs: [{to: b@example.org, headers: {X-Team: gpu}, require_tls: false, tls_config: {server_name: mail}}]
- name: duty
  pagerduty_configs: [{routing_key: k, severity: critical, client: box, class: gpu, component: engine, group: g}]
- name: nobody
templates: []
"""

GOOD = {
    "a root alone": "route: {receiver: a}\n" + RECEIVERS,
    "everything": EVERYTHING,
    "group by nothing": "route: {receiver: a, group_by: []}\n" + RECEIVERS,
    "an unknown value of nothing": "route: {receiver: a}\nglobal:\ninhibit_rules:\n" + RECEIVERS,
    "no intervals within a name": "time_intervals: [{name: n, time_intervals: []}]\nroute: {receiver: a}\n" + RECEIVERS,
    "classic matchers": "route: {receiver: a, routes: [{matchers: ['{a=b,c!~d}', 'a==b', 'a=\"\\d\"']}]}\n" + RECEIVERS,
    "anchors and merges": "x: &x\nroute: {receiver: a, routes: [&r {matchers: [a=b]}, {<<: *r, receiver: b}]}\n".replace("x: &x\n", "")
    + RECEIVERS,
}  # fmt: skip
BAD = {
    "nothing": "",
    "no route": RECEIVERS,
    "no receiver": "route: {group_wait: 1s}\n" + RECEIVERS,
    "an undefined receiver": "route: {receiver: c}\n" + RECEIVERS,
    "an undefined receiver below": "route: {receiver: a, routes: [{receiver: c}]}\n" + RECEIVERS,
    "a receiver twice": "route: {receiver: a}\nreceivers: [{name: a}, {name: a}]\n",
    "a receiver without a name": "route: {receiver: a}\nreceivers: [{name: a}, {webhook_configs: []}]\n",
    "an unknown key": "route: {receiver: a, groupby: [x]}\n" + RECEIVERS,
    "a key twice": "route: {receiver: a, receiver: b}\n" + RECEIVERS,
    "a root with matchers": "route: {receiver: a, matchers: [a=b]}\n" + RECEIVERS,
    "a root that goes on": "route: {receiver: a, continue: true}\n" + RECEIVERS,
    "a bad duration": "route: {receiver: a, group_wait: 5}\n" + RECEIVERS,
    "group_interval zero": "route: {receiver: a, group_interval: 0s}\n" + RECEIVERS,
    "repeat_interval zero": "route: {receiver: a, repeat_interval: 0s}\n" + RECEIVERS,
    "a label twice": "route: {receiver: a, group_by: [x, x]}\n" + RECEIVERS,
    "all labels and another": "route: {receiver: a, group_by: ['...', x]}\n" + RECEIVERS,
    "a bad matcher": "route: {receiver: a, routes: [{matchers: [a]}]}\n" + RECEIVERS,
    "a bad expression": "route: {receiver: a, routes: [{matchers: ['a=~\"[\"']}]}\n" + RECEIVERS,
    "a bad older expression": "route: {receiver: a, routes: [{match_re: {a: '['}}]}\n" + RECEIVERS,
    "matchers that are no list": "route: {receiver: a, routes: [{matchers: {a: b}}]}\n" + RECEIVERS,
    "an undefined interval": "route: {receiver: a, routes: [{mute_time_intervals: [x]}]}\n" + RECEIVERS,
    "an interval twice": "time_intervals: [{name: n}]\nmute_time_intervals: [{name: n}]\nroute: {receiver: a}\n" + RECEIVERS,
    "a bad time": "time_intervals: [{name: n, time_intervals: [{times: [{start_time: '9:00', end_time: '10:00'}]}]}]\nroute: {receiver: a}\n"
    + RECEIVERS,
    "times out of order": "time_intervals: [{name: n, time_intervals: [{times: [{start_time: '22:00', end_time: '06:00'}]}]}]\nroute: {receiver: a}\n"
    + RECEIVERS,
    "a bad weekday": "time_intervals: [{name: n, time_intervals: [{weekdays: [mon]}]}]\nroute: {receiver: a}\n" + RECEIVERS,
    "a bad day": "time_intervals: [{name: n, time_intervals: [{days_of_month: ['-1:5']}]}]\nroute: {receiver: a}\n" + RECEIVERS,
    "a bad zone": "time_intervals: [{name: n, time_intervals: [{location: Europe/Berln}]}]\nroute: {receiver: a}\n" + RECEIVERS,
    "a webhook without a URL": "route: {receiver: a}\n" + HOOK.replace("url: http://x/", "max_alerts: 1"),
    "a URL of another scheme": "route: {receiver: a}\n" + HOOK.replace("http:", "ftp:"),
    "slack without a URL": "route: {receiver: a}\nreceivers: [{name: a, slack_configs: [{channel: x}]}]\n",
    "pagerduty without a key": "route: {receiver: a}\nreceivers: [{name: a, pagerduty_configs: [{severity: error}]}]\n",
    "email without a server": "route: {receiver: a}\nreceivers: [{name: a, email_configs: [{to: b, from: c}]}]\n",
    "two ways to authenticate": "route: {receiver: a}\n"
    + HOOK.replace("http://x/", "http://x/, http_config: {bearer_token: x, basic_auth: {username: u}}"),
}  # fmt: skip


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_both_accept(text: str, tmp_path: Path):
    file = tmp_path / "am.yml"
    file.write_text(text)
    done = amtool("check-config", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    load_config(text, str(file))


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_both_refuse(text: str, tmp_path: Path):
    file = tmp_path / "am.yml"
    file.write_text(text)
    assert not accepted_by_amtool(file)
    assert not accepted_by_us(file)


def test_amtool_accepts_the_shipped_configuration():
    assert accepted_by_amtool(RULES / "alertmanager.yml")


@pytest.mark.parametrize("text", [None, EVERYTHING], ids=["shipped", "everything"])
def test_amtool_accepts_what_is_shown_of_a_configuration(text: str | None, tmp_path: Path):
    shown = tmp_path / "shown.yml"
    if text is None:
        shown.write_text(effective(None, [SecretStr("http://127.0.0.1/hook")]).shown)
    else:
        shown.write_text(load_config(text, "am.yml").shown)
    done = amtool("check-config", str(shown))
    assert done.returncode == 0, done.stdout + done.stderr


ROUTES = """
route:
  receiver: root
  routes:
  - matchers: [severity="critical"]
    receiver: r0
    continue: true
  - match: {team: x}
    receiver: r1
    routes:
    - match_re: {service: p|q}
      receiver: r2
    - matchers: ['service!~"p.*"', 'env=""']
      receiver: r3
      continue: true
    - matchers: ['service=~".+"']
      receiver: r4
  - matchers: ['alertname=~"VLLM(Engine|GPU).*",severity!="none"']
    receiver: r5
receivers: [{name: root}, {name: r0}, {name: r1}, {name: r2}, {name: r3}, {name: r4}, {name: r5}]
"""


@pytest.mark.parametrize(
    "labels",
    [
        {"alertname": "x"},
        {"severity": "critical"},
        {"severity": "critical", "team": "x"},
        {"team": "x", "service": "p"},
        {"team": "x", "service": "pq"},
        {"team": "x", "service": "z"},
        {"team": "x", "service": "z", "env": "dev"},
        {"alertname": "VLLMEngineDown", "severity": "critical"},
        {"alertname": "VLLMGPULost", "severity": "none"},
        {"alertname": "OtherVLLMGPU"},
    ],
)
def test_an_alert_takes_the_routes_that_amtool_says(labels: dict[str, str], tmp_path: Path):
    file = tmp_path / "am.yml"
    file.write_text(ROUTES)
    said = amtool(
        "config",
        "routes",
        "test",
        f"--config.file={file}",
        *(f"{name}={value}" for name, value in labels.items()),
    )
    assert said.returncode == 0, said.stderr
    ours: Labels = tuple(sorted(labels.items()))
    route = load_config(ROUTES, "am.yml").route
    assert ",".join(one.receiver for one in route.matching(ours)) == said.stdout.strip()
