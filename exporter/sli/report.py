"""The `vllm_` summary gauges over a sliding window, and the samples of the last minutes for incidents."""

from __future__ import annotations

from collections import deque
from typing import Any

from exporter.exposition.block import Block
from exporter.sli.families import SUMMARY
from exporter.sli.summary import SCALARS, Summary, windowed
from exporter.sli.window import SlidingSamples, SlidingWindow

RECENT_SECONDS = 900.0
RECENT_LIMIT = 1800
"""How far back the samples for incidents reach, and how many there are at most."""

_SAMPLE = (
    "requests_running",
    "requests_waiting",
    "kv_cache_usage_ratio",
    "requests_succeeded",
    "requests_failed",
    "input_tokens",
    "output_tokens",
    "time_to_first_token_count",
    "time_to_first_token_sum",
    "request_duration_count",
    "request_duration_sum",
)


class Report:
    """Keeps the summary gauges at the last row. The vector is described at `summary.SCALARS`."""

    def __init__(
        self,
        block: Block,
        *,
        window: float,
        scrape_interval: float,
        ttft_bounds: tuple[float, ...],
        duration_bounds: tuple[float, ...],
    ) -> None:
        self.bounds = ttft_bounds, duration_bounds
        """Of the two histograms in the vector."""
        self.gained: tuple[float, list[float]] = 0.0, []
        """Seconds that the window covers, and what the vector gained in them; empty before the first row."""
        self._slots = {name: block.gauge(family) for name, family in SUMMARY.items()}
        self._window = SlidingWindow(window)
        self._speeds = SlidingSamples(window)
        self._fields: dict[str, float | None] = {}
        self._recent: deque[tuple[float, bool, tuple[float | None, ...]]] = deque(
            maxlen=min(RECENT_LIMIT, int(RECENT_SECONDS / scrape_interval) + 2)
        )
        self.peak: float | None = None
        """Most requests at once."""
        self.started = False
        """Whether totals are known."""

    def begin(self, now: float, vector: list[float]) -> None:
        """What the vector holds happened before the window begins."""
        self._window.restart(now, vector)

    def clear(self) -> None:
        """The vector means something else from now on."""
        self._window.clear()

    def add_speed(self, now: float, tokens_per_second: float) -> None:
        """Take in one interval's output per second, all models together."""
        self._speeds.add(now, tokens_per_second)

    def conclude(
        self,
        now: float,
        vector: list[float],
        running: float | None,
        waiting: float | None,
        kv_usage: float | None,
        *,
        up: bool,
    ) -> None:
        """Bring the gauges up to date, and keep a sample. `up`: whether there was a page."""
        if running is not None or waiting is not None:
            self.peak = max(self.peak or 0.0, (running or 0.0) + (waiting or 0.0))
        success, failed, ended, tokens_in, tokens_out, _ = vector[: len(SCALARS)]
        self.gained = elapsed, gains = self._window.advance(now, vector)
        self._speeds.expire(now)
        fields = windowed(elapsed, gains, *self.bounds)
        fields["num_waiting_requests"] = waiting
        fields["num_running_requests"] = running
        fields["peak_concurrent_requests"] = self.peak
        fields["decoding_throughput_mean"] = self._speeds.mean()
        fields["decoding_throughput_p50"] = self._speeds.median()
        if self.started:
            fields["total_requests"] = ended
            fields["successful_requests"] = success
            fields["failed_requests"] = failed
            fields["total_input_tokens"] = tokens_in
            fields["total_output_tokens"] = tokens_out
        self._fields = fields
        for name, slot in self._slots.items():
            value = fields.get(name)
            if value != slot.value:
                slot.set(value)
        ttft = len(SCALARS) + len(self.bounds[0])
        sample = (running, waiting, kv_usage, success, failed, tokens_in, tokens_out)
        self._recent.append((now, up, (*sample, *vector[ttft : ttft + 2], *vector[-2:])))
        while now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()

    def summary(self) -> Summary:
        """The summary as the gauges show it."""
        return Summary(**self._fields)

    def field(self, name: str) -> float | None:
        """One field of the summary."""
        return self._fields.get(name)

    def recent(self, seconds: float) -> list[dict[str, Any]]:
        """One dict per scrape of the last `seconds`, JSON-able, oldest first: gauges, and totals over restarts."""
        if not self._recent:
            return []
        since = self._recent[-1][0] - seconds
        return [
            {"time": time, "up": up, **dict(zip(_SAMPLE, values, strict=True))}
            for time, up, values in self._recent
            if time >= since
        ]
