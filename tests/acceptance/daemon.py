"""The installed program as a process of its own, for the tests of this folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

PROGRAM = (sys.executable, "-m", "exporter")
PATIENCE_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(what: str, condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> Any:
    """Wait until the condition holds, and return what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


class Daemon:
    """One run of the program; ended at last, whatever the test did."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.log = folder / f"daemon-{self.port}.log"
        verb, *rest = arguments
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *PROGRAM, verb, "--listen", f"127.0.0.1:{self.port}", "--data-dir", str(folder / "data"),
                    "--log-format", "json", *rest,
                ],
                stdout=log,
                stderr=log,
            )  # fmt: skip

    @classmethod
    def around(cls, process: subprocess.Popen[bytes], port: int, log: Path) -> Self:
        """A process that the test started in its own way."""
        daemon = cls.__new__(cls)
        daemon.process, daemon.port, daemon.log = process, port, log
        log.touch()
        return daemon

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if error is not None:
            print(self.log.read_text(encoding="utf-8", errors="replace")[-6000:])

    def get(self, path: str = "/metrics", **headers: str) -> str:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())

    def body(self, path: str) -> str:
        """The body of an answer of any status."""
        try:
            return self.get(path)
        except urllib.error.HTTPError as error:
            with error:
                return str(error.read().decode())

    def status(self, path: str) -> int:
        try:
            self.get(path)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0
        return 200

    def families(self, *, openmetrics: bool = False) -> dict[str, Any]:
        """The page, read by the strict parser of its format."""
        accept = "application/openmetrics-text;version=1.0.0" if openmetrics else "text/plain;version=0.0.4"
        parse = parse_openmetrics if openmetrics else parse_text
        return {family.name: family for family in parse(self.get(Accept=accept))}

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of the matching series; None when there is none, or no answer. Indicators are the engine's unless told."""
        if name.startswith("vllm_slo_") and not name.startswith(("vllm_slo_probe_", "vllm_slo_key_")):
            labels.setdefault("source", "engine")
        try:
            families = self.families()
        except OSError:
            return None
        values = [
            sample.value
            for family in families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(values) if values else None

    def wait_ready(self) -> None:
        eventually("the engine is ready", lambda: self.status("/-/ready") == 200)

    def events(self) -> list[dict[str, Any]]:
        """The log so far, in whole lines: it may be read in the middle of being written."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def event(self, name: str, count: int = 1) -> dict[str, Any]:
        """Wait for the `count`th log line of this name."""

        def found() -> dict[str, Any] | None:
            events = [event for event in self.events() if event["event"] == name]
            return events[count - 1] if len(events) >= count else None

        return dict(eventually(f"log line {name}", found))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def simulator(port: int, *flags: str) -> tuple[str, ...]:
    """What follows `run` to supervise the built-in simulator."""
    return ("--", *PROGRAM, "simulate", "--port", str(port), *flags)


def gone(pid: int) -> bool:
    """Whether no such process is left (a zombie of somebody else's counts as gone)."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return True
    return state == "Z"
