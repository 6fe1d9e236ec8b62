"""What `/-/ready` says: whether the engine can serve, and if not, why and how far it has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.engine.status import EngineStatus


@dataclass(frozen=True, slots=True)
class Readiness:
    """The answer, before it is printed as text or JSON."""

    ready: bool
    body: dict[str, Any]
    line: str

    @property
    def code(self) -> int:
        """200, or 503 as load balancers expect."""
        return 200 if self.ready else 503


_WHY = {
    "starting": "the engine was started and does not answer yet",
    "loading": "the engine is loading its model",
    "unresponsive": "the engine does not answer, or makes no progress",
    "draining": "the engine is being stopped and takes no new requests",
    "stopped": "the engine is not running",
    "backoff": "the engine ended; it will be started again after a pause",
    "failed": "the engine was given up: another start would not help",
}


def readiness(status: EngineStatus, *, now: float, details: bool) -> Readiness:
    """Judge a status. `now`: unix seconds. `details`: whether messages that may name paths and models are shown."""
    state = str(status.state)
    ready = state == "ready"
    reason = "the engine is ready" if ready else _WHY.get(state, "the engine cannot serve")
    body: dict[str, Any] = {
        "status": "ready" if ready else "unavailable",
        "state": state,
        "reason": reason,
        "mode": str(status.mode),
        "state_age_seconds": round(max(0.0, now - status.since), 3) if status.since else None,
    }
    line = f"{state}: {reason}"
    if state in ("starting", "loading"):
        body["load"] = {"stage": status.load_stage, "ratio": status.load_ratio}
        if status.load_stage is not None:
            line += f" (stage {status.load_stage}"
            line += f", {status.load_ratio:.0%})" if status.load_ratio is not None else ")"
    failure = status.last_failure
    if failure is not None and not ready:
        body["failure"] = {"reason": str(failure.reason)}
        line += f"; last failure: {failure.reason}"
        if details:
            body["failure"] |= {"message": failure.message, "advice": failure.advice}
            line += "".join(f": {text}" for text in (failure.message, failure.advice) if text)
    if details:
        body["models"] = list(status.models)
    return Readiness(ready, body, " ".join(line.split()))
