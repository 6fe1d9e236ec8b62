"""What subscribers are told: an alert that changed its state."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.alerting.holding import Standing
from exporter.alerting.state import Alert


@dataclass(frozen=True, slots=True)
class Transition:
    """An alert went from one state to another at an evaluation; `alert` is as it is now.

    Inactive after pending: it never fired. Inactive after firing: it is resolved, or its rule is gone. Held after firing:
    its data is gone, or the rule failed by its limit, and nobody knows; then it fires again, or is inactive.
    `at`: the evaluation, in unix seconds, as is `no_data_since`: of an alert that has no data, and of one that was given
    up for want of it. Times within `alert` are milliseconds. `reason`: why it ended, where its condition did not end it.
    """

    file: str
    group: str
    rule: str
    query: str
    alert: Alert
    before: Standing
    after: Standing
    at: float
    no_data_since: float | None = None
    reason: str = ""

    @property
    def starts_at(self) -> float | None:
        """When it fired, in unix seconds, the first time where it was held meanwhile; None: it never did."""
        return None if self.alert.fired_at is None else self.alert.fired_at / 1000
