"""What the gateway makes of what is known of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from exporter.engine.states import EngineState
from exporter.engine.status import EngineStatus
from exporter.gateway.admission.fleet import Standing

_S = EngineState

_STANDINGS: Mapping[EngineState, Standing] = MappingProxyType(
    {
        _S.starting: Standing.LOADING,
        _S.loading: Standing.LOADING,
        _S.ready: Standing.READY,
        _S.unresponsive: Standing.SHAKY,
        _S.draining: Standing.DRAINING,
        _S.backoff: Standing.DOWN,
        _S.stopped: Standing.DOWN,
        _S.failed: Standing.FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What `Fleet.follow` needs of an engine's status."""

    standing: Standing
    models: frozenset[str]
    load_stage: str | None
    load_ratio: float | None


def seen(status: EngineStatus) -> Seen:
    """A backend's standing from its engine's status. Loading is told only of one that loads."""
    standing = _STANDINGS[status.state]
    if status.asked_to_stop and standing is not Standing.FAILED:
        standing = Standing.DRAINING  # no new work, from the moment on that somebody asked, and after its end
    loads = standing is Standing.LOADING
    return Seen(
        standing=standing,
        models=frozenset(status.models),
        load_stage=(status.load_stage or status.state.value) if loads else None,
        load_ratio=status.load_ratio if loads else None,
    )
