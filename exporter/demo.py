"""The demo: the daemon on the built-in simulator, with simulated GPUs, under synthetic traffic."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from typing import Any

from exporter.settings import default_data_dir


def demo_settings(flags: Mapping[str, Any], *, requests_per_second: float) -> dict[str, Any]:
    """Settings of the demo, as flags that the user's own flags override."""
    command = (sys.executable, "-m", "exporter", "simulate", "--port", str(_free_port()))
    return {
        "engine.command": (*command, "--disable-uvicorn-access-log", "--traffic", str(requests_per_second)),
        "gpu.source": "simulated",
        "engine.drain_timeout": 2.0,  # the demo's own traffic never pauses for a drain
        "data_dir": default_data_dir() / "demo",
        **flags,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
