"""When two endpoints are one, whatever their places in the configuration."""

from __future__ import annotations

import pytest

from exporter.notify.config.load import load_config
from exporter.notify.config.model import Endpoint
from exporter.notify.delivery.identity import identities, identity, unchanged

KEY = bytes(range(16))
FILE = """
route: {{receiver: r}}
receivers:
  - name: r
    {configs}
"""


def identities_of(configs: str, key: bytes = KEY) -> list[str]:
    endpoints = load_config(FILE.format(configs=configs), "alertmanager.yml").endpoints
    return list(identities(endpoints, key).values())


def test_an_address_is_the_same_wherever_it_stands() -> None:
    a, b = "{url: 'http://a/1'}", "{url: 'http://b/1'}"
    one, other = identities_of(f"webhook_configs: [{a}, {b}]")
    assert one != other
    assert identities_of(f"webhook_configs: [{b}, {a}]") == [other, one]
    assert identities_of(f"webhook_configs: [{b}]") == [other]


def test_other_settings_are_no_other_endpoint() -> None:
    bare = identities_of("webhook_configs: [{url: 'http://a/1'}]")
    more = "{url: 'http://a/1', timeout: 3s, max_alerts: 5, send_resolved: false, http_config: {basic_auth: {username: u, password: new}}}"
    assert identities_of(f"webhook_configs: [{more}]") == bare


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("webhook_configs: [{url: 'http://a/1'}]", "webhook_configs: [{url: 'http://a/2'}]"),
        ("slack_configs: [{api_url: 'http://a/1', channel: x}]", "slack_configs: [{api_url: 'http://a/1', channel: y}]"),
        ("telegram_configs: [{bot_token: t, chat_id: 1}]", "telegram_configs: [{bot_token: t, chat_id: 2}]"),
        ("pagerduty_configs: [{routing_key: a}]", "pagerduty_configs: [{routing_key: b}]"),
        ("discord_configs: [{webhook_url: 'http://a/1'}]", "msteams_configs: [{webhook_url: 'http://a/1'}]"),
    ],
)  # fmt: skip
def test_another_address_is_another_endpoint(one: str, other: str) -> None:
    assert identities_of(one) != identities_of(other)


def test_it_shows_nothing_and_is_of_one_key() -> None:
    (one,) = identities_of("webhook_configs: [{url: 'http://a/s3cret'}]")
    (other,) = identities_of("webhook_configs: [{url: 'http://a/s3cret'}]", bytes(16))
    assert one != other and len(one) == 32 and set(one) <= set("0123456789abcdef")


def test_what_is_the_same_in_two_configurations_is_told_by_all_settings() -> None:
    def endpoints(*configs: str) -> tuple[Endpoint, ...]:
        text = FILE.format(configs=f"webhook_configs: [{', '.join(configs)}]")
        return load_config(text, "alertmanager.yml").endpoints

    password = "{{url: 'http://a/1', http_config: {{basic_auth: {{username: u, password: {}}}}}}}"
    a, b = password.format("one"), "{url: 'http://b/1'}"
    place = [("r", "webhook[0]"), ("r", "webhook[1]")]
    assert unchanged(endpoints(a, b), endpoints(a, b)) == set(place)
    assert unchanged(endpoints(a, b), endpoints(b, a)) == set()
    assert unchanged(endpoints(a, b), endpoints(password.format("two"), b)) == {place[1]}
    assert unchanged(endpoints(a), endpoints(a, b)) == {place[0]}


def test_every_kind_that_is_configured_has_an_address() -> None:
    configs = """
    email_configs: [{to: a@b, from: c@d, smarthost: 'localhost:25'}]
    feishu_configs: [{webhook_url: 'http://a/1'}]
    dingtalk_configs: [{webhook_url: 'http://a/1'}]
    wecom_configs: [{webhook_url: 'http://a/1'}]
    apprise_configs: [{url: 'json://a'}]
"""
    endpoints = load_config(FILE.format(configs=configs.strip()), "alertmanager.yml").endpoints
    assert len({identity(one, KEY) for one in endpoints}) == 5
