"""Processes of the engine, in one place: identity, belonging, waiting, stopping, and the port that they hold."""

from __future__ import annotations

from exporter.engine.process.ports import port_holder, port_is_free
from exporter.engine.process.procfs import ProcessId, alive, boot_id, identify, oom_kills
from exporter.engine.process.stopping import StopReport, stop_tree, wait_exit
from exporter.engine.process.tree import EngineTree

__all__ = [
    "EngineTree",
    "ProcessId",
    "StopReport",
    "alive",
    "boot_id",
    "identify",
    "oom_kills",
    "port_holder",
    "port_is_free",
    "stop_tree",
    "wait_exit",
]
