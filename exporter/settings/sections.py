"""The options, as frozen models, each described where it is defined.

`vllm-exporter check config` and the README's table of settings are made from here. Durations are seconds, sizes bytes.
Secrets are `SecretStr`: no output shows them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shlex
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import NoDecode


def _split_words(value: object) -> object:
    """A string, as environment and `--set` give it, becomes words as a shell would split them; a JSON list is one too."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        with contextlib.suppress(ValueError):
            return tuple(json.loads(value))
    return tuple(shlex.split(value))


def _split_numbers(value: object) -> object:
    """A string becomes the numbers between its commas."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def read_table(value: object) -> object:
    """A string, as `--set` gives it, becomes the JSON object that it is."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_words)]
SecretWords = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_split_words)]
Bounds = Annotated[tuple[float, ...], NoDecode, BeforeValidator(_split_numbers)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, allow_inf_nan=False)]

TTFT_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0,
    7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0,
)  # fmt: skip
ITL_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0,
    2.5, 5.0, 10.0,
)  # fmt: skip
DURATION_BUCKETS = (
    0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0,
)  # fmt: skip
QUEUE_BUCKETS = (
    0.001, 0.005, 0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 240.0,
)  # fmt: skip
TOKENS_PER_SECOND_BUCKETS = (
    1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 50.0, 75.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0,
)  # fmt: skip
ERROR_RATIO_BUCKETS = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.99, 1.0)


class Section(BaseModel):
    """A part of the settings: frozen, and an unknown key is a mistake.

    A secret `X` may also come from the file named by `X_file`, read once when the settings are loaded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        read = dict(data)
        for key, option in cls.model_fields.items():
            if not is_secret(option.annotation) or read.get(f"{key}_file") is None:
                continue
            if read.get(key) is not None:
                raise ValueError(f"{key} and {key}_file are both set: keep one")
            path = Path(str(read[f"{key}_file"]))
            try:
                with path.open(encoding="utf-8") as file:
                    text = file.read(SECRET_BYTES + 1)
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"cannot read {key}_file: {error}") from error
            if len(text) > SECRET_BYTES:
                raise ValueError(f"{key}_file {path} is longer than {SECRET_BYTES} characters")
            read[key] = text.strip()
            if not read[key]:
                raise ValueError(f"{key}_file {path} is empty")
        return read


SECRET_BYTES = 1 << 16
"""Largest secret file that is read: a key is short, and `/dev/zero` is no key."""


def is_secret(annotation: object) -> bool:
    """Whether an option's type holds a secret."""
    return annotation is SecretStr or SecretStr in get_args(annotation)


class EngineSettings(Section):
    """The vLLM server: which one, how it is started, watched, stopped and restarted."""

    command: Words = Field(
        (), description="Command that starts the engine; the same as what follows `--` on the command line."
    )
    url: str | None = Field(
        None,
        description="Base URL of the engine. Without a command: attach to a server that somebody else runs. With one: where the command listens, when its own flags do not say.",
    )
    api_key: SecretStr | None = Field(
        None,
        description="API key for the daemon's own requests to the engine; by default what `--api-key` or `VLLM_API_KEY` of the command says.",
    )
    api_key_file: Path | None = Field(None, description="File that holds `api_key`.")
    tls_verify: bool = Field(True, description="Check the certificate of an engine that speaks HTTPS.")
    on_exit: Literal["stop", "keep"] = Field(
        "stop",
        description="What becomes of the engine when the daemon ends: `stop` it, or `keep` it running for the next start to adopt (whatever that one's own `on_exit` says).",
    )
    on_hang: Literal["restart", "report"] = Field(
        "restart",
        description="What to do with an unresponsive engine: save the evidence and `restart` it, or only `report` it.",
    )
    start_timeout: SecondsOrZero = Field(
        3600.0, description="Longest time from the start to ready; 0 waits for ever."
    )
    drain_timeout: SecondsOrZero = Field(30.0, description="Longest wait for running requests before a stop.")
    kill_timeout: SecondsOrZero = Field(
        10.0, description="Time between SIGTERM and SIGKILL to the engine's processes."
    )
    health_interval: Seconds = Field(5.0, description="Time between two `/health` probes of a ready engine.")
    health_timeout: Seconds = Field(
        10.0, description="Longest wait for a `/health` answer; a busy vLLM can take many seconds."
    )
    health_failures: Annotated[int, Field(ge=1)] = Field(
        3, description="Failed `/health` probes in a row that make the engine unresponsive."
    )
    hang_timeout: Seconds = Field(
        120.0,
        description="Time with demand and no progress after which the canary decides whether the engine hangs.",
    )
    hang_grace: SecondsOrZero = Field(
        60.0,
        description="Time after ready in which no hang is called: the first requests compile and warm up.",
    )
    canary_timeout: Seconds = Field(
        30.0, description="Longest wait for the one-token canary request before a hang is called."
    )
    restart_delay: Seconds = Field(
        1.0, description="Delay before the first restart; it doubles with each further one."
    )
    restart_delay_max: Seconds = Field(60.0, description="Longest delay between restarts.")
    stable_after: Seconds = Field(
        600.0, description="Time ready after which the restart delay starts small again."
    )
    crash_limit: Annotated[int, Field(ge=1)] = Field(
        5, description="Crashes within `crash_window` after which the engine is given up as failed."
    )
    crash_window: Seconds = Field(600.0, description="Window for `crash_limit`.")
    gpu_release_timeout: SecondsOrZero = Field(
        30.0,
        description="Longest wait before a restart for the memory of the old processes to leave the GPUs.",
    )
    log_file_limit: Annotated[int, Field(ge=1 << 20)] = Field(
        64 << 20, description="Bytes of engine output kept on disk; older output is freed."
    )
    log_rate_limit: Annotated[int, Field(ge=1)] = Field(
        500,
        description="Engine log lines forwarded per second; more are counted and dropped from the daemon's log, never from the file.",
    )

    @model_validator(mode="after")
    def _delays_agree(self) -> EngineSettings:
        if self.restart_delay > self.restart_delay_max:
            raise ValueError("restart_delay is longer than restart_delay_max")
        if self.url and not self.command and self.on_exit == "keep":
            raise ValueError(
                "on_exit = keep needs a command: an engine that is only attached to is never stopped anyway"
            )
        return self

    @field_validator("url")
    @classmethod
    def _is_http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        from urllib.parse import urlsplit

        parts = urlsplit(value)
        host = parts.hostname or ""
        if parts.scheme not in ("http", "https") or not re.fullmatch(r"[\w.%:~-]+", host):
            raise ValueError("expected a URL such as http://127.0.0.1:8000")
        try:
            _ = parts.port
        except ValueError as error:
            raise ValueError(f"bad port: {error}") from error
        if "@" in parts.netloc:
            raise ValueError(
                "no user and password in the URL: it is shown in logs; an API key goes into engine.api_key"
            )
        if parts.query or parts.fragment:
            raise ValueError("expected a base URL without query or fragment, such as http://127.0.0.1:8000")
        return value.rstrip("/")


class ScrapeSettings(Section):
    """Reading the engine's `/metrics`."""

    interval: Annotated[float, Field(ge=0.05, le=3600)] = Field(
        1.0, description="Time between two scrapes of the engine."
    )
    timeout: Seconds = Field(5.0, description="Longest time for one scrape.")
    body_limit: Annotated[int, Field(ge=1024)] = Field(
        32 << 20, description="Largest page accepted, in bytes after decompression."
    )
    sample_limit: Annotated[int, Field(ge=1)] = Field(
        100_000, description="Most samples accepted in one page."
    )
    label_limit: Annotated[int, Field(ge=1)] = Field(64, description="Most labels accepted on one series.")
    model_limit: Annotated[int, Field(ge=1)] = Field(
        64,
        description="Most model names that get derived series of their own; further ones are counted and dropped.",
    )


class SliSettings(Section):
    """The derived service level indicators."""

    window: Seconds = Field(
        300.0, description="Sliding window of the means and quantiles among the `vllm_` summary gauges."
    )
    time_to_first_token_buckets: Bounds = Field(
        TTFT_BUCKETS, description="Upper bounds of `vllm_slo_time_to_first_token_seconds`."
    )
    inter_token_latency_buckets: Bounds = Field(
        ITL_BUCKETS, description="Upper bounds of `vllm_slo_inter_token_latency_seconds`."
    )
    request_duration_buckets: Bounds = Field(
        DURATION_BUCKETS, description="Upper bounds of `vllm_slo_request_duration_seconds`."
    )
    queue_duration_buckets: Bounds = Field(
        QUEUE_BUCKETS, description="Upper bounds of `vllm_slo_queue_duration_seconds`."
    )
    output_tokens_per_second_buckets: Bounds = Field(
        TOKENS_PER_SECOND_BUCKETS, description="Upper bounds of `vllm_slo_output_tokens_per_second`."
    )
    error_ratio_buckets: Bounds = Field(
        ERROR_RATIO_BUCKETS, description="Upper bounds of `vllm_slo_error_ratio`."
    )

    @field_validator("*")
    @classmethod
    def _bounds_rise(cls, value: object) -> object:
        if isinstance(value, tuple):
            if not 1 <= len(value) <= 200:
                raise ValueError("expected between 1 and 200 upper bounds")
            if any(b != b or b in (float("inf"), float("-inf")) for b in value):
                raise ValueError("upper bounds are finite numbers; the +Inf bucket is added by itself")
            if any(a >= b for a, b in itertools.pairwise(value)):
                raise ValueError("upper bounds must rise, each larger than the one before")
        return value


class GpuSettings(Section):
    """NVIDIA GPU readings through NVML."""

    source: Literal["nvml", "simulated", "off"] = Field(
        "nvml",
        description="Where readings come from: the driver (`nvml`; its absence is reported, not fatal), `simulated` values, or `off`.",
    )
    interval: Annotated[float, Field(ge=0.1, le=60)] = Field(0.5, description="Time between two readings.")
    peak_window: SecondsOrZero = Field(
        15.0,
        description="The `_max` series cover the time since the previous scrape of `/metrics`, and never less than this.",
    )


class StorageSettings(Section):
    """The time series store: samples in memory, and a file behind them."""

    memory_limit: Annotated[int, Field(ge=8 << 20)] = Field(
        256 << 20,
        description="Bytes of samples kept in memory; over it the oldest go first, and among them those that no rule reads.",
    )
    retention: Seconds = Field(
        3600.0,
        description="How long every series is kept; what a rule reads is kept for as long as it looks back.",
    )
    recorded_retention: Seconds = Field(
        30 * 86400.0, description="How long the results of recording rules are kept."
    )
    flush_interval: Annotated[float, Field(ge=0.1, le=10)] = Field(
        9.0,
        description="Time between two writes of totals and new samples to the disk: what a `kill -9` can cost of the samples, and a crash of the machine of both.",
    )
    persist: bool = Field(True, description="Write samples to disk, so that they outlive a restart.")


class RuleSettings(Section):
    """Prometheus rule files, and the queries that run in the daemon."""

    files: Words = Field(
        (),
        description="Further rule files; shell patterns (`/etc/vllm-exporter/rules/*.yml`) are expanded at each reload.",
    )
    builtin: bool = Field(True, description="Evaluate the rule files that ship with the program.")
    interval: Seconds = Field(
        5.0, description="Time between two evaluations of a group whose file does not say `interval`."
    )
    query_offset: SecondsOrZero = Field(
        0.0, description="How far in the past a group is evaluated whose file does not say `query_offset`."
    )
    external_labels: Annotated[dict[str, str], BeforeValidator(read_table)] = Field(
        {},
        description="Labels of this box, `$externalLabels` in templates; as JSON in the environment and with `--set`.",
    )
    external_url: str | None = Field(
        None,
        description="Base URL under which people reach this daemon, for links; by default the listener's own.",
    )
    job: str = Field(
        "vllm-exporter", description="Label `job` of every stored series, as a Prometheus would set it."
    )
    instance: str | None = Field(
        None, description="Label `instance` of every stored series; by default HOST:PORT of the listener."
    )
    lookback: Seconds = Field(
        300.0,
        description="How long a sample stands for its series when no newer one came; Prometheus' lookback delta.",
    )
    for_outage_tolerance: SecondsOrZero = Field(
        3600.0,
        description="Longest time the daemon may have been down for a pending alert to go on from where it stood.",
    )
    for_grace_period: SecondsOrZero = Field(
        600.0,
        description="Least time a restored pending alert still waits; alerts with a shorter `for` begin anew.",
    )
    query_timeout: Seconds = Field(30.0, description="Longest time for one query or rule.")
    query_samples: Annotated[int, Field(ge=1000)] = Field(
        10_000_000, description="Most samples that one query or rule may touch."
    )
    query_concurrency: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="Queries of the HTTP API that are evaluated at once; others wait."
    )

    @field_validator("external_labels")
    @classmethod
    def _are_labels(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) or name.startswith("__"):
                raise ValueError(f"{name!r} is no label name")
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"the value of {name} is not valid UTF-8") from error
        return value


class NotifySettings(Section):
    """Who is told of alerts, and how; without receivers alerts are shown and nobody is told."""

    file: Path | None = Field(
        None,
        description="Routes, receivers, inhibition and mute times in Alertmanager's own format, with further receivers of ours; by default `rules/alertmanager.yml`, which ships with the program.",
    )
    webhooks: SecretWords = Field(
        (),
        description="URLs that get every notification as Alertmanager's webhook payload, version 4, beside the receivers of the file.",
    )
    webhooks_file: Path | None = Field(None, description="File that holds `webhooks`.")
    alertmanagers: SecretWords = Field(
        (),
        description="Base URLs of real Alertmanagers; every alert is pushed to all of them until it ends, as Prometheus does.",
    )
    alertmanagers_file: Path | None = Field(None, description="File that holds `alertmanagers`.")
    give_up_after: Seconds = Field(
        4 * 3600.0,
        description="How long a notification is tried again before it becomes a dead letter, kept to be sent by hand.",
    )
    no_data_timeout: SecondsOrZero = Field(
        86400.0,
        description="How long an alert is held whose series went away while it fired, before it counts as resolved; 0: until the data is back.",
    )
    report: Literal["off", "daily", "weekly"] = Field(
        "off",
        description="Send a report on the service levels each day, or each Monday: what was promised, what was kept, budget left, worst hours.",
    )
    report_time: str = Field("09:00", description="Local time of day of the report, HH:MM.")
    report_receiver: str | None = Field(
        None,
        description="Receiver of the report; by default the route decides, for `alertname=VLLMSLOReport, severity=info`.",
    )

    @field_validator("report_time")
    @classmethod
    def _is_a_time_of_day(cls, value: str) -> str:
        if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", value):
            raise ValueError(f"expected HH:MM, got {value!r}")
        return value


class WebSettings(Section):
    """The daemon's own HTTP listener."""

    listen: str = Field(
        "127.0.0.1:9108",
        description="Address and port of the listener; `:9108` and `[::]:9108` face the network.",
    )
    bearer_token: SecretStr | None = Field(
        None,
        description="When set, every path but `/-/healthy`, `/-/ready`, `/health` and the runbook needs `Authorization: Bearer` with this token.",
    )
    bearer_token_file: Path | None = Field(None, description="File that holds `bearer_token`.")
    tls_cert_file: Path | None = Field(
        None, description="PEM certificate chain; with `tls_key_file`, the listener speaks HTTPS."
    )
    tls_key_file: Path | None = Field(None, description="PEM private key of `tls_cert_file`.")

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        parse_listen(value)
        return value

    @field_validator("bearer_token")
    @classmethod
    def _is_a_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        token = value.get_secret_value().strip()
        if not token:
            raise ValueError("the token is empty: set one, or none")
        return SecretStr(token)

    @model_validator(mode="after")
    def _tls_is_whole(self) -> WebSettings:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together: set both or neither")
        return self


class LogSettings(Section):
    """The daemon's own log, on standard error."""

    format: Literal["json", "console"] = Field(
        "console", description="One JSON object a line, or lines for a person."
    )
    level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="Least severe level that is printed."
    )


def default_data_dir() -> Path:
    """systemd's `STATE_DIRECTORY` when set, else `$XDG_STATE_HOME/vllm-exporter` (`~/.local/state/vllm-exporter`)."""
    if state := os.environ.get("STATE_DIRECTORY"):
        return Path(state.split(":")[0])
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser() / "vllm-exporter"


def parse_listen(value: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `:PORT` (all interfaces) or `[IPV6]:PORT`; ValueError says what is wrong."""
    host, colon, port = value.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("expected HOST:PORT, such as 127.0.0.1:9108")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if ":" in host:
        raise ValueError("an IPv6 address goes in brackets, such as [::1]:9108")
    return host or "::", int(port)
