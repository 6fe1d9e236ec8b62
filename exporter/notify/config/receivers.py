"""The options of each kind of receiver, named as in Alertmanager's file where it has the kind.

Secrets are `SecretStr`, and each may also come from a file: the loader reads `X_file` for any of them. Options in which
people put secrets though they need not be any have `repr=False`, and are not shown either. What Alertmanager
knows and this program does not carry out is in `refused`, with what to do instead: it is a mistake, and never ignored.
Source: https://prometheus.io/docs/alerting/latest/configuration/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from exporter.notify.config.values import (
    DEFAULT_TIMEOUT,
    HostAndPort,
    Plain,
    PlainUrl,
    ReadableFile,
    Secret,
    SecretUrl,
    Timeout,
    Url,
)

_OWN_TEXT = "the program writes its own text"
_NO_PROXY = "there is no way through a proxy"
_NO_HTTP = "this kind has no HTTP options"


class Part(BaseModel):
    """A mapping in the file: frozen, and an unknown key is a mistake."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        populate_by_name=True,
        serialize_by_alias=True,
        defer_build=True,  # until a file has it: of two dozen kinds of parts it has one or two, or none
    )

    refused: ClassVar[Mapping[str, str]] = {}
    """Keys of Alertmanager's that are not carried out here, and what to do instead."""
    from_files: ClassVar[frozenset[str]] = frozenset()
    """Options that are no secrets and may come from a file all the same."""


class BasicAuth(Part):
    """User and password for HTTP basic authentication."""

    from_files = frozenset({"username"})

    username: str = ""
    password: Secret | None = None


class Authorization(Part):
    """The `Authorization` header."""

    type: str = "Bearer"
    credentials: Secret | None = None

    @model_validator(mode="after")
    def _is_not_basic(self) -> Authorization:
        if self.type.strip().lower() == "basic":
            raise ValueError('authorization type cannot be "basic": use basic_auth')
        return self


class TlsConfig(Part):
    """How the other side of HTTPS or SMTP is known, and who we are to it."""

    refused = dict.fromkeys(("ca", "cert", "key"), "put it in a file, and name that") | dict.fromkeys(
        ("ca_ref", "cert_ref", "key_ref", "min_version", "max_version"),
        "leave it out",
    )

    ca_file: ReadableFile | None = None
    cert_file: ReadableFile | None = None
    key_file: ReadableFile | None = None
    server_name: str = ""
    insecure_skip_verify: bool = False

    @model_validator(mode="after")
    def _is_whole(self) -> TlsConfig:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: set both or neither")
        return self


class HeaderValues(Part):
    """The values of one header of `http_headers`."""

    refused = {"files": "write the values here, as values or secrets"}

    values: tuple[str, ...] = Field((), repr=False)
    secrets: tuple[Secret, ...] = ()


class HttpConfig(Part):
    """HTTP options. Unlike Alertmanager's, redirects are not followed unless that is asked for.

    `bearer_token` is another way to say `authorization`.
    """

    refused = {
        "oauth2": "use authorization or basic_auth",
        **dict.fromkeys(
            ("proxy_url", "no_proxy", "proxy_from_environment", "proxy_connect_header"), _NO_PROXY
        ),
    }

    basic_auth: BasicAuth | None = None
    authorization: Authorization | None = None
    bearer_token: Secret | None = None
    tls_config: TlsConfig = TlsConfig()
    follow_redirects: bool = True
    enable_http2: bool = True
    """A permission, of which no use is made."""
    http_headers: dict[str, HeaderValues] = {}

    @model_validator(mode="after")
    def _authenticates_once(self) -> HttpConfig:
        if sum(one is not None for one in (self.basic_auth, self.authorization, self.bearer_token)) > 1:
            raise ValueError("at most one of basic_auth, authorization and bearer_token may be set")
        return self


class Options(Part):
    """What every kind has. `timeout` in seconds, for one attempt."""

    send_resolved: bool = True
    timeout: Timeout = DEFAULT_TIMEOUT


class Signature(Part):
    """Signs each body: HMAC-SHA256 over the time and the body, under a secret that both sides know."""

    secret: Secret


class WebhookOptions(Options):
    """`webhook_configs`: Alertmanager's payload version 4, or a body of one's own.

    `max_alerts`: further ones are cut off and counted, 0 is any number. `headers` and `signature` go with each request;
    `body` is a Jinja template that makes the whole body.
    """

    refused = {"payload": "body takes a Jinja template"}
    from_files = frozenset({"body"})

    url: SecretUrl
    max_alerts: Annotated[int, Field(ge=0)] = 1000
    http_config: HttpConfig = HttpConfig()
    headers: dict[str, Secret] = {}
    signature: Signature | None = None
    body: str | None = Field(None, repr=False)


class SlackOptions(Options):
    """`slack_configs`, by incoming webhook; as in Alertmanager, the end of an alert is not told by default."""

    refused = {
        "http_config": _NO_HTTP,
        "update_message": "messages are not changed afterwards",
        **dict.fromkeys(
            ("app_token", "app_token_file", "app_url"), "api_url takes an incoming webhook"
        ),
        **dict.fromkeys(
            (
                "actions", "callback_id", "color", "fallback", "fields", "footer", "image_url", "link_names", "message_text",
                "mrkdwn_in", "pretext", "short_fields", "text", "thumb_url", "title", "title_link",
            ),
            _OWN_TEXT,
        ),
    }  # fmt: skip

    send_resolved: bool = False
    api_url: SecretUrl
    channel: Plain = ""
    username: Plain = ""
    icon_emoji: Plain = ""
    icon_url: PlainUrl = ""


class DiscordOptions(Options):
    """`discord_configs`, by webhook."""

    refused = {
        "http_config": _NO_HTTP,
        **dict.fromkeys(("content", "message", "title"), _OWN_TEXT),
    }

    webhook_url: SecretUrl
    username: Plain = ""
    avatar_url: PlainUrl = ""


class PagerdutyOptions(Options):
    """`pagerduty_configs`, by Events API v2. `severity` None: as the alerts' own labels say."""

    refused = {
        **dict.fromkeys(
            ("service_key", "service_key_file"),
            "it is of the Events API v1; make an integration of the Events API v2, and set routing_key",
        ),
        **dict.fromkeys(("description", "details", "images", "links"), _OWN_TEXT),
    }

    routing_key: Secret
    url: Url = "https://events.pagerduty.com/v2/enqueue"
    http_config: HttpConfig = HttpConfig()
    severity: Literal["critical", "error", "warning", "info"] | None = None
    client: Plain = ""
    client_url: PlainUrl = ""
    source: Plain = ""
    component: Plain = ""
    group: Plain = ""
    class_: Annotated[Plain, Field(alias="class")] = ""


class TeamsOptions(Options):
    """`msteams_configs` (connectors) and `msteamsv2_configs` (workflows), by webhook."""

    refused = {"http_config": _NO_HTTP, **dict.fromkeys(("summary", "text", "title"), _OWN_TEXT)}

    webhook_url: SecretUrl


class TelegramOptions(Options):
    """`telegram_configs`, by bot."""

    refused = {"http_config": _NO_HTTP, **dict.fromkeys(("message", "parse_mode"), _OWN_TEXT)}
    from_files = frozenset({"chat_id"})

    bot_token: Secret
    chat_id: int
    message_thread_id: int | None = None
    api_url: Url = "https://api.telegram.org"
    disable_notifications: bool = False


class EmailOptions(Options):
    """`email_configs`, by SMTP; as in Alertmanager, the end of an alert is not told by default.

    `require_tls` is STARTTLS. `force_implicit_tls` None: TLS from the first byte on port 465.
    """

    refused = {
        **dict.fromkeys(("html", "text"), _OWN_TEXT),
        **dict.fromkeys(
            ("auth_secret", "auth_secret_file", "auth_identity"), "use auth_username and auth_password"
        ),
        "threading": "leave it out",
    }  # fmt: skip

    send_resolved: bool = False
    to: Plain
    from_: Annotated[Plain, Field(alias="from")]
    smarthost: HostAndPort
    hello: str = "localhost"
    auth_username: str = ""
    auth_password: Secret | None = None
    require_tls: bool = True
    force_implicit_tls: bool | None = None
    tls_config: TlsConfig = TlsConfig()
    headers: dict[str, Plain] = Field({}, repr=False)


class FeishuOptions(Options):
    """`feishu_configs`: a bot of a Feishu or Lark group; `secret` where it checks signatures."""

    webhook_url: SecretUrl
    secret: Secret | None = None


class DingtalkOptions(Options):
    """`dingtalk_configs`: a robot of a DingTalk group; `secret` where it checks signatures."""

    webhook_url: SecretUrl
    secret: Secret | None = None


class WecomOptions(Options):
    """`wecom_configs`: a robot of a WeCom group."""

    webhook_url: SecretUrl


class AppriseOptions(Options):
    """`apprise_configs`: any service by its URL of https://github.com/caronc/apprise, which holds its secrets."""

    url: Secret


class AlertmanagerOptions(Options):
    """`alertmanager_configs`: alerts are pushed to real Alertmanagers, all of them, as Prometheus does."""

    urls: Annotated[tuple[SecretUrl, ...], Field(min_length=1)]
    http_config: HttpConfig = HttpConfig()


KINDS: Mapping[str, type[Options]] = {
    "webhook": WebhookOptions,
    "email": EmailOptions,
    "pagerduty": PagerdutyOptions,
    "slack": SlackOptions,
    "telegram": TelegramOptions,
    "discord": DiscordOptions,
    "msteams": TeamsOptions,
    "msteamsv2": TeamsOptions,
    "feishu": FeishuOptions,
    "dingtalk": DingtalkOptions,
    "wecom": WecomOptions,
    "apprise": AppriseOptions,
    "alertmanager": AlertmanagerOptions,
}
"""The kinds: a receiver's key is `KIND_configs`."""

REFUSED_KINDS = (
    "incidentio", "jira", "mattermost", "opsgenie", "pushover", "rocketchat", "sns", "victorops", "webex", "wechat",
)  # fmt: skip
"""What Alertmanager has besides."""

OWN_KINDS = ("feishu", "dingtalk", "wecom", "apprise", "alertmanager")
"""What Alertmanager does not have."""
