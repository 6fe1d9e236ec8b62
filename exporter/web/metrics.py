"""What the face says about itself: requests, their time, connections."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

from exporter.exposition.block import Block
from exporter.exposition.model import Family

HTTP_REQUESTS = Family(
    "vllm_exporter_http_requests_total",
    "counter",
    "Requests answered by the daemon's own HTTP listener, by path (unknown ones as other) and status code.",
    ("path", "code"),
)
HTTP_DURATION = Family(
    "vllm_exporter_http_request_duration_seconds",
    "histogram",
    "Time from a complete request to its answer handed to the kernel, by path.",
    ("path",),
    unit="seconds",
)
HTTP_CONNECTIONS = Family(
    "vllm_exporter_http_connections", "gauge", "Connections open at the daemon's own HTTP listener."
)
HTTP_CLOSED = Family(
    "vllm_exporter_http_connections_closed_total",
    "counter",
    "Connections that the listener closed on its own account: idle, stalled, or making room.",
    ("reason",),
)
FAMILIES = (HTTP_REQUESTS, HTTP_DURATION, HTTP_CONNECTIONS, HTTP_CLOSED)

_API = (
    "query",
    "query_range",
    "query_exemplars",
    "format_query",
    "series",
    "labels",
    "rules",
    "alerts",
    "alertmanagers",
    "targets",
    "metadata",
    "metrics",
    "status/buildinfo",
    "status/runtimeinfo",
    "status/flags",
    "status/config",
    "status/tsdb",
)
PATHS = frozenset(
    {
        "/",
        "/metrics",
        "/metrics/prometheus",
        "/-/healthy",
        "/-/ready",
        "/health",
        "/-/reload",
        "/rules/RUNBOOK.md",
    }
    | {f"/api/v1/{name}" for name in (*_API, "notifications")}
    | {f"/api/v2/{name}" for name in ("alerts", "alerts/groups", "silences", "receivers", "status")}
)
LABEL_VALUES = "/api/v1/label/:name/values"
"""What stands for this path whatever the label."""
DURATION_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)


class _Durations:
    """One histogram's counts, not cumulative, until they are published."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(DURATION_BOUNDS) + 1)
        self.total = 0.0


class HttpMetrics:
    """Counts as requests pass, in plain numbers; `publish` brings them onto the page.

    A scrape must not change the page that the next one gets from the cache, hence the two steps.
    """

    def __init__(self) -> None:
        self.requests: dict[tuple[str, int], int] = {}
        self.closed = {"idle": 0, "stalled": 0, "room": 0}
        self.connections = 0
        self._durations: dict[str, _Durations] = {}

    def count(self, path: str, code: int, seconds: float) -> None:
        """One request answered. Unknown paths share one label value, so clients cannot make series."""
        if path not in PATHS:
            labels = path.startswith("/api/v1/label/") and path.endswith("/values")
            path = LABEL_VALUES if labels else "other"
        key = (path, code)
        self.requests[key] = self.requests.get(key, 0) + 1
        durations = self._durations.get(path)
        if durations is None:
            durations = self._durations[path] = _Durations()
        durations.counts[bisect_left(DURATION_BOUNDS, seconds)] += 1
        durations.total += seconds

    def publish(self, block: Block) -> None:
        """Write the present counts into our own series."""
        for (path, code), number in self.requests.items():
            block.counter(HTTP_REQUESTS, path, str(code)).set(number)
        for path, durations in self._durations.items():
            *cumulative, count = accumulate(durations.counts)
            slot = block.histogram(HTTP_DURATION, DURATION_BOUNDS, path)
            if slot.count != count:
                slot.load(cumulative, count, durations.total)
        block.gauge(HTTP_CONNECTIONS).set(self.connections)
        for reason, number in self.closed.items():
            block.counter(HTTP_CLOSED, reason).set(number)
