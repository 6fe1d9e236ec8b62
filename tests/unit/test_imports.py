"""What a daemon with a gateway loads, and what it leaves out until somebody asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

OF_SOME_ONLY = (
    "apprise",  # a receiver of its kind
    "jinja2",  # a body of its own
    "prometheus_client",  # the simulator
    "pynvml",  # gpu.source nvml
    "requests",
    "exporter.engine.supervisor",  # an engine of our own
    "exporter.notify.receivers.chat",
    "exporter.notify.report.report",  # notify.report
    "exporter.promtool",
    "exporter.simulator",
)

PROGRAM = """
import os, signal, socket, sys, threading
from pathlib import Path
from exporter.app import serve
from exporter.settings import load_settings

folder, name = sys.argv[1], f"vllm-exporter-imports-{os.getpid()}"
told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
told.bind("\\0" + name)  # the folder's path may be too long for a socket
os.environ["NOTIFY_SOCKET"] = "@" + name

def end():
    while b"READY=1" not in told.recv(4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end, daemon=True).start()
flags = {"engine.url": "http://127.0.0.1:9", "web.listen": "127.0.0.1:0", "data_dir": Path(folder, "data")}
flags |= {"gateway.mode": "on", "gateway.listen": "127.0.0.1:0", "gpu.source": "off", "log.level": "error"}
assert serve(load_settings(flags)) == 0
assert "exporter.gateway.gateway" in sys.modules and "exporter.notifications" in sys.modules
print(*(name for name in sys.argv[2:] if name in sys.modules))
"""


def test_a_daemon_has_not_loaded_what_only_other_configurations_need(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), *OF_SOME_ONLY]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr, done.stdout.split()) == (0, "", [])


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
