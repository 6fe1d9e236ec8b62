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

from bench.daemon import cpu_seconds, exporter, free_port, resident_mb, running, wait_for
from bench.pages import CAPTURE

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

    with serving(Handler) as port:
        yield port


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A server in threads, on a free port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
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


class Engine:
    """An engine's page, a real one with a switch for each round; knows when who was shown that a switch is on.

    Each switch turns so many series on.
    """

    def __init__(self, rounds: int, series: int = 1) -> None:
        self._capture = CAPTURE.read_text(encoding="utf-8").rstrip("\n")
        self._on = [0] * rounds
        self._series = series
        self._lock = threading.Lock()
        self.shown: dict[tuple[str, int], float] = {}
        """By scraper and round, the unix time at which the first page with the switch on was on its way."""

    def breach(self, number: int) -> float:
        """Turn a switch on; gives when."""
        with self._lock:
            self._on[number] = 1
            return time.time()

    @contextlib.contextmanager
    def serve(self) -> Iterator[int]:
        """Answer scrapes and probes on a port."""
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                body, on = b"", []
                if self.path == "/metrics":
                    body, on = engine.page()
                elif self.path == "/v1/models":
                    body = b'{"object": "list", "data": [{"id": "tiny-qwen", "object": "model"}]}'
                kind = "application/json" if self.path == "/v1/models" else "text/plain; version=0.0.4"
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                now = time.time()
                who = "Prometheus" if self.headers["User-Agent"].startswith("Prometheus") else "vllm-exporter"
                for number in on:
                    engine.shown.setdefault((who, number), now)

            def log_message(self, *_: object) -> None:
                pass

        with serving(Handler) as port:
            yield port

    def page(self) -> tuple[bytes, list[int]]:
        """The page, and the switches that are on."""
        with self._lock:
            on = [number for number, one in enumerate(self._on) if one]
            lines = [
                f'vllm:bench_breach{{round="{number}",cluster="c{n % 100:02}",host="host-{n:05}"}} {one}'
                for number, one in enumerate(self._on)
                for n in range(self._series)
            ]
        return "\n".join((self._capture, "# TYPE vllm:bench_breach gauge", *lines, "")).encode(), on


def rules(rounds: int) -> str:
    """An alert for each switch; each name is a group of its own."""
    lines = ["groups:", "  - name: bench", "    interval: 1s", "    rules:"]
    for number in range(rounds):
        lines.append(f"      - alert: Breach{number}")
        lines.append(f'        expr: vllm:bench_breach{{round="{number}"}} > 0.5')
        lines.append("        labels: {severity: critical}")
        lines.append(
            "        annotations: {summary: It is too much, description: '{{ $labels.host }} has {{ $value }}.'}"
        )
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def ours(folder: Path, engine: int, hooks: int) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon with its shipped rules and its shipped way to tell: `--webhook` is all that it needs."""
    port = free_port()
    command = exporter(
        "run", "--engine-url", f"http://127.0.0.1:{engine}", "--listen", f"127.0.0.1:{port}",
        "--data-dir", str(folder / "data-ours"), "--rules", str(folder / "bench.rules.yml"),
        "--webhook", f"http://127.0.0.1:{hooks}/vllm-exporter", "--set", "gpu.source=simulated", "--log-level", "error",
    )  # fmt: skip
    with running(*command) as process:
        wait_for(port, b"vllm_slo_tokens_total")
        yield process


@contextlib.contextmanager
def theirs(folder: Path, engine: int, hooks: int) -> Iterator[None]:
    """Prometheus and Alertmanager at their fastest sane setting."""
    manager, port = free_port(), free_port()
    config = (
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: [{folder}/bench.rules.yml]\n"
        f"alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{manager}']}}]}}]}}\n"
        f"scrape_configs: [{{job_name: vllm, static_configs: [{{targets: ['127.0.0.1:{engine}']}}]}}]\n"
    )
    (folder / "prometheus.yml").write_text(config)
    prometheus = (
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data-theirs",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    )  # fmt: skip
    alertmanager = alertmanager_command(folder, config_for("alertname", hooks, "/Prometheus"), manager)
    with running(*alertmanager, stderr=subprocess.DEVNULL), running(*prometheus, stderr=subprocess.DEVNULL):
        wait_for(manager, path="/-/ready")
        wait_for(port, path="/-/ready")
        yield


def bench_daemon_storm() -> None:
    """The same storm in the whole daemon, whose engine's page has 10,000 series more."""
    told: list[Hook] = []
    engine = Engine(1, ALERTS)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "bench.rules.yml").write_text(rules(1))
        hooks, port = (
            stack.enter_context(sink(lambda _path, hook: told.append(hook))),
            stack.enter_context(engine.serve()),
        )
        daemon = stack.enter_context(ours(folder, port, hooks))
        time.sleep(8)
        before = peak_mb(daemon.pid)
        engine.breach(0)
        until(lambda: sum(count(hook) for hook in told if breached(hook)) >= ALERTS)
        last = max(hook.at for hook in told if breached(hook)) - engine.shown["vllm-exporter", 0]
        peak = peak_mb(daemon.pid)
    print(f"  the whole daemon: {last:.2f} s from the scrape, peak {peak:.0f} MB ({before:.0f} MB before)")


def breached(hook: Hook) -> bool:
    """Whether it tells of a switch."""
    return bool(hook.body["groupLabels"]["alertname"].startswith("Breach"))


def bench_breach(starts: int, rounds: int) -> None:
    """Both watch one page; each round something goes wrong at a random moment."""
    peers = ["vllm-exporter", *(["Prometheus"] if peer_is_there() else [])]
    whole: dict[str, list[float]] = {peer: [] for peer in peers}
    after: dict[str, list[float]] = {peer: [] for peer in peers}
    for _ in range(starts):
        told: dict[tuple[str, str], float] = {}

        def take(path: str, hook: Hook, told: dict[tuple[str, str], float] = told) -> None:
            for alert in hook.body["alerts"]:
                told.setdefault((path.strip("/"), alert["labels"]["alertname"]), hook.at)

        engine = Engine(rounds)
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (folder / "bench.rules.yml").write_text(rules(rounds))
            hooks, port = stack.enter_context(sink(take)), stack.enter_context(engine.serve())
            stack.enter_context(ours(folder, port, hooks))
            if len(peers) > 1:
                stack.enter_context(theirs(folder, port, hooks))
            time.sleep(5)
            for number in range(rounds):
                time.sleep(1 + random.random())
                began = engine.breach(number)
                keys = [(peer, f"Breach{number}") for peer in peers]
                until(lambda keys=keys, told=told: all(key in told for key in keys))
                for peer, key in zip(peers, keys, strict=True):
                    whole[peer].append(told[key] - began)
                    after[peer].append(told[key] - engine.shown[peer, number])
    names = {"vllm-exporter": "vllm-exporter", "Prometheus": "Prometheus + Alertmanager"}
    print(
        f"\na breach to the first byte of the webhook, {starts} starts of {rounds} rounds; all scrape each second"
    )
    for what, found in (("from the breach", whole), ("from the scrape that saw it", after)):
        middle = statistics.median(found["vllm-exporter"])
        for peer in peers:
            median, worst = statistics.median(found[peer]), max(found[peer])
            target = f"  target {SOON_MS:g} ms" if (peer, found) == ("vllm-exporter", after) else ""
            print(
                f"  {what:28} {names[peer]:26} median {median * 1000:6.1f} ms  worst {worst * 1000:7.1f} ms"
                f"  {middle / median:5.2f} = ours / this{target}"
            )


def bench_crash(rounds: int) -> None:
    """From SIGKILL of the engine to the first byte of the webhook that says so; a daemon for each round."""
    delays = []
    for _ in range(rounds):
        told: list[Hook] = []
        with (
            sink(lambda _path, hook, told=told: told.append(hook)) as hooks,
            tempfile.TemporaryDirectory() as folder,
        ):
            command = exporter(
                "run", "--listen", f"127.0.0.1:{free_port()}", "--data-dir", folder, "--log-format", "json",
                "--webhook", f"http://127.0.0.1:{hooks}/", "--set", "gpu.source=off", "--on-exit", "stop",
                "--", sys.executable, "-m", "exporter", "simulate", "--port", str(free_port()),
            )  # fmt: skip
            with running(*command, stderr=subprocess.PIPE) as process:
                assert process.stderr is not None
                engine = 0
                for line in process.stderr:
                    event = json.loads(line)
                    if event["event"] == "engine_started":
                        engine = event["pid"]
                    elif event["event"] == "engine_ready":
                        break
                threading.Thread(target=process.stderr.read, daemon=True).start()
                time.sleep(2 + random.random())
                told.clear()
                killed = time.time()
                os.kill(engine, signal.SIGKILL)
                until(lambda told=told: any(crashed(hook) for hook in told))
                delays.append(next(hook.at for hook in told if crashed(hook)) - killed)
    print(f"\nSIGKILL of the engine to the first byte of the webhook, {rounds} times")
    print(
        f"  median {statistics.median(delays) * 1000:.1f} ms, worst {max(delays) * 1000:.1f} ms  target {SOON_MS:g} ms"
    )


def crashed(hook: Hook) -> bool:
    """Whether it tells of the end of an engine."""
    return any(alert["labels"]["alertname"] == "VLLMEngineCrashed" for alert in hook.body["alerts"])


def peer_is_there() -> bool:
    """Whether there is somebody to compare with."""
    return bool(shutil.which("prometheus") and shutil.which("prometheus-alertmanager"))


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no webhook within {seconds:g} s")
        time.sleep(0.002)


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
    bench_daemon_storm()
    bench_breach(options.starts, options.rounds)
    bench_crash(options.rounds)


if __name__ == "__main__":
    main()
