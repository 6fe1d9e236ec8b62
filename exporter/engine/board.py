"""The one place where an engine's status changes: by the contract table, shown in the metrics, told and logged once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import structlog

from exporter.engine.metrics import EngineMetrics
from exporter.engine.states import TABLE, EngineState, Event, after
from exporter.engine.status import EngineStatus

log = structlog.get_logger(__name__)

_LEVELS = {
    EngineState.unresponsive: "warning",
    EngineState.backoff: "warning",
    EngineState.failed: "error",
}


class StatusBoard:
    """The present status of one engine. Only the task that runs the engine writes here."""

    def __init__(
        self,
        status: EngineStatus,
        metrics: EngineMetrics,
        table: Mapping[EngineState, Mapping[Event, EngineState]] = TABLE,
    ) -> None:
        self.status = status
        self._metrics = metrics
        self._table = table
        self._subscribers: list[Callable[[EngineStatus], None]] = []
        metrics.show(status)

    def subscribe(self, callback: Callable[[EngineStatus], None]) -> None:
        """Call back at each change, at once and in the event loop."""
        self._subscribers.append(callback)

    def move(
        self, event: Event, changes: Mapping[str, Any] | None = None, *, name: str = "", **told: Any
    ) -> bool:
        """Let `event` happen, with `changes` to the status; whether the state changed.

        A change of state is one log line, `engine_<state>` or `name`, with the values `told`. Where the contract has a dash for the
        event, nothing happens at all.
        """
        state = after(self.status.state, event, self._table)
        if state is self.status.state:
            return False
        was = self.status.state
        self._set(replace(self.status, state=state, since=time.time(), **(changes or {})))
        level = "warning" if told.get("error") else _LEVELS.get(state, "info")
        getattr(log, level)(name or f"engine_{state}", was=was.value, **told)
        return True

    def update(self, **changes: Any) -> None:
        """Change the status within its state; nothing is logged."""
        status = replace(self.status, **changes)
        if status != self.status:
            self._set(status)

    def _set(self, status: EngineStatus) -> None:
        self.status = status
        self._metrics.show(status)
        for callback in self._subscribers:
            callback(status)
