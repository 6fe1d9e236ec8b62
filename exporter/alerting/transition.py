"""What subscribers are told: an alert that changed its state."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.alerting.state import Alert, State


@dataclass(frozen=True, slots=True)
class Transition:
    """An alert went from one state to another at an evaluation; `alert` is as it is now.

    Inactive after pending: it never fired. Inactive after firing: it is resolved, or its rule is gone or failed by its limit.
    `at`: the evaluation, in unix seconds; times within `alert` are milliseconds.
    """

    file: str
    group: str
    rule: str
    query: str
    alert: Alert
    before: State
    after: State
    at: float
