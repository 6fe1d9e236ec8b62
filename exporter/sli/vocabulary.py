"""One vocabulary for every vLLM since 0.6: which series of a page serve which canonical indicator.

vLLM has renamed its metrics many times, so each canonical name lists its sources, the best one first. A source counts
as there when a series of it is on the page; version strings are never asked. What the older names mean:

- `time_per_output_token_seconds` (until 0.14.1) is what `inter_token_latency_seconds` (from 0.10.2) is: the time between
  two tokens. `request_time_per_output_token_seconds` (from 0.11.0) is a mean per request, another quantity, and unused.
- `time_in_queue_requests` (0.6.4 to 0.9.0) is a histogram of seconds, as `request_queue_time_seconds` is.
- `gpu_prefix_cache_*` counted blocks before 0.9.0 and tokens since; the hit ratio holds in both units.
- `gpu_prefix_cache_hit_rate` (V0) is a gauge without the counts behind it: no counter can be made of it.
- `iteration_tokens_total` is a histogram, whatever its name says; its count is the number of engine steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from exporter.exposition.model import Series

Kind = Literal["counter", "gauge", "bucket", "count", "sum"]

TTFT: Final = "time_to_first_token_seconds"
ITL: Final = "inter_token_latency_seconds"
DURATION: Final = "request_duration_seconds"
QUEUE: Final = "queue_duration_seconds"
HISTOGRAMS: Final[dict[str, tuple[str, ...]]] = {
    TTFT: ("vllm:time_to_first_token_seconds",),
    ITL: ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    DURATION: ("vllm:e2e_request_latency_seconds",),
    QUEUE: ("vllm:request_queue_time_seconds", "vllm:time_in_queue_requests"),
}

INPUT_TOKENS: Final = "input_tokens"
OUTPUT_TOKENS: Final = "output_tokens"
PREEMPTIONS: Final = "preemptions"
CACHE_QUERIES: Final = "prefix_cache_queries"
CACHE_HITS: Final = "prefix_cache_hits"
ITERATIONS: Final = "iterations"
REQUESTS: Final = "requests"
REJECTIONS: Final = "rejections"
HTTP: Final = "http_requests"
COUNTERS: Final[dict[str, tuple[str, ...]]] = {
    INPUT_TOKENS: ("vllm:prompt_tokens_total",),
    OUTPUT_TOKENS: ("vllm:generation_tokens_total",),
    PREEMPTIONS: ("vllm:num_preemptions_total",),
    CACHE_QUERIES: ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    CACHE_HITS: ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    ITERATIONS: ("vllm:iteration_tokens_total_count",),
    REQUESTS: ("vllm:request_success_total",),
    REJECTIONS: ("vllm:admission_rejections_total",),
    HTTP: ("http_requests_total",),
}

RUNNING: Final = "requests_running"
WAITING: Final = "requests_waiting"
KV_USAGE: Final = "kv_cache_usage_ratio"
GAUGES: Final[dict[str, tuple[str, ...]]] = {
    RUNNING: ("vllm:num_requests_running",),
    WAITING: ("vllm:num_requests_waiting",),
    KV_USAGE: ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
}

# What one counter of requests feeds, by its `finished_reason` or its handler and status.
FINISHED: Final = "finished"
ABORTED: Final = "aborted"
ERRORED: Final = "errored"
HTTP_SUCCESS: Final = "http_2xx"
HTTP_CLIENT_ERROR: Final = "http_4xx"
HTTP_SERVER_ERROR: Final = "http_5xx"

PROCESS_START: Final = "process_start_time_seconds"
SLEEP_STATE: Final = "vllm:engine_sleep_state"
"""Gauge whose series `sleep_state="awake"` is 0 while the engine was put to sleep (vLLM's `/sleep`)."""

INFERENCE_HANDLERS: Final = frozenset(
    {
        "/v1/chat/completions",
        "/v1/chat/completions/batch",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
        "/v2/embed",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/audio/speech",
        "/pooling",
        "/classify",
        "/score",
        "/v1/score",
        "/rerank",
        "/v1/rerank",
        "/v2/rerank",
        "/generative_scoring",
        "/v1/systemone",
        "/cohere/v2/chat",
        "/inference/v1/generate",
        "/invocations",
        "/generate",
    }
)
"""vLLM's routes that ask the engine for work (its `entrypoints/`, 0.6 to 0.32). `/tokenize`, `…/render` and the
management routes do not."""

UNKNOWN_HANDLER: Final = "none"
"""What prometheus-fastapi-instrumentator calls a request whose route it cannot name. An unmatched path answers 404, so
a 5xx under this name came from a real route: a vLLM whose FastAPI hides included routers shows its inference there."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one sample name is: which canonical indicator, from which source, and which part of it."""

    canonical: str
    source: str
    kind: Kind


def _names() -> dict[str, Part]:
    names: dict[str, Part] = {}
    for canonical, sources in COUNTERS.items():
        names.update({source: Part(canonical, source, "counter") for source in sources})
    for canonical, sources in GAUGES.items():
        names.update({source: Part(canonical, source, "gauge") for source in sources})
    kinds: tuple[Kind, ...] = ("bucket", "count", "sum")
    for canonical, sources in HISTOGRAMS.items():
        names.update(
            {f"{source}_{kind}": Part(canonical, source, kind) for source in sources for kind in kinds}
        )
    return names


PARTS: Final = _names()
"""Every sample name that serves, with what it is."""

SOURCES: Final[dict[str, tuple[str, ...]]] = {**HISTOGRAMS, **COUNTERS, **GAUGES}

CREATED: Final = frozenset(
    f"{source.removesuffix('_total')}_created"
    for canonical, sources in {**HISTOGRAMS, **COUNTERS}.items()
    for source in sources
    if canonical != ITERATIONS
)
"""The creation times of those series: one that changes tells of a restart."""

_REASONS = {"abort": ABORTED, "error": ERRORED}


def counter_name(part: Part, series: Series) -> str | None:
    """Which total a counter series feeds; None when it is none of ours (another handler, a redirect).

    A `finished_reason` that is not known here counts as finished: the source calls itself a count of successes.
    """
    if part.canonical == REQUESTS:
        return _REASONS.get(series.label("finished_reason"), FINISHED)
    if part.canonical == HTTP:
        return _http_total(series)
    return part.canonical


def _http_total(series: Series) -> str | None:
    if series.label("method", "POST") != "POST":
        return None
    handler, status = series.label("handler"), series.label("status")[:1]
    if handler in INFERENCE_HANDLERS:
        return {"2": HTTP_SUCCESS, "4": HTTP_CLIENT_ERROR, "5": HTTP_SERVER_ERROR}.get(status)
    return HTTP_SERVER_ERROR if handler == UNKNOWN_HANDLER and status == "5" else None
