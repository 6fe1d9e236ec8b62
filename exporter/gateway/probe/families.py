"""The families of the probe, declared once. None of its requests is among the users' `vllm_slo_requests_total`."""

from __future__ import annotations

from exporter.exposition.model import Family

REQUESTS = Family(
    "vllm_slo_probe_requests_total",
    "counter",
    "One-token requests of the daemon's own to an engine without traffic, by outcome: success, client_error, rejected, engine_error, engine_unreachable, timeout, truncated.",
    ("model_name", "outcome"),
)
TIME_TO_FIRST_TOKEN = Family(
    "vllm_slo_probe_time_to_first_token_seconds",
    "histogram",
    "Time from the start of a probe to its token; one that waited in vain for all of its time counts with that.",
    ("model_name",),
    unit="seconds",
)
DURATION = Family(
    "vllm_slo_probe_request_duration_seconds",
    "histogram",
    "Time from the start of a successful probe to the end of its answer.",
    ("model_name",),
    unit="seconds",
)
SUCCESS = Family(
    "vllm_slo_probe_success",
    "gauge",
    "Whether the last probe got its token; absent while users' requests measure the engine, while it is not ready, and where the server before it refused the probe (4xx, 429, 502, 503).",
    ("model_name",),
)

FAMILIES: tuple[Family, ...] = (REQUESTS, TIME_TO_FIRST_TOKEN, DURATION, SUCCESS)
