"""What a metrics page is made of: series as a source shows them, and families as we declare our own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

MetricType = Literal[
    "counter", "gauge", "histogram", "summary", "unknown", "info", "stateset", "gaugehistogram"
]
"""As OpenMetrics names them; text 0.0.4's `untyped` is `unknown`."""


@dataclass(frozen=True, slots=True)
class Series:
    """One time series of a source's page.

    `name` is the sample's name (`vllm:e2e_request_latency_seconds_bucket`), `family` the name in its TYPE line as text
    0.0.4 writes it, labels are unescaped and sorted by name; `le` is among them.
    """

    name: str
    labels: tuple[tuple[str, str], ...]
    family: str
    type: MetricType

    def label(self, name: str, default: str = "") -> str:
        """The value of one label."""
        for key, value in self.labels:
            if key == name:
                return value
        return default


@dataclass(frozen=True, slots=True)
class Family:
    """One of our own metric families, declared once, beside the code that fills it.

    `name` is the full exposed name: a counter's ends in `_total`. `labels` are the label names in the order in which
    values are given. The README's table of metrics is made from these.
    """

    name: str
    type: Literal["counter", "gauge", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()
    unit: str = field(default="", kw_only=True)
