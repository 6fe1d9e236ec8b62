"""The demo: the daemon on the built-in simulator, with simulated GPUs, under synthetic traffic through its gateway."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from exporter.settings import Settings, default_data_dir, parse_listen

PR_SET_PDEATHSIG = 1
END_SECONDS = 5.0
"""What the clients have to end in, before they are killed."""


def demo_settings(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the demo, as flags that the user's own flags override."""
    command = (sys.executable, "-m", "exporter", "simulate", "--port", str(_free_port()))
    return {
        "engine.command": (*command, "--disable-uvicorn-access-log"),
        "gpu.source": "simulated",
        "engine.drain_timeout": 2.0,  # long replies are nobody's here
        "gateway.access_log": "errors",
        "data_dir": default_data_dir() / "demo",
        **flags,
    }


def clients_url(settings: Settings) -> str:
    """Where the demo's clients go: to the gateway, which has the engine's own port unless it was told another."""
    if settings.gateway.mode != "off" and settings.gateway.listen:
        host, port = parse_listen(settings.gateway.listen)
    else:
        command = settings.engine.command
        host, port = "", int(command[command.index("--port") + 1])
    host = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host  # noqa: S104  compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def clients(to: str, *, requests_per_second: float) -> Iterator[None]:
    """The synthetic clients, in a process of their own: they are there whatever happens to the engine."""
    if not requests_per_second:
        yield
        return
    from exporter.engine.process.tree import forget_own_child, note_own_child, starting_own_child

    command = (sys.executable, "-m", "exporter", "simulate", "--traffic-to", to)
    with starting_own_child():
        process = subprocess.Popen(  # noqa: S603  our own program
            [*command, "--traffic", str(requests_per_second)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is the daemon's, which ends them when it has ended
            preexec_fn=_end_with_parent,  # no thread runs yet
        )
        note_own_child(process.pid)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        forget_own_child(process.pid)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
