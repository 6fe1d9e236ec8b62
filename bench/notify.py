"""From what happens to the webhook that tells of it, beside Prometheus and Alertmanager in the same run.

    python -m bench.notify [--rounds 12] [--starts 3]

A storm: 10,000 alerts at once, evaluated, grouped, written down and sent. A breach: a number on the engine's page goes
too high, and the clock runs until the first byte of the webhook; Prometheus and Alertmanager watch the same page at
their fastest sane setting (scrape and evaluate each second, no `for`, no `group_wait`). A crash: SIGKILL of the engine.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from bench.daemon import cpu_seconds, exporter, free_port, get, resident_mb, running, wait_for

CONFIG = """
route: {receiver: sink, group_by: [BY], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}
receivers: [{name: sink, webhook_configs: [{url: 'URL'}]}]
"""
ALERTS = 10_000
BATCH = 64
"""Alerts in one request, as Prometheus pushes them."""
TARGET_SECONDS, TARGET_MB = 2.0, 150.0
SOON_MS = 50.0


class Hook(NamedTuple):
    """One webhook: when its first byte was there (unix seconds), and what it said."""

    at: float
    body: dict  # type: ignore[type-arg]


@contextlib.contextmanager
def sink(take: Callable[[str, Hook], None]) -> Iterator[int]:
    """A place where webhooks arrive; `take` gets their path and content, in threads."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            if not self.rfile.peek(1):
                self.close_connection = True
                return
            self.at = time.time()
            super().handle_one_request()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            take(self.path, Hook(self.at, json.loads(body)))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def config_for(by: str, port: int, path: str = "/") -> str:
    """An Alertmanager configuration that tells a sink of everything at once; one Alertmanager can read, too."""
    return CONFIG.replace("BY", by).replace("URL", f"http://127.0.0.1:{port}{path}")


def count(hook: Hook) -> int:
    """The alerts that a webhook tells of, those that it leaves out among them."""
    return len(hook.body["alerts"]) + int(hook.body.get("truncatedAlerts", 0))


def bench_storm(rounds: int) -> None:
    """10,000 alerts at once, in one group and in a hundred."""
    print(f"\n{ALERTS} alerts at once, evaluated, grouped, written down and sent, median of {rounds}")
    told: list[int] = []
    with sink(lambda _path, hook: told.append(count(hook))) as port:
        for by in ("alertname", "alertname, cluster"):
            config = config_for(by, port)
            found = []
            for _ in range(rounds):
                told.clear()
                command = (sys.executable, "-m", "bench.storm", config, str(ALERTS))
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found.append(json.loads(done.stdout))
                assert sum(told) == ALERTS, sum(told)
            middle = {key: statistics.median(one[key] for one in found) for key in found[0]}
            peak = max(one["peak_mb"] for one in found)
            print(
                f"  by [{by}]: {middle['notifications']:.0f} notifications in {middle['sent']:.2f} s"
                f" ({middle['evaluated']:.2f} s until they fired, {middle['cpu']:.2f} s CPU in all), peak {peak:.0f} MB"
                f" ({middle['before_mb']:.0f} MB before)  target {TARGET_SECONDS:g} s, {TARGET_MB:g} MB"
            )
    if shutil.which("prometheus-alertmanager"):
        for by in ("alertname", "alertname, cluster"):
            print("  " + alertmanager_storm(by))


def alertmanager_storm(by: str) -> str:
    """The same alerts pushed into an Alertmanager, which only groups and sends them."""
    told: dict[str, float] = {}

    def take(_path: str, hook: Hook) -> None:
        told.update((alert["fingerprint"], hook.at) for alert in hook.body["alerts"])

    with sink(take) as hooks, tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        with running(
            *alertmanager_command(folder, config_for(by, hooks), port), stderr=subprocess.DEVNULL
        ) as process:
            wait_for(port, path="/-/ready")
            cpu, began = cpu_seconds(process.pid), time.time()
            connection = http.client.HTTPConnection("127.0.0.1", port)
            for first in range(0, ALERTS, BATCH):
                labels = [
                    {"alertname": "Storm", "severity": "critical", "cluster": f"c{n % 100:02}", "instance": f"host-{n:05}:9100"}
                    for n in range(first, min(first + BATCH, ALERTS))
                ]  # fmt: skip
                annotations = {"summary": "A host is overloaded", "description": "It has a load of 100%."}
                batch = [{"labels": one, "annotations": annotations} for one in labels]
                connection.request(
                    "POST", "/api/v2/alerts", json.dumps(batch), {"Content-Type": "application/json"}
                )
                response = connection.getresponse()
                assert response.status == 200, response.read()
                response.read()
            pushed = time.time() - began
            deadline = time.monotonic() + 30
            while len(told) < ALERTS and time.monotonic() < deadline:
                time.sleep(0.02)
            assert len(told) == ALERTS, len(told)
            sent, used = max(told.values()) - began, cpu_seconds(process.pid) - cpu
            peak = peak_mb(process.pid)
    return (
        f"Alertmanager alone, by [{by}]: {sent:.2f} s ({pushed:.2f} s until they were pushed, group_interval 1 s,"
        f" {used:.2f} s CPU), peak {peak:.0f} MB; it does not evaluate, and forgets what it had not sent when it is killed"
    )


def alertmanager_command(folder: Path, config: str, port: int) -> tuple[str, ...]:
    """Debian's Alertmanager, alone in its cluster."""
    (folder / "alertmanager.yml").write_text(config)
    return (
        "prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=error",
    )  # fmt: skip


def peak_mb(pid: int) -> float:
    """Most memory that was resident so far, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resident_mb(pid)


def main() -> None:
    """Everything, in about four minutes."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.notify", description="From the event to the webhook."
    )
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--storms", type=int, default=3)
    options = parser.parse_args()
    bench_storm(options.storms)


if __name__ == "__main__":
    main()
