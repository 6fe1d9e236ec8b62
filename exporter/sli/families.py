"""The families of the service level indicators and the summary gauges, declared once.

`source` says who measured: `engine` is what vLLM's own page says, `gateway` what clients saw. Ranks of data parallelism and API servers are summed,
models are kept apart. Where a page does not say which model a series belongs to (`http_requests_total` has no such
label), it is the page's only model, or an empty `model_name` when there are several.
"""

from __future__ import annotations

from exporter.exposition.model import Family

_BY = ("model_name", "source")

TIME_TO_FIRST_TOKEN = Family(
    "vllm_slo_time_to_first_token_seconds",
    "histogram",
    "Time from the arrival of a request to its first token; at the gateway also the wait of a client that left without one.",
    _BY,
    unit="seconds",
)
INTER_TOKEN_LATENCY = Family(
    "vllm_slo_inter_token_latency_seconds",
    "histogram",
    "Time between two tokens of a request.",
    _BY,
    unit="seconds",
)
REQUEST_DURATION = Family(
    "vllm_slo_request_duration_seconds",
    "histogram",
    "Time from the arrival of a request to its last token.",
    _BY,
    unit="seconds",
)
QUEUE_DURATION = Family(
    "vllm_slo_queue_duration_seconds",
    "histogram",
    "Time a request waited before it was scheduled; at the gateway, before it went to an engine.",
    _BY,
    unit="seconds",
)
OUTPUT_TOKENS_PER_SECOND = Family(
    "vllm_slo_output_tokens_per_second",
    "histogram",
    "Output tokens per second of all requests together; one observation per scrape interval with output.",
    _BY,
)
ERROR_RATIO = Family(
    "vllm_slo_error_ratio",
    "histogram",
    "Failed among failed and successful requests; one observation per scrape interval with traffic, and 1 for each with the engine down.",
    _BY,
)
REQUESTS = Family(
    "vllm_slo_requests_total",
    "counter",
    "Requests by outcome: success, client_error (4xx), rejected (no room, or not now), engine_error (5xx, finished with an error), aborted (the client left); at the gateway also engine_unreachable, timeout and truncated.",
    (*_BY, "outcome"),
)
TOKENS = Family(
    "vllm_slo_tokens_total",
    "counter",
    "Tokens processed, by direction: input (prompts) or output (generated).",
    (*_BY, "direction"),
)
PREEMPTIONS = Family(
    "vllm_slo_preemptions_total", "counter", "Requests that were preempted for want of KV cache.", _BY
)
PREFIX_CACHE_QUERIES = Family(
    "vllm_slo_prefix_cache_queries_total",
    "counter",
    "Tokens looked up in the prefix cache (blocks before vLLM 0.9).",
    _BY,
)
PREFIX_CACHE_HITS = Family(
    "vllm_slo_prefix_cache_hits_total",
    "counter",
    "Tokens found in the prefix cache (blocks before vLLM 0.9).",
    _BY,
)
REQUESTS_RUNNING = Family(
    "vllm_slo_requests_running", "gauge", "Requests in the running batch, all ranks together.", _BY
)
REQUESTS_WAITING = Family(
    "vllm_slo_requests_waiting", "gauge", "Requests waiting to be scheduled, all ranks together.", _BY
)
KV_CACHE_USAGE = Family(
    "vllm_slo_kv_cache_usage_ratio",
    "gauge",
    "Used share of the KV cache; of many ranks the fullest one's.",
    _BY,
)
SOURCE = Family(
    "vllm_exporter_source_info",
    "info",
    "Which series of the engine's page serves which indicator.",
    ("canonical", "source"),
)
DROPPED = Family(
    "vllm_exporter_sli_series_dropped_total",
    "counter",
    "Series of the engine's page that no indicator takes in, by reason: model_limit, series_limit.",
    ("reason",),
)


def _summary(name: str, text: str) -> Family:
    return Family(f"vllm_{name}", "gauge", text)


_WINDOW = "over the sliding window"
SUMMARY = {
    "num_waiting_requests": _summary("num_waiting_requests", "Requests waiting to be scheduled, all models."),
    "num_running_requests": _summary("num_running_requests", "Requests in the running batch, all models."),
    "peak_concurrent_requests": _summary(
        "peak_concurrent_requests", "Most requests running and waiting at once that a scrape has seen."
    ),
    "total_requests": _summary(
        "total_requests", "Requests that ended, with any outcome, over engine restarts."
    ),
    "successful_requests": _summary("successful_requests", "Requests that succeeded, over engine restarts."),
    "failed_requests": _summary(
        "failed_requests",
        "Requests that failed by the engine's fault (engine_error, rejected), over engine restarts.",
    ),
    "success_rate_percent": _summary(
        "success_rate_percent", f"Successful among successful and failed requests, percent, {_WINDOW}."
    ),
    "error_rate_percent": _summary(
        "error_rate_percent", f"Failed among successful and failed requests, percent, {_WINDOW}."
    ),
    "requests_per_second": _summary("requests_per_second", f"Requests that ended per second, {_WINDOW}."),
    "ttft_mean": _summary("ttft_mean", f"Mean time to first token in seconds, {_WINDOW}."),
    "ttft_p50": _summary("ttft_p50", f"Median time to first token in seconds, {_WINDOW}."),
    "ttft_p95": _summary("ttft_p95", f"95th percentile of the time to first token in seconds, {_WINDOW}."),
    "ttft_p99": _summary("ttft_p99", f"99th percentile of the time to first token in seconds, {_WINDOW}."),
    "decoding_throughput_mean": _summary(
        "decoding_throughput_mean",
        f"Mean of the output tokens per second of scrape intervals with output, {_WINDOW}.",
    ),
    "decoding_throughput_p50": _summary(
        "decoding_throughput_p50",
        f"Median of the output tokens per second of scrape intervals with output, {_WINDOW}.",
    ),
    "total_throughput": _summary("total_throughput", f"Input and output tokens per second, {_WINDOW}."),
    "latency_mean": _summary("latency_mean", f"Mean request duration in seconds, {_WINDOW}."),
    "latency_p50": _summary("latency_p50", f"Median request duration in seconds, {_WINDOW}."),
    "latency_p95": _summary("latency_p95", f"95th percentile of the request duration in seconds, {_WINDOW}."),
    "latency_p99": _summary("latency_p99", f"99th percentile of the request duration in seconds, {_WINDOW}."),
    "latency_min": _summary(
        "latency_min",
        f"No request was shorter, in seconds, {_WINDOW}: lower edge of the first bucket in use.",
    ),
    "latency_max": _summary(
        "latency_max",
        f"No request was longer, in seconds, {_WINDOW}: upper edge of the last bucket in use (the last finite bound for more).",
    ),
    "total_input_tokens": _summary("total_input_tokens", "Prompt tokens processed, over engine restarts."),
    "total_output_tokens": _summary("total_output_tokens", "Tokens generated, over engine restarts."),
    "avg_tokens_per_request": _summary(
        "avg_tokens_per_request", f"Input and output tokens per successful request, {_WINDOW}."
    ),
}
"""The `vllm_` summary gauges by the name of their field in `Summary`."""

FAMILIES: tuple[Family, ...] = (
    TIME_TO_FIRST_TOKEN,
    INTER_TOKEN_LATENCY,
    REQUEST_DURATION,
    QUEUE_DURATION,
    OUTPUT_TOKENS_PER_SECOND,
    ERROR_RATIO,
    REQUESTS,
    TOKENS,
    PREEMPTIONS,
    PREFIX_CACHE_QUERIES,
    PREFIX_CACHE_HITS,
    REQUESTS_RUNNING,
    REQUESTS_WAITING,
    KV_CACHE_USAGE,
    *SUMMARY.values(),
    SOURCE,
    DROPPED,
)
