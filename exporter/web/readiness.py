"""What `/-/ready` says: whether the engine can serve, and if not, why and how far it has come.

Several engines are ready while each model that any of them serves has a replica that is: a load balancer that took the
box out for one replica of two would take the other away from its users, too.
"""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True, slots=True)
class EngineGroup:
    """Several engines by their names. `models`: what each serves, or served when it was last seen; empty: not known."""

    statuses: Mapping[str, EngineStatus]
    models: Mapping[str, frozenset[str]]


_WHY = {
    "starting": "the engine was started and does not answer yet",
    "loading": "the engine is loading its model",
    "unresponsive": "the engine does not answer, or makes no progress",
    "draining": "the engine is being stopped and takes no new requests",
    "stopped": "the engine is not running",
    "backoff": "the engine ended; it will be started again after a pause",
    "failed": "the engine was given up: another start would not help",
}


def readiness(status: EngineStatus | EngineGroup, *, now: float, details: bool) -> Readiness:
    """Judge a status. `now`: unix seconds. `details`: whether messages that may name paths and models are shown."""
    if isinstance(status, EngineGroup):
        return _group_readiness(status, now=now, details=details)
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


def _group_readiness(group: EngineGroup, *, now: float, details: bool) -> Readiness:
    """Ready while every model has a ready replica; `degraded` is the state of a group that is, but not all of it."""
    each = {name: readiness(status, now=now, details=details) for name, status in group.statuses.items()}
    serving = {name for name, answer in each.items() if answer.ready}
    served = frozenset[str]().union(*(group.models[name] for name in serving))
    lacking = {
        name: group.models[name] - served
        for name in each
        if name not in serving and (not group.models[name] or group.models[name] - served)
    }
    count = f"{len(serving)} of {len(each)} engines are ready"
    if not lacking:
        state = "ready" if len(serving) == len(each) else "degraded"
        reason = count if state == "ready" else f"{count}; every model has one"
    else:
        first = next(iter(lacking))
        state = str(each[first].body["state"])
        reason = f"{count}; some model has none"
        if details:
            without = sorted({model for models in lacking.values() for model in models})
            named = ", ".join(without) if without else f"the engine {first}"
            reason = f"{count}; without one: {named}"
    body: dict[str, Any] = {
        "status": "unavailable" if lacking else "ready",
        "state": state,
        "reason": reason,
        "engines_ready": len(serving),
        "engines_total": len(each),
    }
    line = f"{state}: {reason}"
    if details:
        body["engines"] = {name: answer.body for name, answer in each.items()}
        line += "".join(f"; {name}: {answer.line}" for name, answer in each.items() if not answer.ready)
    return Readiness(not lacking, body, line)
