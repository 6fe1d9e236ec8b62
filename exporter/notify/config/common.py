"""`global`: what receivers take where they say nothing themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from exporter.notify.config.receivers import HttpConfig, Part, TlsConfig
from exporter.notify.config.values import HostAndPort, Plain, Secret, SecretUrl, Url


class GlobalOptions(Part):
    """`global`: what receivers take where they say nothing themselves. `resolve_timeout` is read apart."""

    refused: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("smtp_auth_secret", "smtp_auth_secret_file", "smtp_auth_identity"),
            "use smtp_auth_username and smtp_auth_password",
        ),
        **dict.fromkeys(
            ("slack_app_token", "slack_app_token_file", "slack_app_url"),
            "slack_api_url takes an incoming webhook",
        ),
        **dict.fromkeys(
            (
                "jira_api_url", "mattermost_webhook_url", "mattermost_webhook_url_file", "opsgenie_api_key",
                "opsgenie_api_key_file", "opsgenie_api_url", "rocketchat_api_url", "rocketchat_token",
                "rocketchat_token_file", "rocketchat_token_id", "rocketchat_token_id_file", "victorops_api_key",
                "victorops_api_key_file", "victorops_api_url", "webex_api_url", "wechat_api_corp_id", "wechat_api_secret",
                "wechat_api_secret_file", "wechat_api_url",
            ),
            "there is no such receiver here",
        ),
    }  # fmt: skip

    resolve_timeout: str = "5m"
    http_config: HttpConfig | None = None
    smtp_from: Plain | None = None
    smtp_hello: str | None = None
    smtp_smarthost: HostAndPort | None = None
    smtp_auth_username: str | None = None
    smtp_auth_password: Secret | None = None
    smtp_require_tls: bool | None = None
    smtp_force_implicit_tls: bool | None = None
    smtp_tls_config: TlsConfig | None = None
    slack_api_url: SecretUrl | None = None
    pagerduty_url: Url | None = None
    telegram_api_url: Url | None = None
    telegram_bot_token: Secret | None = None


INHERITED: Mapping[str, Mapping[str, str]] = {
    "webhook": {"http_config": "http_config"},
    "pagerduty": {"http_config": "http_config", "url": "pagerduty_url"},
    "alertmanager": {"http_config": "http_config"},
    "slack": {"api_url": "slack_api_url"},
    "telegram": {"api_url": "telegram_api_url", "bot_token": "telegram_bot_token"},
    "email": {
        "from": "smtp_from",
        "hello": "smtp_hello",
        "smarthost": "smtp_smarthost",
        "auth_username": "smtp_auth_username",
        "auth_password": "smtp_auth_password",
        "require_tls": "smtp_require_tls",
        "force_implicit_tls": "smtp_force_implicit_tls",
        "tls_config": "smtp_tls_config",
    },
}
"""Of each kind the options that it takes from `global`, by their names there."""
