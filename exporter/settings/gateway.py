"""Options of the gateway, each described where it is defined."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from exporter.settings.sections import Seconds, SecondsOrZero, Section, Words, parse_listen, read_table

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Limits = Annotated[dict[str, Positive], BeforeValidator(read_table)]


class GatewaySettings(Section):
    """The reverse proxy in front of the engine's OpenAI API, which measures what clients see."""

    mode: Literal["auto", "on", "off"] = Field(
        "auto",
        description="`auto`: on for an engine that the daemon starts, off for one that it only watches.",
    )
    listen: str | None = Field(
        None,
        description="HOST:PORT where clients come; by default the engine's own address, and the engine moves to a free loopback port.",
    )
    tls_cert_file: Path | None = Field(None, description="Certificate chain (PEM) for HTTPS to clients.")
    tls_key_file: Path | None = Field(None, description="Private key (PEM) of `tls_cert_file`.")
    routes: Words = Field(
        (),
        description="Further paths to let through, by name, such as `/v1/load_lora_adapter` or `/sleep`: administrative ones are closed by default.",
    )
    max_concurrent: Positive = Field(
        1024, description="Requests at one engine at once; more wait at the gateway."
    )
    max_queued: Count = Field(
        1024, description="Requests that wait at the gateway; one more is refused with 429."
    )
    queue_timeout: Seconds = Field(60.0, description="Longest wait at the gateway before a 503.")
    hold_timeout: SecondsOrZero = Field(
        0.0,
        description="How long a request is held while the engine loads or restarts, before the 503; 0: not at all.",
    )
    requests_per_minute: Count = Field(
        0, description="Limit of each API key (without keys: of each client address); 0 for none."
    )
    tokens_per_minute: Count = Field(
        0, description="The same for tokens, prompt and reply together; 0 for none."
    )
    model_requests_per_minute: Limits = Field(
        {}, description="Limit of a model over all clients; as JSON in the environment and with `--set`."
    )
    model_tokens_per_minute: Limits = Field({}, description="The same for tokens, prompt and reply together.")
    keys_file: Path | None = Field(
        None,
        description="API keys that the gateway checks, hashed (`vllm-exporter keys`); without it keys pass through to the engine.",
    )
    connect_timeout: Seconds = Field(5.0, description="Longest wait for a connection to an engine.")
    read_timeout: Seconds = Field(
        600.0,
        description="Longest silence of an engine within a request before the client is told of a timeout.",
    )
    head_timeout: Seconds = Field(30.0, description="Longest time for a request's head to arrive.")
    body_timeout: Seconds = Field(
        60.0,
        description="Longest silence of a client while its body arrives; one that brings less than 500 bytes a second for as long is turned away, too.",
    )
    coalesce: Annotated[float, Field(ge=0, le=0.01)] = Field(
        0.001,
        description="How long a token of a stream under way may wait for those of other streams where they come one by one, more than 2,000 times a second; up to a millisecond longer, as the kernel's clock ticks. The beginning of an answer never waits. 0: nothing does.",
    )
    write_timeout: Seconds = Field(60.0, description="Longest time a client may leave its answer unread.")
    idle_timeout: Seconds = Field(120.0, description="How long an idle connection of a client is kept.")
    max_connections: Positive = Field(
        16384, description="Open connections of clients; at the limit the one idle for longest makes room."
    )
    head_limit: Annotated[int, Field(ge=1024)] = Field(65536, description="Largest request head, in bytes.")
    peek_limit: Annotated[int, Field(ge=1024)] = Field(
        16 << 20,
        description="Largest JSON body that is read for its model before it goes on; a larger one streams through unread where one engine is all there is.",
    )
    body_limit: Annotated[int, Field(ge=1024)] = Field(
        512 << 20, description="Largest request body; more is refused with 413."
    )
    patience: SecondsOrZero = Field(
        2.0,
        description="A client that leaves without a token after waiting this long counts among the times to first token, with its wait; one that left sooner says nothing about them.",
    )
    access_log: Literal["all", "errors", "off"] = Field(
        "all", description="Which requests get a line in the log: never prompts or replies."
    )
    log_content_ratio: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Share of requests whose prompt and reply are logged, too, for debugging; 0: never."
    )
    probe_interval: SecondsOrZero | None = Field(
        None,
        description="Time without traffic after which a one-token request measures the engine; 0: never; by default 30 s where the gateway is on.",
    )
    probe_timeout: Seconds = Field(10.0, description="Longest wait for the probe's token.")

    @field_validator("listen")
    @classmethod
    def _is_listen(cls, value: str | None) -> str | None:
        if value is not None:
            parse_listen(value)
        return value

    @field_validator("routes")
    @classmethod
    def _are_paths(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            if not path.startswith("/") or any(c in path for c in "?#% ") or "/.." in path or "//" in path:
                raise ValueError(f"{path!r} is no plain path such as /v1/load_lora_adapter")
        return value

    @model_validator(mode="after")
    def _tls_is_whole(self) -> GatewaySettings:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file go together")
        return self
