"""The summary over several engines: totals added up, means and quantiles of all their requests together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import add
from typing import Any

from exporter.sli.report import Report
from exporter.sli.summary import Summary, windowed
from exporter.sli.window import SlidingSamples

_ADDED = (
    "num_waiting_requests",
    "num_running_requests",
    "total_requests",
    "successful_requests",
    "failed_requests",
    "requests_per_second",
    "total_throughput",
    "total_input_tokens",
    "total_output_tokens",
)
"""Fields of a summary that are the sum of the engines' own; None only where no engine has one."""


class Together:
    """What the engines of a box do at once; `reports` are theirs. `window` in seconds, as each of theirs is."""

    def __init__(self, reports: Sequence[Report], *, window: float) -> None:
        self._reports = tuple(reports)
        self._speeds = SlidingSamples(window)
        self._before: tuple[float, float] | None = None
        self._peak: float | None = None

    def advance(self, now: float) -> None:
        """A scrape of all engines is over, at `now` in unix seconds."""
        running, waiting = self._sum("num_running_requests"), self._sum("num_waiting_requests")
        if running is not None or waiting is not None:
            self._peak = max(self._peak or 0.0, (running or 0.0) + (waiting or 0.0))
        self._speeds.expire(now)
        tokens = self._sum("total_output_tokens")
        if tokens is None:
            return
        if self._before is not None:
            at, before = self._before
            if now > at and tokens > before:
                self._speeds.add(now, (tokens - before) / (now - at))
        self._before = now, tokens

    def summary(self) -> Summary:
        """The summary over all of them."""
        gains = [report.gained for report in self._reports if report.gained[1]]
        fields: dict[str, float | None] = {}
        if gains:
            whole = gains[0][1]
            for _, more in gains[1:]:
                whole = list(map(add, whole, more))
            fields = windowed(max(elapsed for elapsed, _ in gains), whole, *self._reports[0].bounds)
        fields |= {name: self._sum(name) for name in _ADDED}
        peaks = [report.peak for report in self._reports if report.peak is not None]
        fields["peak_concurrent_requests"] = max(
            [*peaks, *([] if self._peak is None else [self._peak])], default=None
        )
        fields["decoding_throughput_mean"] = self._speeds.mean()
        fields["decoding_throughput_p50"] = self._speeds.median()
        return Summary(**fields)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, JSON-able."""
        return {"peak": self._peak}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from a saved state; what makes no sense is left alone."""
        peak = saved.get("peak")
        if isinstance(peak, (int, float)) and peak >= 0:
            self._peak = float(peak)

    def _sum(self, name: str) -> float | None:
        values = [value for report in self._reports if (value := report.field(name)) is not None]
        return sum(values) if values else None
