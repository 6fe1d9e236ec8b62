"""The HTTP face: `/metrics`, health and readiness, a plain landing page, and Prometheus' HTTP API (`api/`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.web.metrics import FAMILIES
    from exporter.web.server import WebServer

__all__ = ["FAMILIES", "WebServer"]


def __getattr__(name: str) -> Any:
    """Import on first use: aiohttp's server takes a tenth of a second."""
    if name == "WebServer":
        from exporter.web.server import WebServer

        return WebServer
    if name == "FAMILIES":
        from exporter.web.metrics import FAMILIES

        return FAMILIES
    raise AttributeError(name)
