"""The families of the gateway, declared once; what it shares with the engine's page stands in `exporter.sli.families`."""

from __future__ import annotations

from exporter.exposition.model import Family

KEY_REQUESTS = Family(
    "vllm_slo_key_requests_total",
    "counter",
    "Requests of an API key that the gateway checked, by outcome.",
    ("key", "model_name", "outcome"),
)
KEY_TOKENS = Family(
    "vllm_slo_key_tokens_total",
    "counter",
    "Tokens of an API key that the gateway checked, by direction: input (prompts) or output (generated).",
    ("key", "model_name", "direction"),
)
KEY_TIME_TO_FIRST_TOKEN = Family(
    "vllm_slo_key_time_to_first_token_seconds",
    "histogram",
    "Time from a request's first byte at the gateway to its first content token, by API key.",
    ("key", "model_name"),
    unit="seconds",
)
KEY_DURATION = Family(
    "vllm_slo_key_request_duration_seconds",
    "histogram",
    "Time from a request's first byte at the gateway to the end of its answer, by API key.",
    ("key", "model_name"),
    unit="seconds",
)
UP = Family("vllm_exporter_gateway_up", "gauge", "1 while the gateway takes requests, 0 while it drains.")
CONNECTIONS = Family("vllm_exporter_gateway_connections", "gauge", "Open connections of clients.")
RUNNING = Family(
    "vllm_exporter_gateway_requests_running", "gauge", "Requests at an engine, by engine.", ("engine_name",)
)
SENT = Family(
    "vllm_exporter_gateway_engine_requests_total",
    "counter",
    "Users' requests that an engine got from the gateway and that are over, by engine.",
    ("engine_name",),
)
QUEUED = Family("vllm_exporter_gateway_requests_queued", "gauge", "Requests that wait at the gateway.")
REFUSALS = Family(
    "vllm_exporter_gateway_refusals_total",
    "counter",
    "Requests that the gateway answered itself with an error, by reason.",
    ("reason",),
)
RETRIES = Family(
    "vllm_exporter_gateway_retries_total",
    "counter",
    "Tries after the first, because a connection to an engine failed before any byte of an answer.",
)
ABANDONED_WAITS = Family(
    "vllm_exporter_gateway_abandoned_waits_total",
    "counter",
    "Streams that their clients left without a token, after a wait that counts among the times to first token (gateway.patience).",
    ("model_name",),
)
ABANDONED = Family(
    "vllm_exporter_gateway_abandoned_seconds_total",
    "counter",
    "Time that clients had waited, without a token, when they left.",
    ("model_name",),
)
FAMILIES: tuple[Family, ...] = (
    KEY_REQUESTS,
    KEY_TOKENS,
    KEY_TIME_TO_FIRST_TOKEN,
    KEY_DURATION,
    UP,
    CONNECTIONS,
    RUNNING,
    SENT,
    QUEUED,
    REFUSALS,
    RETRIES,
    ABANDONED_WAITS,
    ABANDONED,
)
