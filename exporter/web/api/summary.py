"""`GET /api/v1/metrics`: the daemon's state as one JSON object, for scripts and dashboards that do not speak PromQL.

Seconds, tokens per second, percent; gigabytes are 2^30 bytes, as nvidia-smi's sizes read. What is not known is null.
Means and quantiles are over the sliding window of the `vllm_` summary gauges, totals over all restarts. With several
engines the figures are those of all together, and `engines` has each one's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from math import inf, isfinite
from typing import TYPE_CHECKING, Any

from exporter.web.api.numbers import rfc3339

if TYPE_CHECKING:
    from exporter.alerting.status import GroupStatus
    from exporter.exposition.model import Series
    from exporter.gpu.reading import GpuReading
    from exporter.sli.summary import Summary

DURATION_BUCKET = "vllm_slo_request_duration_seconds_bucket"
REQUESTS = "vllm_slo_requests_total"
FAILURES = frozenset({"engine_error", "rejected", "engine_unreachable", "timeout", "truncated"})
"""Outcomes that count as failed; a client's own mistakes and hang-ups do not."""
GIGABYTE = 1 << 30

_REQUESTS = {
    "waiting": "num_waiting_requests",
    "running": "num_running_requests",
    "peak": "peak_concurrent_requests",
    "total": "total_requests",
    "successful": "successful_requests",
    "failed": "failed_requests",
    "success_rate_percent": "success_rate_percent",
    "error_rate_percent": "error_rate_percent",
    "per_second": "requests_per_second",
}
_COUNTS = frozenset({"waiting", "running", "peak", "total", "successful", "failed"})


def summary_json(
    state: str,
    summary: Summary,
    columns: tuple[Sequence[Series], Sequence[float | None]],
    gpus: Sequence[GpuReading],
    groups: Iterable[GroupStatus],
    *,
    instance: str | None = None,
) -> dict[str, Any]:
    """The whole answer.

    `state`: the engine's; `columns`: the series of the indicators' block and their values (`Block.columns`). `instance`:
    alerts about this one only.
    """
    fields = {name: _finite(value) for name, value in asdict(summary).items()}
    readings = [_gpu(reading) for reading in sorted(gpus, key=lambda reading: reading.index)]
    active = [
        (rule.name, alert)
        for group in groups
        for rule in group.rules
        for alert in rule.alerts
        if alert.labels.get("severity") != "none"  # Watchdog always fires, and means that all is well
        and instance in (None, alert.labels.get("instance"))
    ]
    return {
        **_of_engines(state, fields, columns, readings),
        "alerts_count": len(active),
        "alerts": [
            {
                "name": name,
                "severity": alert.labels.get("severity"),
                "message": alert.annotations.get("summary") or alert.annotations.get("description"),
                "state": alert.state,
                "since": rfc3339(alert.active_at),
            }
            for name, alert in active
        ],
    }


def engine_json(
    name: str, state: str, summary: Summary, columns: tuple[Sequence[Series], Sequence[float | None]]
) -> dict[str, Any]:
    """One of several engines among `engines`: the same figures, of it alone."""
    fields = {key: _finite(value) for key, value in asdict(summary).items()}
    whole = _of_engines(state, fields, columns, [])
    return {"name": name, **{key: value for key, value in whole.items() if key not in ("gpu", "gpus")}}


def _of_engines(
    state: str,
    fields: Mapping[str, float | None],
    columns: tuple[Sequence[Series], Sequence[float | None]],
    readings: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The answer but for the alerts."""
    return {
        "status": state,
        "requests": {
            key: _whole(fields[name]) if key in _COUNTS else fields[name] for key, name in _REQUESTS.items()
        },
        "slo": {
            "ttft": {key: fields[f"ttft_{key}"] for key in ("mean", "p50", "p95", "p99")},
            "throughput": {
                "decoding_mean": fields["decoding_throughput_mean"],
                "decoding_p50": fields["decoding_throughput_p50"],
                "total": fields["total_throughput"],
            },
        },
        "latency": {key: fields[f"latency_{key}"] for key in ("mean", "p50", "p95", "p99", "min", "max")},
        "latency_histogram": _histogram(columns),
        "tokens": {
            "input": _whole(fields["total_input_tokens"]),
            "output": _whole(fields["total_output_tokens"]),
            "avg_per_request": fields["avg_tokens_per_request"],
        },
        "gpu": readings[0] if readings else _NO_GPU,
        "gpus": readings,
        "errors": {"total": _whole(fields["failed_requests"]), "by_type": _failures(columns)},
    }


_NO_GPU: Mapping[str, None] = {
    "name": None,
    "allocated_gb": None,
    "total_gb": None,
    "free_gb": None,
    "utilization_percent": None,
}


def _gpu(reading: GpuReading) -> dict[str, Any]:
    used = reading.utilization_ratio
    return {
        "name": reading.name,
        "allocated_gb": _gigabytes(reading.memory_used_bytes),
        "total_gb": _gigabytes(reading.memory_total_bytes),
        "free_gb": _gigabytes(reading.memory_free_bytes),
        "utilization_percent": None if used is None else round(100 * used, 3),
    }


def _gigabytes(size: int | None) -> float | None:
    return None if size is None else round(size / GIGABYTE, 3)


def _finite(value: float | None) -> float | None:
    """JSON has no NaN."""
    return value if value is not None and isfinite(value) else None


def _whole(value: float | None) -> float | None:
    """A count without a decimal point."""
    return int(value) if value is not None and value == int(value) else value


def _failures(columns: tuple[Sequence[Series], Sequence[float | None]]) -> dict[str, float | None]:
    counts: dict[str, float] = {}
    for series, value in zip(*columns, strict=True):
        if series.name == REQUESTS and value is not None and series.label("source") == "engine":
            outcome = series.label("outcome")
            if outcome in FAILURES:
                counts[outcome] = counts.get(outcome, 0.0) + value
    return {outcome: _whole(count) for outcome, count in sorted(counts.items())}


def _histogram(columns: tuple[Sequence[Series], Sequence[float | None]]) -> dict[str, float | None] | None:
    """How many requests took how long, all models together: each bucket for itself, named by its edges."""
    cumulative: dict[float, float] = {}
    for series, value in zip(*columns, strict=True):
        if series.name == DURATION_BUCKET and value is not None and series.label("source") == "engine":
            bound = float(series.label("le"))
            cumulative[bound] = cumulative.get(bound, 0.0) + value
    if not cumulative:
        return None
    shown: dict[str, float | None] = {}
    low, before = 0.0, 0.0
    for bound, count in sorted(cumulative.items()):
        shown[bucket_name(low, bound)] = _whole(max(0.0, count - before))
        low, before = bound, count
    return shown


def bucket_name(low: float, high: float) -> str:
    """`0-100ms`, `800ms-1s`, `1-1.5s`, `>1920s`; bounds in seconds."""
    if high == inf:
        number, unit = _sized(low)
        return f">{number}{unit}"
    upper, unit = _sized(high)
    lower, lower_unit = _sized(low)
    return (
        f"{lower}-{upper}{unit}" if low == 0 or lower_unit == unit else f"{lower}{lower_unit}-{upper}{unit}"
    )


def _sized(seconds: float) -> tuple[str, str]:
    return (f"{seconds:g}", "s") if seconds >= 1 else (f"{1000 * seconds:g}", "ms")
