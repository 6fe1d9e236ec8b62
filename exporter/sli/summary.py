"""The summary of the last minutes over all models: what the `vllm_` gauges and the JSON summary show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.sli.buckets import edges, quantile


@dataclass(frozen=True, slots=True)
class Summary:
    """One field per `vllm_` gauge, without the prefix; None where there is no data. Seconds, tokens per second."""

    num_waiting_requests: float | None = None
    num_running_requests: float | None = None
    peak_concurrent_requests: float | None = None
    total_requests: float | None = None
    successful_requests: float | None = None
    failed_requests: float | None = None
    success_rate_percent: float | None = None
    error_rate_percent: float | None = None
    requests_per_second: float | None = None
    ttft_mean: float | None = None
    ttft_p50: float | None = None
    ttft_p95: float | None = None
    ttft_p99: float | None = None
    decoding_throughput_mean: float | None = None
    decoding_throughput_p50: float | None = None
    total_throughput: float | None = None
    latency_mean: float | None = None
    latency_p50: float | None = None
    latency_p95: float | None = None
    latency_p99: float | None = None
    latency_min: float | None = None
    latency_max: float | None = None
    total_input_tokens: float | None = None
    total_output_tokens: float | None = None
    avg_tokens_per_request: float | None = None


SCALARS = ("success", "failed", "ended", "input_tokens", "output_tokens", "down")
"""What a window's vector begins with; then the TTFT histogram and the duration histogram, each as cumulative counts
per bound, count, sum."""


def windowed(
    elapsed: float,
    gains: Sequence[float],
    ttft_bounds: Sequence[float],
    duration_bounds: Sequence[float],
) -> dict[str, float | None]:
    """The fields of `Summary` that a window determines.

    A window without a request, but with the engine down, is one of errors only.
    """
    success, failed, ended, tokens_in, tokens_out, down = gains[: len(SCALARS)]
    served = success + failed
    errors = failed / served if served > 0 else (1.0 if down > 0 else None)
    start = len(SCALARS)
    stop = start + len(ttft_bounds)
    ttft, ttft_count, ttft_sum = gains[start:stop], gains[stop], gains[stop + 1]
    start, stop = stop + 2, stop + 2 + len(duration_bounds)
    took, took_count, took_sum = gains[start:stop], gains[stop], gains[stop + 1]
    between = edges(duration_bounds, took, took_count)
    tokens = tokens_in + tokens_out
    return {
        "success_rate_percent": None if errors is None else 100.0 * (1.0 - errors),
        "error_rate_percent": None if errors is None else 100.0 * errors,
        "requests_per_second": ended / elapsed if elapsed > 0 else None,
        "ttft_mean": ttft_sum / ttft_count if ttft_count > 0 else None,
        "ttft_p50": quantile(0.5, ttft_bounds, ttft, ttft_count),
        "ttft_p95": quantile(0.95, ttft_bounds, ttft, ttft_count),
        "ttft_p99": quantile(0.99, ttft_bounds, ttft, ttft_count),
        "total_throughput": tokens / elapsed if elapsed > 0 else None,
        "latency_mean": took_sum / took_count if took_count > 0 else None,
        "latency_p50": quantile(0.5, duration_bounds, took, took_count),
        "latency_p95": quantile(0.95, duration_bounds, took, took_count),
        "latency_p99": quantile(0.99, duration_bounds, took, took_count),
        "latency_min": between[0] if between else None,
        "latency_max": between[1] if between else None,
        "avg_tokens_per_request": tokens / success if success > 0 else None,
    }
