"""Prometheus' HTTP API over the daemon's own samples and rules, and the JSON summary; `Api` is what the face is given.

Modules without I/O say what the answers are: `parameters`, `results`, `rules`, `lookups`, `status`, `summary`. `workers`
evaluates off the event loop, `api` joins them, `routes` brings them to HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.web.api.api import Api
    from exporter.web.api.model import Compiled, Store, Target

__all__ = ["Api", "Compiled", "Store", "Target"]

_PLACES = {"Api": "api", "Compiled": "model", "Store": "model", "Target": "model"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: PromQL and NumPy take a while."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
