"""Process lifecycle: an engine that we run (`Supervisor`) or only watch (`AttachedEngine`), and what is known of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.engine.attached import AttachedEngine
    from exporter.engine.command import EngineCommand, read_command
    from exporter.engine.output.diagnosis import Failure
    from exporter.engine.states import EngineState
    from exporter.engine.status import Engine, EngineStatus
    from exporter.engine.supervisor import Supervisor

__all__ = [
    "AttachedEngine",
    "Engine",
    "EngineCommand",
    "EngineState",
    "EngineStatus",
    "Failure",
    "Supervisor",
    "read_command",
]

_HOMES = {
    "AttachedEngine": "attached",
    "Engine": "status",
    "EngineCommand": "command",
    "EngineState": "states",
    "EngineStatus": "status",
    "Failure": "diagnosis",
    "Supervisor": "supervisor",
    "read_command": "command",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: most users need one of them, and some are heavy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
