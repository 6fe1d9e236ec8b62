"""NVIDIA GPU readings: absent, lost and unsupported are values here, not exceptions.

`GpuSampler` is what the daemon runs, `FAMILIES` what it can show, `GpuReading` one GPU at one moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.gpu.families import FAMILIES
    from exporter.gpu.reading import GpuReading
    from exporter.gpu.sampler import GpuSampler

__all__ = ["FAMILIES", "GpuReading", "GpuSampler"]

_PLACES = {"FAMILIES": "families", "GpuReading": "reading", "GpuSampler": "sampler"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
