"""The whole daemon beside one engine: CPU a second, resident memory, time to the first page, time to know of a crash.

`python -m bench.daemon` prints each figure beside a peer of the same run where there is one: Debian's Prometheus,
scraping the same engine at the same interval.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from bench.scrapers import load, quantile

RULES = """
groups:
  - name: ten
    rules:
{rules}
"""
RULE = "      - record: bench:{i}\n        expr: histogram_quantile(0.95, sum by (le) (rate(vllm:{name}_bucket[5m])))\n"
HISTOGRAMS = (
    "time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds",
    "request_queue_time_seconds", "request_prefill_time_seconds",
)  # fmt: skip


WARM_UP_SECONDS = 12.0
"""Until a process has settled: for us the first evaluation of each rule and the first flush to disk are over then."""


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its threads, in nanosecond steps."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_mb(pid: int) -> float:
    """Resident set, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no VmRSS")


def get(port: int, path: str = "/metrics") -> bytes | None:
    """The body of a page; None while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        return body if response.status == 200 else None
    except OSError:
        return None
    finally:
        connection.close()


def wait_for(port: int, needle: bytes = b"", path: str = "/metrics", seconds: float = 30.0) -> float:
    """Time until a page that holds `needle` is served, in seconds."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        page = get(port, path)
        if page is not None and needle in page:
            return time.perf_counter() - began
        time.sleep(0.002)
    raise TimeoutError(f"no {needle!r} on port {port} within {seconds} s")


@contextlib.contextmanager
def running(*command: str, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A child for the time of a block; ended with SIGTERM, then SIGKILL."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def mock_engine(engines: int) -> Iterator[int]:
    """A moving page on a port."""
    port = free_port()
    with running(sys.executable, "-m", "bench.mock_engine", str(port), str(engines)):
        wait_for(port, seconds=60)
        yield port


def exporter(*arguments: str) -> tuple[str, ...]:
    """The daemon's command line."""
    return (sys.executable, "-m", "exporter", *arguments)


def prometheus_command(folder: Path, engine_port: int, port: int, *, rules: bool) -> tuple[str, ...]:
    """Debian's Prometheus at a 1 s scrape, with ten rules or none."""
    names = [*HISTOGRAMS, *HISTOGRAMS]
    text = RULES.format(rules="".join(RULE.format(i=i, name=name) for i, name in enumerate(names)))
    (folder / "ten.rules.yml").write_text(text)
    config = "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
    config += f"rule_files: [{folder}/ten.rules.yml]\n" if rules else ""
    config += f"scrape_configs:\n  - job_name: vllm\n    static_configs: [{{targets: ['127.0.0.1:{engine_port}']}}]\n"
    (folder / "prometheus.yml").write_text(config)
    return (
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=error",
    )  # fmt: skip


def steady(process: subprocess.Popen[bytes], seconds: float, warm_up: float) -> tuple[float, float]:
    """CPU ms a second and resident MB of a process that has settled."""
    time.sleep(warm_up)
    cpu, wall = cpu_seconds(process.pid), time.perf_counter()
    time.sleep(seconds)
    used = cpu_seconds(process.pid) - cpu
    return used / (time.perf_counter() - wall) * 1000, resident_mb(process.pid)


def bench_steady(engines: int, rounds: int, seconds: float) -> None:
    """CPU and memory beside a page of `engines` ranks, interleaved with Prometheus."""
    found: dict[str, list[tuple[float, float]]] = {}
    gpus = {"vllm-exporter": "nvml", "vllm-exporter, a GPU": "simulated"}
    with mock_engine(engines) as engine_port:
        for _ in range(rounds):
            for name, source in gpus.items():
                with tempfile.TemporaryDirectory() as folder:
                    port = free_port()
                    command = exporter(
                        "run", "--engine-url", f"http://127.0.0.1:{engine_port}", "--listen", f"127.0.0.1:{port}",
                        "--data-dir", folder, "--set", f"gpu.source={source}", "--log-level", "error",
                    )  # fmt: skip
                    with running(*command) as process:
                        wait_for(port, b"vllm_slo_tokens_total")
                        found.setdefault(name, []).append(steady(process, seconds, warm_up=WARM_UP_SECONDS))
            for rules in (True, False):
                if not shutil.which("prometheus"):
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    port = free_port()
                    peer = prometheus_command(Path(folder), engine_port, port, rules=rules)
                    with running(*peer, stderr=subprocess.DEVNULL) as process:
                        wait_for(port, path="/-/ready")
                        name = f"Prometheus, {'ten' if rules else 'no'} rules"
                        found.setdefault(name, []).append(steady(process, seconds, warm_up=WARM_UP_SECONDS))
    print(
        f"\nbeside {engines} engine(s), scrape 1 s, median of {rounds} x {seconds:g} s;"
        " `a GPU` is a simulated one, read every 500 ms, of which Prometheus knows nothing"
    )
    ours = statistics.median(cpu for cpu, _ in found["vllm-exporter"])
    for name, results in found.items():
        cpu = statistics.median(cpu for cpu, _ in results)
        rss = statistics.median(rss for _, rss in results)
        print(f"  {name:24} {cpu:7.2f} ms CPU/s  {rss:6.1f} MB resident  {ours / cpu:5.2f} = ours / this")


def bench_start(rounds: int) -> None:
    """From the command to the first answer of `/metrics`."""
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            port = free_port()
            command = exporter(
                "run", "--engine-url", "http://127.0.0.1:9", "--listen", f"127.0.0.1:{port}", "--data-dir", folder,
                "--log-level", "error",
            )  # fmt: skip
            with running(*command):
                found.setdefault("vllm-exporter", []).append(wait_for(port))
        if shutil.which("prometheus"):
            with tempfile.TemporaryDirectory() as folder:
                port = free_port()
                with running(
                    *prometheus_command(Path(folder), 9, port, rules=False), stderr=subprocess.DEVNULL
                ):
                    found.setdefault("Prometheus", []).append(wait_for(port))
    print(f"\nstart to the first answer of /metrics, median of {rounds}")
    ours = statistics.median(found["vllm-exporter"])
    for name, results in found.items():
        middle = statistics.median(results)
        print(f"  {name:24} {middle * 1000:7.0f} ms  {ours / middle:5.2f} = ours / this")


def bench_crash(rounds: int) -> None:
    """From SIGKILL of the engine to the line in the log, counted by then in `/metrics`."""
    delays = []
    with tempfile.TemporaryDirectory() as folder:
        port, engine_port = free_port(), free_port()
        command = exporter(
            "run", "--listen", f"127.0.0.1:{port}", "--data-dir", folder, "--log-format", "json",
            "--set", "engine.crash_limit=100", "--set", "engine.restart_delay=0.1", "--set", "gpu.source=off",
            "--", sys.executable, "-m", "exporter", "simulate", "--port", str(engine_port),
        )  # fmt: skip
        with running(*command, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            engine, killed = 0, 0.0
            for line in process.stderr:
                event = json.loads(line)
                if event["event"] == "engine_started":
                    engine = event["pid"]
                elif event["event"] == "engine_ready":
                    killed = time.time()
                    os.kill(engine, signal.SIGKILL)
                elif event["event"] == "engine_backoff":
                    delays.append(datetime.fromisoformat(event["timestamp"]).timestamp() - killed)
                    if len(delays) == rounds:
                        break
    print(f"\nSIGKILL of the engine to the daemon's log line, {rounds} times")
    print(f"  median {statistics.median(delays) * 1000:.1f} ms, worst {max(delays) * 1000:.1f} ms")


def bench_wedged(seconds: float) -> None:
    """64 scrapers of the whole daemon, while its engine serves, hangs with health 200, and answers nothing at all."""
    print(f"\n64 scrapers in a closed loop against the whole daemon, {seconds:g} s each")
    for name, faults in (
        ("engine serves", ()),
        ("engine wedged", ("wedge",)),
        ("engine silent", ("silent",)),
    ):
        with tempfile.TemporaryDirectory() as folder:
            port, engine_port = free_port(), free_port()
            flags = [flag for fault in faults for flag in ("--fault", f"{fault}@3")]
            command = exporter(
                "run", "--listen", f"127.0.0.1:{port}", "--data-dir", folder, "--log-level", "error",
                "--set", "gpu.source=simulated", "--set", "engine.on_hang=report",
                "--set", "engine.hang_timeout=2", "--set", "engine.hang_grace=0", "--set", "engine.canary_timeout=2",
                "--set", "engine.health_interval=1", "--set", "engine.health_timeout=2", "--on-exit", "stop",
                "--", sys.executable, "-m", "exporter", "simulate", "--port", str(engine_port), "--traffic", "5", *flags,
            )  # fmt: skip
            with running(*command) as process:
                wait_for(port, b"vllm_exporter_engine_up 1")
                if faults:
                    wait_for(port, b'vllm_exporter_engine_state{state="unresponsive"} 1', seconds=60)
                latencies = load(port, 64, seconds)
                size = len(get(port) or b"")
                process.send_signal(signal.SIGTERM)
        p50, p99 = quantile(latencies, 0.5) * 1000, quantile(latencies, 0.99) * 1000
        print(
            f"  {name:16} p50 {p50:5.2f} ms  p99 {p99:5.2f} ms  {len(latencies) / seconds:7.0f}/s  {size} bytes"
        )


def main() -> None:
    """Everything, in about five minutes."""
    bench_start(rounds=7)
    bench_crash(rounds=10)
    bench_wedged(seconds=5)
    bench_steady(engines=1, rounds=3, seconds=15)
    bench_steady(engines=32, rounds=2, seconds=15)


if __name__ == "__main__":
    main()
