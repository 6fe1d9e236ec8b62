"""Receivers out of the file: options, what they inherit, every mistake at once, and no secret anywhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from exporter.errors import ConfigError
from exporter.notify.config.load import effective, load_config
from exporter.notify.config.model import Endpoint, NotifyConfig
from exporter.notify.config.receivers import (
    KINDS,
    AlertmanagerOptions,
    EmailOptions,
    PagerdutyOptions,
    TelegramOptions,
    WebhookOptions,
)
from exporter.storage.model import Labels

ROUTE = "route: {receiver: r}\n"


def loaded(text: str, source: str = "am.yml") -> NotifyConfig:
    return load_config(ROUTE + text, source)


def options_of(text: str, source: str = "am.yml") -> list[object]:
    return [endpoint.options for endpoint in loaded(text, source).endpoints]


def problems(text: str, source: str = "am.yml") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, source)
    assert "S3CRET" not in str(caught.value)
    return caught.value.problems


def plain(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def test_each_config_is_an_endpoint_numbered_within_its_kind_and_receiver():
    config = loaded("""
receivers:
- name: r
  webhook_configs: [{url: http://a/}, {url: http://b/, send_resolved: false}]
  slack_configs: [{api_url: https://hooks.slack.com/x}]
- name: 值班
  webhook_configs: [{url: http://c/}]
- name: nobody
""")
    assert [(one.receiver, one.integration, one.kind, one.send_resolved) for one in config.endpoints] == [
        ("r", "webhook[0]", "webhook", True),
        ("r", "webhook[1]", "webhook", False),
        ("r", "slack[0]", "slack", False),
        ("值班", "webhook[0]", "webhook", True),
    ]
    assert config.receivers == ("r", "值班", "nobody")


def test_send_resolved_defaults_as_in_alertmanager():
    quiet = {kind for kind, model in KINDS.items() if not model.model_fields["send_resolved"].default}
    assert quiet == {"slack", "email"}


def test_a_webhook_with_everything(tmp_path: Path):
    (tmp_path / "ca.pem").write_text("CA")
    (tmp_path / "body.j2").write_text("{{ status }}\n")
    (tmp_path / "secret").write_text("S3CRET\n")
    (options,) = options_of(
        """
receivers:
- name: r
  webhook_configs:
  - url_file: secret-url
    max_alerts: 5
    timeout: 1m0.5s
    headers: {X-Team: S3CRET}
    signature: {secret_file: secret}
    body_file: body.j2
    http_config:
      basic_auth: {username: u, password_file: secret}
      follow_redirects: true
      tls_config: {ca_file: ca.pem, server_name: x, insecure_skip_verify: yes}
      http_headers: {X-A: {values: [b], secrets: [S3CRET]}}
""".replace("url_file: secret-url", "url: http://u:S3CRET@h:81/x?k=S3CRET"),
        str(tmp_path / "am.yml"),
    )
    assert isinstance(options, WebhookOptions)
    assert plain(options.url) == "http://u:S3CRET@h:81/x?k=S3CRET"
    assert (options.max_alerts, options.timeout, options.body) == (5, 60.5, "{{ status }}")
    assert plain(options.headers["X-Team"]) == "S3CRET"
    assert options.signature is not None
    assert plain(options.signature.secret) == "S3CRET"
    http = options.http_config
    assert http.basic_auth is not None
    assert (http.basic_auth.username, plain(http.basic_auth.password)) == ("u", "S3CRET")
    assert http.tls_config.ca_file == tmp_path / "ca.pem"
    assert (http.tls_config.server_name, http.tls_config.insecure_skip_verify) == ("x", True)
    assert http.http_headers["X-A"].values == ("b",)
    assert plain(http.http_headers["X-A"].secrets[0]) == "S3CRET"
    assert "S3CRET" not in repr(options)


def test_defaults_of_a_webhook():
    (options,) = options_of("receivers: [{name: r, webhook_configs: [{url: http://a/, timeout: 0s}]}]")
    assert isinstance(options, WebhookOptions)
    assert (options.max_alerts, options.timeout, options.http_config.follow_redirects) == (1000, 10.0, True)


def test_files_of_secrets_lie_beside_the_configuration(tmp_path: Path):
    (tmp_path / "url").write_text("https://hooks/S3CRET\n")
    (options,) = options_of(
        "receivers: [{name: r, webhook_configs: [{url_file: url}]}]", str(tmp_path / "am.yml")
    )
    assert isinstance(options, WebhookOptions)
    assert plain(options.url) == "https://hooks/S3CRET"


def test_receivers_take_from_global_what_they_do_not_say():
    config = loaded("""
global:
  resolve_timeout: 1m
  smtp_smarthost: mail.example.org:587
  smtp_from: a@example.org
  smtp_auth_username: u
  smtp_auth_password: S3CRET
  smtp_require_tls: false
  pagerduty_url: https://eu.example.org/
  telegram_bot_token: S3CRET
  http_config: {follow_redirects: false}
receivers:
- name: r
  email_configs: [{to: b@example.org}, {to: c@example.org, from: d@example.org, require_tls: true}]
  pagerduty_configs: [{routing_key: S3CRET, class: gpu, severity: warning}]
  webhook_configs: [{url: http://a/}, {url: http://a/, http_config: {}}]
""")
    assert config.resolve_timeout == 60.0
    first, second, duty, inherits, own = (endpoint.options for endpoint in config.endpoints)
    assert isinstance(first, EmailOptions)
    assert isinstance(second, EmailOptions)
    assert (first.smarthost, first.from_, first.require_tls) == (
        "mail.example.org:587",
        "a@example.org",
        False,
    )
    assert (first.auth_username, plain(first.auth_password)) == ("u", "S3CRET")
    assert (second.from_, second.require_tls) == ("d@example.org", True)
    assert isinstance(duty, PagerdutyOptions)
    assert (duty.url, duty.class_, duty.severity) == ("https://eu.example.org/", "gpu", "warning")
    assert isinstance(inherits, WebhookOptions)
    assert isinstance(own, WebhookOptions)
    assert (inherits.http_config.follow_redirects, own.http_config.follow_redirects) == (False, True)


def test_a_secret_of_its_own_wins_over_one_from_global(tmp_path: Path):
    (tmp_path / "token").write_text("own")
    (options,) = options_of(
        """
global: {telegram_bot_token: general}
receivers: [{name: r, telegram_configs: [{bot_token_file: token, chat_id: -1001}]}]
""",
        str(tmp_path / "am.yml"),
    )
    assert isinstance(options, TelegramOptions)
    assert (plain(options.bot_token), options.chat_id) == ("own", -1001)


def test_receivers_that_alertmanager_lacks():
    config = loaded("""
receivers:
- name: r
  feishu_configs: [{webhook_url: https://open.feishu.cn/x, secret: s}]
  dingtalk_configs: [{webhook_url: https://oapi.dingtalk.com/x}]
  wecom_configs: [{webhook_url: https://qyapi.weixin.qq.com/x}]
  apprise_configs: [{url: 'ntfy://topic'}]
  alertmanager_configs: [{urls: [http://a:9093, http://b:9093/am], timeout: 5s}]
""")
    assert [one.kind for one in config.endpoints] == [
        "feishu",
        "dingtalk",
        "wecom",
        "apprise",
        "alertmanager",
    ]
    last = config.endpoints[-1].options
    assert isinstance(last, AlertmanagerOptions)
    assert [plain(url) for url in last.urls] == ["http://a:9093", "http://b:9093/am"]


SECRETS = """
global:
  slack_api_url: https://hooks.slack.com/S3CRET   # S3CRET, the old one
  smtp_auth_password: S3CRET
  telegram_bot_token_file: token
receivers:
- name: r
  webhook_configs:
  - &hook
    url: https://h/S3CRET
    headers: {A: S3CRET}
    signature: {secret: S3CRET}
    http_config:
      authorization: {credentials: S3CRET}
      http_headers: {B: {secrets: [S3CRET]}}
    max_alerts: 3
  - *hook
  slack_configs: [{channel: '#gpu', send_resolved: true}]
  pagerduty_configs: [{routing_key: S3CRET}]
  discord_configs: [{webhook_url: https://d/S3CRET}]
  telegram_configs: [{chat_id: 5}]
  msteams_configs: [{webhook_url: https://d/S3CRET}]
  feishu_configs: [{webhook_url: https://d/S3CRET, secret: S3CRET}]
  apprise_configs: [{url: 'x://S3CRET'}]
  alertmanager_configs: [{urls: [https://u:S3CRET@d/]}]
"""


def test_what_is_shown_is_the_file_without_its_secrets(tmp_path: Path):
    (tmp_path / "token").write_text("S3CRET")
    config = loaded(SECRETS, str(tmp_path / "am.yml"))
    assert "S3CRET" not in config.shown
    assert "S3CRET" not in repr(config)
    data = yaml.safe_load(config.shown)
    assert data["global"] == {
        "slack_api_url": "<secret>",
        "smtp_auth_password": "<secret>",
        "telegram_bot_token_file": "token",
    }
    webhook = data["receivers"][0]["webhook_configs"][1]
    assert (webhook["url"], webhook["max_alerts"], webhook["headers"]) == (
        "http://<secret>",
        3,
        {"A": "<secret>"},
    )
    assert data["receivers"][0]["alertmanager_configs"] == [{"urls": ["<secret>"]}]
    assert data["receivers"][0]["slack_configs"] == [{"channel": "#gpu", "send_resolved": True}]


def test_what_people_put_secrets_into_is_not_shown_either():
    config = loaded("""
receivers:
- name: r
  webhook_configs:
  - url: http://h/
    http_config: {http_headers: {X-Key: {values: [S3CRET, S3CRET]}}}
    body: '{"token": "S3CRET"}'
  email_configs: [{to: a@b, from: c@d, smarthost: e:25, headers: {X-Key: S3CRET}}]
""")
    assert "S3CRET" not in config.shown
    assert "S3CRET" not in repr(config)
    (receiver,) = yaml.safe_load(config.shown)["receivers"]
    (webhook,) = receiver["webhook_configs"]
    assert webhook["http_config"] == {"http_headers": {"X-Key": {"values": ["<secret>", "<secret>"]}}}
    assert webhook["body"] == "<secret>"
    assert receiver["email_configs"][0]["headers"] == {"X-Key": "<secret>"}


@pytest.mark.parametrize(
    "config",
    [
        "pagerduty_configs: [{routing_key: S3CRET, url: 'https://u:S3CRET@h/'}]",
        "pagerduty_configs: [{routing_key: S3CRET, client_url: 'https://S3CRET@h/'}]",
        "telegram_configs: [{bot_token: S3CRET, chat_id: 1, api_url: 'https://u:S3CRET@h'}]",
        "slack_configs: [{api_url: http://a/, icon_url: 'https://u:S3CRET@h/'}]",
        "discord_configs: [{webhook_url: http://a/, avatar_url: 'https://u:S3CRET@[h/'}]",
    ],
)
def test_an_address_that_is_shown_has_no_password_in_it(config: str):
    (told,) = problems(f"receivers:\n- name: r\n  {config}\n")
    assert "_url: a user or password in it would be shown" in told or ".url: a user or password" in told


def test_a_configuration_as_it_is_shown_is_not_taken_for_one(tmp_path: Path):
    (tmp_path / "token").write_text("S3CRET")
    shown = loaded(SECRETS, str(tmp_path / "am.yml")).shown
    with pytest.raises(ConfigError, match="stands in place of the secret"):
        load_config(shown, str(tmp_path / "am.yml"))


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("webhook_configs: http://S3CRET", "receivers[0].webhook_configs: expected a list"),
        ("webhook_configs: [http://S3CRET]", "receivers[0].webhook_configs[0]: expected a mapping"),
        ("webhook_configs: [~]", "receivers[0].webhook_configs[0]: there is nothing"),
        ("webhook_configs: [{}]", "receivers[0].webhook_configs[0]: url is missing"),
        ("webhook_configs: [{url: S3CRET}]", "receivers[0].webhook_configs[0].url: expected an http or https URL with a host"),
        ("webhook_configs: [{url: 'file:///S3CRET'}]", "receivers[0].webhook_configs[0].url: expected an http or https URL with a host"),
        ("webhook_configs: [{url: 'http://h:S3CRET/'}]", "receivers[0].webhook_configs[0].url: expected an http or https URL with a host"),
        ("webhook_configs: [{url: 'http://S3CRET/{{ .x }}'}]", "receivers[0].webhook_configs[0].url: a template is not carried out here: expected an http or https URL"),
        ("webhook_configs: [{url: 'http://S3CRET /'}]", "receivers[0].webhook_configs[0].url: a URL has no spaces or control characters"),
        ("webhook_configs: [{ur: http://S3CRET/, url: http://a/}]", "receivers[0].webhook_configs[0]: unknown key ur; did you mean url?"),
        ("webhook_configs: [{url: http://a/, payload: S3CRET}]", "receivers[0].webhook_configs[0]: payload is not carried out here: body takes a Jinja template"),
        ("webhook_configs: [{url: http://a/, url_file: b}]", "receivers[0].webhook_configs[0]: url and url_file are both set: keep one"),
        ("webhook_configs: [{url_file: /nonexistent}]", "receivers[0].webhook_configs[0].url_file: cannot be read: No such file or directory"),
        ("webhook_configs: [{url_file: /dev/zero}]", "receivers[0].webhook_configs[0].url_file: cannot be read: it is no file"),
        ("webhook_configs: [{url_file: /dev/null}]", "receivers[0].webhook_configs[0].url_file: cannot be read: it is no file"),
        ("webhook_configs: [{url: http://a/, timeout: 10}]", "receivers[0].webhook_configs[0].timeout: expected a duration with its unit, such as 10s"),
        ("webhook_configs: [{url: http://a/, max_alerts: S3CRET}]", "receivers[0].webhook_configs[0].max_alerts: expected a whole number"),
        ("webhook_configs: [{url: http://a/, headers: {A: ''}}]", "receivers[0].webhook_configs[0].headers.A: it is empty"),
        ("webhook_configs: [{url: http://a/, http_config: {bearer_token: S3CRET, authorization: {credentials: S3CRET}}}]", "receivers[0].webhook_configs[0].http_config: at most one of basic_auth, authorization and bearer_token may be set"),
        ("webhook_configs: [{url: http://a/, http_config: {authorization: {type: basic, credentials: S3CRET}}}]", "receivers[0].webhook_configs[0].http_config.authorization: authorization type cannot be \"basic\": use basic_auth"),
        ("webhook_configs: [{url: http://a/, http_config: {proxy_url: http://S3CRET}}]", "receivers[0].webhook_configs[0].http_config: proxy_url is not carried out here: there is no way through a proxy"),
        ("webhook_configs: [{url: http://a/, http_config: {tls_config: {cert_file: /etc/hostname}}}]", "receivers[0].webhook_configs[0].http_config.tls_config: cert_file and key_file go together: set both or neither"),
        ("webhook_configs: [{url: http://a/, http_config: {tls_config: {ca_file: /nonexistent}}}]", "receivers[0].webhook_configs[0].http_config.tls_config.ca_file: cannot be read: No such file or directory"),
        ("opsgenie_configs: [{api_key: S3CRET}]", "receivers[0]: opsgenie_configs is not carried out here: apprise_configs may reach the same service (https://github.com/caronc/apprise)"),
        ("webhook_config: []", "receivers[0]: unknown key webhook_config; did you mean webhook_configs?"),
        ("slack_configs: [{}]", "receivers[0].slack_configs[0]: api_url is missing"),
        ("slack_configs: [{api_url: http://S3CRET/, title: S3CRET}]", "receivers[0].slack_configs[0]: title is not carried out here: the program writes its own text"),
        ("slack_configs: [{api_url: http://S3CRET/, channel: '{{ S3CRET }}'}]", "receivers[0].slack_configs[0].channel: Go templates are not carried out here: say it in plain words, or leave it out"),
        ("pagerduty_configs: [{routing_key: S3CRET, severity: S3CRET}]", "receivers[0].pagerduty_configs[0].severity: Input should be 'critical', 'error', 'warning' or 'info'"),
        ("email_configs: [{to: a, from: b, smarthost: S3CRET}]", "receivers[0].email_configs[0].smarthost: expected HOST:PORT, such as smtp.example.org:587"),
        ("alertmanager_configs: [{urls: []}]", "receivers[0].alertmanager_configs[0].urls: needs at least one entry"),
        ("alertmanager_configs: [{urls: [http://a, S3CRET]}]", "receivers[0].alertmanager_configs[0].urls[1]: expected an http or https URL with a host"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_receiver_is_told_with_its_line_and_without_its_value(config: str, problem: str):
    (told,) = problems(f"receivers:\n- name: r\n  {config}\n")
    assert re.sub(r"^am\.yml:4:[0-9]+: ", "", told) == problem


def test_a_secrets_file_is_short_and_not_empty(tmp_path: Path):
    (tmp_path / "long").write_text("x" * 65537)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff")
    os.mkfifo(tmp_path / "pipe")
    for name, what in (
        ("long", "is longer than 65536 characters"),
        ("empty", "is empty"),
        ("binary", "cannot be read: it is not UTF-8 text"),
        ("pipe", "cannot be read: it is no file"),
    ):
        (told,) = problems(
            f"receivers: [{{name: r, wecom_configs: [{{webhook_url_file: {name}}}]}}]", str(tmp_path / "am")
        )
        assert told == f"{tmp_path / 'am'}:2:58: receivers[0].wecom_configs[0].webhook_url_file: {what}"


def test_a_secrets_file_of_a_user_who_is_not_there_is_a_mistake():
    config = "receivers: [{name: r, webhook_configs: [{url_file: ~nobody-of-that-name/url}]}]"
    (problem,) = problems(config)
    assert problem.endswith("url_file: cannot be read: there is no such user")


def test_a_forgotten_space_behind_a_colon_is_a_mistake_and_is_not_shown():
    found = problems("receivers: [{name: r, webhook_configs: [{url: http://a/, url:http://S3CRET/}]}]")
    assert found == [
        "am.yml:2:58: receivers[0].webhook_configs[0]: unknown key, or a colon without a space behind it"
    ]


def test_a_key_that_looks_like_no_name_is_not_shown_either():
    hook = "receivers: [{{name: r, webhook_configs: [{{url: http://a/, {}}}]}}]"
    assert problems(hook.format("headers: {Bearer S3CRET: ''}")) == [
        "am.yml:2:83: receivers[0].webhook_configs[0].headers.…: it is empty"
    ]
    assert problems(hook.format("url:http://S3CRET/, url:http://S3CRET/")) == [
        "am.yml:2:41: receivers[0].webhook_configs[0]: a key is there twice",
        "am.yml:2:78: receivers[0].webhook_configs[0]: unknown key, or a colon without a space behind it",
    ]


def test_null_is_as_good_as_absent_but_not_for_a_key_that_is_unknown():
    (options,) = options_of("global: {http_config: }\nreceivers: [{name: r, slack_configs: , webhook_configs: [{url: http://a/, body: }]}]")  # fmt: skip
    assert isinstance(options, WebhookOptions)
    assert options.body is None
    assert problems("receivers: [{name: r, slack_config: }]") == [
        "am.yml:2:23: receivers[0]: unknown key slack_config; did you mean slack_configs?"
    ]


def test_every_mistake_is_told_at_once_in_the_order_of_the_file():
    found = problems("""
global: {resolve_timeout: 5x, slack_api_url: S3CRET, opsgenie_api_key: S3CRET}
receivers:
- name: r
  webhook_configs: [{url: S3CRET, max_alert: 3}]
- name: r
- {}
templates: ['*.tmpl']
""")
    assert found == [
        'am.yml:3:27: global.resolve_timeout: not a valid duration string: "5x"',
        "am.yml:3:46: global.slack_api_url: expected an http or https URL with a host",
        "am.yml:3:54: global: opsgenie_api_key is not carried out here: there is no such receiver here",
        "am.yml:6:27: receivers[0].webhook_configs[0].url: expected an http or https URL with a host",
        "am.yml:6:35: receivers[0].webhook_configs[0]: unknown key max_alert; did you mean max_alerts?",
        "am.yml:7:3: receivers[1]: there is another receiver r",
        "am.yml:8:3: receivers[2]: name is missing",
        "am.yml:9:13: templates: Go templates are not carried out here; leave it empty",
    ]


def test_a_mistake_in_global_is_told_once_however_many_inherit_it():
    found = problems("""
global: {slack_api_url: S3CRET}
receivers: [{name: r, slack_configs: [{channel: a}, {channel: b}]}]
""")
    assert found == ["am.yml:3:25: global.slack_api_url: expected an http or https URL with a host"]


def test_http_options_for_all_are_refused_where_a_kind_has_none():
    found = problems("""
global: {http_config: {follow_redirects: true}}
receivers: [{name: r, slack_configs: [{api_url: https://hooks/x}]}]
""")
    assert found == [
        "am.yml:4:39: receivers[0].slack_configs[0]: global.http_config is not carried out for slack_configs; "
        "set it in the receivers that need it"
    ]


@pytest.mark.parametrize(
    "text", ["a: [", "receivers: *S3CRET", "{a: b}: c", "- S3CRET", "S3CRET", "route: {receiver: x}\n---\nS3CRET", "a: &x [*x]"]
)  # fmt: skip
def test_what_is_no_configuration_is_refused_without_showing_it(text: str):
    with pytest.raises(ConfigError) as caught:
        load_config(text, "am.yml")
    assert caught.value.problems
    assert "S3CRET" not in str(caught.value)


def test_an_alias_bomb_is_refused():
    layers = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))
    with pytest.raises(ConfigError):
        load_config(f"a0: &a0 [x]\n{layers}\nreceivers: *a8\n{ROUTE}", "am.yml")
    hooks = "\n".join(f"- &h{n} [{', '.join([f'*h{n - 1}'] * 9)}]" for n in range(1, 9))
    with pytest.raises(ConfigError):
        loaded(f"receivers:\n- &h0 {{name: x}}\n{hooks}\n")


def test_the_shipped_configuration_tells_its_default_receiver_by_webhook():
    config = effective(None, [SecretStr("http://127.0.0.1:1/S3CRET"), SecretStr("http://127.0.0.1:2/S3CRET")])
    assert [(one.receiver, one.integration) for one in config.endpoints] == [
        ("default", "webhook[0]"),
        ("default", "webhook[1]"),
    ]
    assert "S3CRET" not in config.shown
    shown = yaml.safe_load(config.shown)["receivers"][0]
    assert shown == {"name": "default", "webhook_configs": [{"url": "http://<secret>"}] * 2}


def test_without_webhooks_the_shipped_configuration_tells_nobody():
    assert effective().endpoints == ()


def labels(**values: str) -> Labels:
    return tuple(sorted(values.items()))


def test_on_one_box_critical_alerts_do_not_wait_and_the_watchdog_tells_nobody():
    route = effective().route
    (critical,) = route.matching(labels(alertname="VLLMEngineDown", severity="critical"))
    assert (critical.receiver, critical.group_wait, critical.group_by) == ("default", 0.0, {"alertname"})
    (watchdog,) = route.matching(labels(alertname="Watchdog", severity="none"))
    assert watchdog.receiver == "nobody"
    (warning,) = route.matching(labels(alertname="VLLMHighTTFT", severity="warning"))
    assert (warning.receiver, warning.group_wait) == ("default", 30.0)


def test_webhooks_come_on_top_of_a_file_and_are_numbered_after_its_own(tmp_path: Path):
    file = tmp_path / "am.yml"
    file.write_text(
        ROUTE
        + "receivers: [{name: q}, {name: r, webhook_configs: [{url: http://a/}], wecom_configs: [{webhook_url: http://b/}]}]"
    )
    config = effective(file, [SecretStr("http://c/")])
    assert [(one.receiver, one.integration) for one in config.endpoints] == [
        ("r", "webhook[0]"),
        ("r", "wecom[0]"),
        ("r", "webhook[1]"),
    ]
    assert yaml.safe_load(config.shown)["receivers"][1]["webhook_configs"] == [{"url": "http://<secret>"}] * 2


def test_a_bad_webhook_is_named_by_its_place_and_not_shown():
    with pytest.raises(ConfigError) as caught:
        effective(None, [SecretStr("http://a/"), SecretStr("S3CRET")])
    assert caught.value.problems == ["notify.webhooks, number 2: expected an http or https URL with a host"]


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read"):
        effective(tmp_path / "none.yml")
    with pytest.raises(ConfigError, match="it is a folder"):
        effective(tmp_path)


def test_an_endpoint_can_be_made_without_a_file():
    endpoint = Endpoint("r", "webhook[0]", "webhook", True, WebhookOptions(url=SecretStr("http://a/")))
    assert "http://a/" not in repr(endpoint)
