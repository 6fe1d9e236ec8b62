"""What a daemon with a gateway loads, and what it leaves out until somebody asks for it."""

from __future__ import annotations

import subprocess
import sys

OF_SOME_ONLY = (
    "apprise",  # a receiver of its kind
    "jinja2",  # a body of its own
    "prometheus_client",  # the simulator
    "pynvml",  # gpu.source nvml
    "requests",
    "exporter.notify.receivers.chat",
    "exporter.notify.report.report",  # notify.report
    "exporter.promtool",
    "exporter.simulator",
)

PROGRAM = """
import sys
import exporter.app, exporter.engine.attached, exporter.engine.strays, exporter.gateway.gateway, exporter.gpu.sampler
import exporter.monitor, exporter.notifications, exporter.schedule, exporter.web.api.daemon
from exporter.notify.receivers.build import load_receivers
from exporter.settings import load_settings

load_receivers(load_settings({"engine.url": "http://127.0.0.1:8000"}).notify)
print(*(name for name in sys.argv[1:] if name in sys.modules))
"""


def test_what_only_some_configurations_need_is_not_loaded_by_all() -> None:
    command = [sys.executable, "-c", PROGRAM, *OF_SOME_ONLY]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []


def test_no_kind_of_receiver_is_built_before_one_is_configured() -> None:
    """Two dozen models with their validators would take more memory than the code that reads them."""
    program = """
from exporter.notify.config.receivers import KINDS
print(*(kind for kind, model in KINDS.items() if model.__pydantic_complete__))
KINDS["webhook"].model_validate({"url": "http://127.0.0.1/"})
print(*(kind for kind, model in KINDS.items() if model.__pydantic_complete__))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split("\n") == ["", "webhook", ""]
