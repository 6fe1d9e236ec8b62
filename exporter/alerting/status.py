"""What the rules tell of themselves: plain values, for the API, the console and the notifications. Times: unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Health = Literal["unknown", "ok", "err"]


@dataclass(frozen=True, slots=True)
class AlertStatus:
    """One active alert; labels and annotations are expanded, `alertname` is among the labels."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    state: Literal["pending", "firing"]
    active_at: float
    value: float
    keep_firing_since: float | None = None
    fired_at: float | None = None
    """When it began to fire; the first time, where it was held for want of data meanwhile."""


@dataclass(frozen=True, slots=True)
class RuleStatus:
    """One rule with its last evaluation. Durations in seconds."""

    kind: Literal["alerting", "recording"]
    name: str
    query: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    duration: float
    keep_firing_for: float
    alerts: tuple[AlertStatus, ...]
    health: Health
    last_error: str
    evaluation_seconds: float
    last_evaluation: float | None

    @property
    def state(self) -> Literal["inactive", "pending", "firing"]:
        """The worst state of its alerts."""
        states = {alert.state for alert in self.alerts}
        return "firing" if "firing" in states else "pending" if states else "inactive"


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """One group with its rules, in the order of the file. Durations in seconds."""

    name: str
    file: str
    interval: float
    limit: int
    query_offset: float
    rules: tuple[RuleStatus, ...]
    evaluation_seconds: float
    last_evaluation: float | None
