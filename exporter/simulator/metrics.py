"""The metrics page of vLLM 0.32: the same families, in the same order, with the same help, labels and buckets.

vLLM makes its page with `prometheus_client` and `prometheus-fastapi-instrumentator`; so does this, with the former.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    Summary,
)
from prometheus_client.exposition import generate_latest

from exporter.simulator.scheduler import FinishReason, Request, Scheduler, StepResult

_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_ITERATION_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
_TTFT = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
)  # fmt: skip
_PER_TOKEN = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_PER_REQUEST = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
)  # fmt: skip
_HIGH_RESOLUTION = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 7.5, 10.0, 30.0, 60.0,
)  # fmt: skip

_ENGINE = ("model_name", "engine")
_COMPUTED, _CACHED, _TRANSFERRED = "local_compute", "local_cache_hit", "external_kv_transfer"


class PageMetrics:
    """Every family of the page. `engine(i)` writes one rank's; `http_*` are the server's."""

    def __init__(self, model: str, engines: int, cache: Mapping[str, str]) -> None:
        self.registry = registry = CollectorRegistry()
        GCCollector(registry)
        PlatformCollector(registry, platform)
        ProcessCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"vllm:{name}", text, (*_ENGINE, *labels), registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"vllm:{name}", text, (*_ENGINE, *labels), registry=registry)

        def histogram(name: str, text: str, bounds: Sequence[float]) -> Histogram:
            return Histogram(f"vllm:{name}", text, _ENGINE, buckets=bounds, registry=registry)

        self.flops = counter(
            "estimated_flops_per_gpu",
            "Estimated number of floating point operations per GPU (for Model Flops Utilization calculations).",
        )
        self.read_bytes = counter(
            "estimated_read_bytes_per_gpu",
            "Estimated number of bytes read from memory per GPU (for Model Flops Utilization calculations).",
        )
        self.write_bytes = counter(
            "estimated_write_bytes_per_gpu",
            "Estimated number of bytes written to memory per GPU (for Model Flops Utilization calculations).",
        )
        self.running = gauge("num_requests_running", "Number of requests in model execution batches.")
        self.waiting = gauge("num_requests_waiting", "Number of requests waiting to be processed.")
        self.waiting_by_reason = gauge(
            "num_requests_waiting_by_reason",
            "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked status). Sum of all reasons equals vllm:num_requests_waiting.",
            "reason",
        )
        self.sleep_state = gauge(
            "engine_sleep_state",
            "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
            "sleep_state",
        )
        self.kv_usage = gauge("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.")
        self.prefix_queries = counter(
            "prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens."
        )
        self.prefix_hits = counter(
            "prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens."
        )
        self.external_queries = counter(
            "external_prefix_cache_queries",
            "External prefix cache queries from KV connector cross-instance cache sharing, in terms of number of queried tokens.",
        )
        self.external_hits = counter(
            "external_prefix_cache_hits",
            "External prefix cache hits from KV connector cross-instance cache sharing, in terms of number of cached tokens.",
        )
        self.mm_queries = counter(
            "mm_cache_queries", "Multi-modal cache queries, in terms of number of queried items."
        )
        self.mm_hits = counter("mm_cache_hits", "Multi-modal cache hits, in terms of number of cached items.")
        self.preemptions = counter("num_preemptions", "Cumulative number of preemption from the engine.")
        self.prompt_tokens = counter("prompt_tokens", "Number of prefill tokens processed.")
        self.prompt_by_source = counter(
            "prompt_tokens_by_source", "Number of prompt tokens by source.", "source"
        )
        self.prompt_cached = counter(
            "prompt_tokens_cached", "Number of cached prompt tokens (local + external)."
        )
        self.cached_by_source = counter(
            "prompt_tokens_cached_by_source",
            "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host (offloaded to DRAM), disk, p2p (transferred from another vLLM instance) or external_unspecified. Counted at admission; sums to vllm:prefix_cache_hits + vllm:external_prefix_cache_hits.",
            "source",
        )
        self.generation_tokens = counter("generation_tokens", "Number of generation tokens processed.")
        self.success = counter(
            "request_success", "Count of successfully processed requests.", "finished_reason"
        )
        self._rejections = Counter(
            "vllm:admission_rejections",
            "Number of admission attempts rejected by a queue limit, by reason.",
            ("model_name", "reason"),
            registry=registry,
        )
        self.request_prompt = histogram(
            "request_prompt_tokens", "Number of prefill tokens processed.", _TOKENS
        )
        self.request_generation = histogram(
            "request_generation_tokens", "Number of generation tokens processed.", _TOKENS
        )
        self.iteration_tokens = histogram(
            "iteration_tokens_total", "Histogram of number of tokens per engine_step.", _ITERATION_TOKENS
        )
        self.request_max_generation = histogram(
            "request_max_num_generation_tokens",
            "Histogram of maximum number of requested generation tokens.",
            _TOKENS,
        )
        self.params_n = histogram(
            "request_params_n", "Histogram of the n request parameter.", (1, 2, 5, 10, 20)
        )
        self.params_max_tokens = histogram(
            "request_params_max_tokens", "Histogram of the max_tokens request parameter.", _TOKENS
        )
        self.ttft = histogram(
            "time_to_first_token_seconds", "Histogram of time to first token in seconds.", _TTFT
        )
        self.inter_token = histogram(
            "inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", _PER_TOKEN
        )
        self.time_per_token = histogram(
            "request_time_per_output_token_seconds",
            "Histogram of time_per_output_token_seconds per request.",
            _PER_TOKEN,
        )
        self.e2e = histogram(
            "e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", _PER_REQUEST
        )
        self.queue_time = histogram(
            "request_queue_time_seconds",
            "Histogram of time spent in WAITING phase for request.",
            _PER_REQUEST,
        )
        self.inference_time = histogram(
            "request_inference_time_seconds",
            "Histogram of time spent in RUNNING phase for request.",
            _PER_REQUEST,
        )
        self.prefill_time = histogram(
            "request_prefill_time_seconds",
            "Histogram of time spent in PREFILL phase for request.",
            _PER_REQUEST,
        )
        self.decode_time = histogram(
            "request_decode_time_seconds",
            "Histogram of time spent in DECODE phase for request.",
            _PER_REQUEST,
        )
        self.request_preemptions = histogram(
            "request_num_preemptions",
            "Histogram of the number of times a request was preempted.",
            (1, 2, 3, 4, 5, 10, 20),
        )
        self.prefill_computed = histogram(
            "request_prefill_kv_computed_tokens",
            "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
            _TOKENS,
        )
        cache_info = Gauge(
            "vllm:cache_config_info",
            "Information of the LLMEngine CacheConfig",
            sorted((*cache, "engine")),
            registry=registry,
        )

        self._http_requests = Counter(
            "http_requests_total",
            "Total number of requests by method, status and handler.",
            ("method", "status", "handler"),
            registry=registry,
        )
        self._http_request_size = Summary(
            "http_request_size_bytes",
            "Content length of incoming requests by handler. Only value of header is respected. Otherwise ignored. No percentile calculated. ",
            ("handler",),
            registry=registry,
        )
        self._http_response_size = Summary(
            "http_response_size_bytes",
            "Content length of outgoing responses by handler. Only value of header is respected. Otherwise ignored. No percentile calculated. ",
            ("handler",),
            registry=registry,
        )
        self._http_high_resolution = Histogram(
            "http_request_duration_highr_seconds",
            "Latency with many buckets but no API specific labels. Made for more accurate percentile calculations. ",
            buckets=_HIGH_RESOLUTION,
            registry=registry,
        )
        self._http_duration = Histogram(
            "http_request_duration_seconds",
            "Latency with only few buckets by handler. Made to be only used if aggregation by handler is important. ",
            ("method", "handler"),
            buckets=(0.1, 0.5, 1),
            registry=registry,
        )

        self.rejections = {
            reason: self._rejections.labels(model, reason)
            for reason in ("max_num_queued_reqs", "max_num_queued_tokens")
        }
        self.engines = [EngineMetrics(self, model, str(index)) for index in range(engines)]
        for index in range(engines):
            cache_info.labels(**cache, engine=str(index)).set(1)

    def http(
        self,
        *,
        method: str,
        handler: str,
        status: int,
        seconds: float,
        request_bytes: int,
        response_bytes: int,
    ) -> None:
        """Count one answered request, as prometheus-fastapi-instrumentator does."""
        self._http_requests.labels(method, f"{status // 100}xx", handler).inc()
        self._http_request_size.labels(handler).observe(request_bytes)
        self._http_response_size.labels(handler).observe(response_bytes)
        self._http_high_resolution.observe(seconds)
        self._http_duration.labels(method, handler).observe(seconds)

    def page(self) -> bytes:
        return generate_latest(self.registry)


class EngineMetrics:
    """The series of one data-parallel rank, each looked up once."""

    def __init__(self, page: PageMetrics, model: str, engine: str) -> None:
        labels = (model, engine)
        for family in (page.flops, page.read_bytes, page.write_bytes):
            family.labels(*labels)
        for family in (page.external_queries, page.external_hits, page.mm_queries, page.mm_hits):
            family.labels(*labels)
        self._running = page.running.labels(*labels)
        self._waiting = page.waiting.labels(*labels)
        self._waiting_capacity = page.waiting_by_reason.labels(*labels, "capacity")
        page.waiting_by_reason.labels(*labels, "deferred")
        page.sleep_state.labels(*labels, "awake").set(1)
        page.sleep_state.labels(*labels, "weights_offloaded")
        page.sleep_state.labels(*labels, "discard_all")
        self._kv_usage = page.kv_usage.labels(*labels)
        self._prefix_queries = page.prefix_queries.labels(*labels)
        self._prefix_hits = page.prefix_hits.labels(*labels)
        self._preemptions = page.preemptions.labels(*labels)
        self._prompt_tokens = page.prompt_tokens.labels(*labels)
        self._prompt_computed, self._prompt_hit, _ = (
            page.prompt_by_source.labels(*labels, source) for source in (_COMPUTED, _CACHED, _TRANSFERRED)
        )
        self._prompt_cached = page.prompt_cached.labels(*labels)
        self._cached_device, *_ = (
            page.cached_by_source.labels(*labels, source)
            for source in ("device", "host", "p2p", "disk", "external_unspecified")
        )
        self._generation_tokens = page.generation_tokens.labels(*labels)
        self._success = {reason: page.success.labels(*labels, reason.value) for reason in FinishReason}
        self._request_prompt = page.request_prompt.labels(*labels)
        self._request_generation = page.request_generation.labels(*labels)
        self._iteration_tokens = page.iteration_tokens.labels(*labels)
        self._request_max_generation = page.request_max_generation.labels(*labels)
        self._params_n = page.params_n.labels(*labels)
        self._params_max_tokens = page.params_max_tokens.labels(*labels)
        self._ttft = page.ttft.labels(*labels)
        self._inter_token = page.inter_token.labels(*labels)
        self._time_per_token = page.time_per_token.labels(*labels)
        self._e2e = page.e2e.labels(*labels)
        self._queue_time = page.queue_time.labels(*labels)
        self._inference_time = page.inference_time.labels(*labels)
        self._prefill_time = page.prefill_time.labels(*labels)
        self._decode_time = page.decode_time.labels(*labels)
        self._request_preemptions = page.request_preemptions.labels(*labels)
        self._prefill_computed = page.prefill_computed.labels(*labels)

    def gauges(self, scheduler: Scheduler) -> None:
        """Queue lengths and cache usage as they are now."""
        self._running.set(scheduler.running)
        self._waiting.set(scheduler.waiting)
        self._waiting_capacity.set(scheduler.waiting)
        self._kv_usage.set(scheduler.kv_cache_usage)

    def step(self, result: StepResult, scheduler: Scheduler) -> None:
        """Record an engine step."""
        self.gauges(scheduler)
        if result.prefix_queries:
            self._prefix_queries.inc(result.prefix_queries)
            self._prefix_hits.inc(result.prefix_hits)
            self._cached_device.inc(result.prefix_hits)
        if result.preempted:
            self._preemptions.inc(len(result.preempted))
        for request in result.prefilled:
            self._prompt_tokens.inc(request.prompt_tokens)
            self._prompt_computed.inc(request.prompt_tokens - request.cached_tokens)
            self._prompt_hit.inc(request.cached_tokens)
            self._prompt_cached.inc(request.cached_tokens)
        if not result.outputs:
            return
        self._generation_tokens.inc(len(result.outputs))
        self._iteration_tokens.observe(result.computed_prompt_tokens + len(result.outputs))
        for output in result.outputs:
            (self._ttft if output.first else self._inter_token).observe(output.gap)
            if output.finish_reason is not None:
                self.finished(output.request)

    def finished(self, request: Request) -> None:
        """Record the end of a request, however it ended."""
        ended = request.finished_at or request.arrived_at
        self._success[request.finish_reason or FinishReason.ERROR].inc()
        self._e2e.observe(ended - request.arrived_at)
        self._queue_time.observe((request.scheduled_at or ended) - request.arrived_at)
        if request.scheduled_at is not None and request.first_token_at is not None:
            last = request.last_token_at or request.first_token_at
            decode = last - request.first_token_at
            self._prefill_time.observe(request.first_token_at - request.scheduled_at)
            self._inference_time.observe(last - request.scheduled_at)
            self._decode_time.observe(decode)
            self._time_per_token.observe(decode / max(1, request.output_tokens - 1))
        else:
            for unmeasured in (
                self._prefill_time,
                self._inference_time,
                self._decode_time,
                self._time_per_token,
            ):
                unmeasured.observe(0.0)
        self._request_preemptions.observe(request.preemptions)
        self._prefill_computed.observe(request.prompt_tokens - request.cached_tokens)
        self._request_prompt.observe(request.prompt_tokens)
        self._request_generation.observe(request.output_tokens)
        self._request_max_generation.observe(request.output_tokens)
        self._params_n.observe(1)
        self._params_max_tokens.observe(request.max_tokens)


def cache_config(*, blocks: int, block_size: int, max_model_len: int, prefix_caching: bool) -> dict[str, str]:
    """The labels of `vllm:cache_config_info`, but for `engine`."""
    return {
        "_block_size_resolved": "True",
        "block_size": str(block_size),
        "cache_dtype": "auto",
        "cache_hit_alignment_tokens": "None",
        "effective_attention_block_size": str(block_size),
        "enable_mamba_shared_prefix_checkpoint": "False",
        "enable_prefix_caching": str(prefix_caching),
        "gpu_memory_utilization": "0.92",
        "hash_block_size": "None",
        "is_attention_free": "False",
        "kv_cache_dtype_skip_layers": "[]",
        "kv_cache_layout": "None",
        "kv_cache_max_concurrency": str(blocks * block_size / max_model_len),
        "kv_cache_memory_bytes": str(blocks * block_size * 131072),
        "kv_cache_size_tokens": str(blocks * block_size),
        "kv_offloading_backend": "native",
        "kv_offloading_size": "None",
        "kv_sharing_fast_prefill": "False",
        "mamba_block_size": "None",
        "mamba_cache_dtype": "auto",
        "mamba_cache_mode": "none",
        "mamba_page_size_padded": "None",
        "mamba_ssm_cache_dtype": "float32",
        "num_cpu_blocks": "None",
        "num_gpu_blocks": str(blocks),
        "num_gpu_blocks_override": "None",
        "prefix_cache_retention_interval": "0",
        "prefix_caching_hash_algo": "sha256",
        "prefix_match_unit": "None",
        "replayssm_buffer_len": "16",
        "skip_page_size_padded": "None",
        "sliding_window": "None",
        "swa_bounded_replay": "True",
        "use_kda_recoverssm": "False",
        "use_replayssm": "False",
        "user_specified_block_size": "False",
    }
