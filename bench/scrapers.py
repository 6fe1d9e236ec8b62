"""Closed-loop scrapers against `/metrics`: our face, plain aiohttp, and prometheus_client's own server, side by side.

    python -m bench.scrapers [--scrapers 64] [--seconds 2] [--rounds 5]

Each server is a process of its own and serves the families of the same page (the vLLM 0.32 capture). The rounds are
interleaved, so a noisy machine is noisy for all; quantiles are over all answers of all rounds. Every answer is read to
its last byte and checked. Ours and plain aiohttp render again every tenth of a second, as the daemon does under such a
load; the peer renders for every scrape and closes the connection after it, as it always does. Its backlog is 5, so
that most of 64 clients at once wait for a second try of their kernel.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CAPTURE = Path(__file__).parents[1] / "tests" / "data" / "vllm-0.32.0-metrics.txt"
BUFFER = memoryview(bytearray(1 << 20))
SERVERS = ("ours", "aiohttp", "prometheus_client")


class Scraper:
    """One client that asks again as soon as it has its answer, on the same connection where the server allows it."""

    def __init__(self, address: tuple[str, int], request: bytes, epoll: select.epoll) -> None:
        self._address = address
        self._request = request
        self._epoll = epoll
        self._socket: socket.socket | None = None
        self._begun = 0.0
        self.descriptor = -1
        self._got = 0
        self._wanted: int | None = None
        self._close = False

    def ask(self) -> None:
        """Send the next request, on a new connection if need be."""
        self._begun = time.perf_counter()
        self._got = 0
        self._wanted = None
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=60)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setblocking(False)
            self.descriptor = self._socket.fileno()
            self._epoll.register(self.descriptor, select.EPOLLIN)
        self._socket.send(self._request)

    def read(self) -> float | None:
        """Take what has come; the seconds since `ask` when the answer is whole."""
        assert self._socket is not None
        size = self._socket.recv_into(BUFFER)
        if not self._got and size:
            self._read_head(bytes(BUFFER[: min(size, 4096)]))
        self._got += size
        if size and (self._wanted is None or self._got < self._wanted):
            return None
        seconds = time.perf_counter() - self._begun
        if self._got < 1000 or (self._wanted is not None and self._got != self._wanted):
            raise RuntimeError(f"answer of {self._got} bytes, expected {self._wanted}")
        if self._close or not size:
            self.close()
        return seconds

    def close(self) -> None:
        """Leave the connection."""
        if self._socket is not None:
            self._epoll.unregister(self.descriptor)
            self._socket.close()
            self._socket = None

    def _read_head(self, start: bytes) -> None:
        head, end, _ = start.lower().partition(b"\r\n\r\n")
        status, *fields = head.split(b"\r\n")
        if b" 200 " not in status + b" " or not end:
            raise RuntimeError(f"answered {start[:200]!r}")
        headers = dict(field.split(b": ", 1) for field in fields)
        self._close = status.startswith(b"http/1.0") or headers.get(b"connection") == b"close"
        length = headers.get(b"content-length")
        self._wanted = len(head) + len(end) + int(length) if length is not None else None


def load(port: int, scrapers: int, seconds: float, *, path: str = "/metrics") -> list[float]:
    """Latencies in seconds of every answer that `scrapers` clients got within `seconds`."""
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: bench\r\n"
        "Accept: text/plain;version=0.0.4\r\nAccept-Encoding: identity\r\n\r\n"
    ).encode()
    epoll = select.epoll()
    latencies: list[float] = []
    clients = [Scraper(("127.0.0.1", port), request, epoll) for _ in range(scrapers)]
    try:
        for client in clients:
            client.ask()
        by_descriptor = {client.descriptor: client for client in clients}
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for descriptor, _ in epoll.poll(60.0):
                client = by_descriptor[descriptor]
                taken = client.read()
                if taken is not None:
                    latencies.append(taken)
                    client.ask()
                    if client.descriptor != descriptor:
                        by_descriptor[client.descriptor] = client
    finally:
        for client in clients:
            client.close()
        epoll.close()
    return latencies


def quantile(values: list[float], q: float) -> float:
    """Nearest-rank quantile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and all of its threads, living and dead (proc_pid_stat(5)), in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def summary(latencies: list[float], seconds: float, cpu: float) -> dict[str, float]:
    """What is printed: milliseconds, answers a second, and the server's CPU time for one of them."""
    return {
        "p50_ms": quantile(latencies, 0.5) * 1e3,
        "p99_ms": quantile(latencies, 0.99) * 1e3,
        "max_ms": max(latencies) * 1e3,
        "per_second": len(latencies) / seconds,
        "cpu_us": cpu / len(latencies) * 1e6,
    }


def start_server(kind: str) -> tuple[subprocess.Popen[str], int]:
    """One of SERVERS in its own process; it ends when its standard input closes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.scrapers", "--serve", kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def compare(scrapers: int, seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Run all servers in turn, `rounds` times."""
    servers = {kind: start_server(kind) for kind in SERVERS}
    latencies: dict[str, list[float]] = {kind: [] for kind in SERVERS}
    cpu = dict.fromkeys(SERVERS, 0.0)
    try:
        for _, port in servers.values():
            load(port, scrapers, min(seconds, 0.5))
        for _ in range(rounds):
            for kind, (process, port) in servers.items():
                before = cpu_seconds(process.pid)
                latencies[kind] += load(port, scrapers, seconds)
                cpu[kind] += cpu_seconds(process.pid) - before
    finally:
        for process, _ in servers.values():
            process.communicate("")
    return {kind: summary(taken, seconds * rounds, cpu[kind]) for kind, taken in latencies.items()}


def serve_peer() -> None:
    """prometheus_client's own threading server with the families of the capture."""
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.parser import text_string_to_metric_families

    families = list(text_string_to_metric_families(CAPTURE.read_text()))

    class Capture:
        def collect(self) -> Any:
            return families

    registry = CollectorRegistry()
    registry.register(Capture())
    server, _ = start_http_server(0, addr="127.0.0.1", registry=registry)
    print(server.server_port, flush=True)
    sys.stdin.read()


async def serve_ours(*, short_way: bool) -> None:
    """Our face with the capture; without the short way every request goes through aiohttp."""
    from exporter import logs
    from exporter.engine.status import EngineStatus
    from exporter.exposition.block import Block
    from exporter.exposition.page import Page
    from exporter.process_metrics import ProcessMetrics
    from exporter.settings import WebSettings
    from exporter.web import connection
    from exporter.web.server import WebServer

    class Capture:
        version = 1

        def render(self, *, openmetrics: bool) -> bytes:
            return CAPTURE.read_bytes()

    logs.configure("console", "warning")
    block = Block()
    process = ProcessMetrics(block)

    def before_render() -> None:
        process.publish(now=time.time())
        server.publish(block)

    if not short_way:
        setattr(connection, "read_head", lambda _head: None)  # noqa: B010
    server = WebServer(
        WebSettings(listen="127.0.0.1:0"),
        Page([Capture(), block]),
        engine_status=lambda: EngineStatus(mode="attached", base_url="http://127.0.0.1:8000"),
        before_render=before_render,
    )
    port = server.bind().getsockname()[1]
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()


def main() -> None:
    """Print the comparison as a table, or as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scrapers", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one round of one server")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve == "prometheus_client":
        serve_peer()
    elif args.serve:
        asyncio.run(serve_ours(short_way=args.serve == "ours"))
    else:
        results = compare(args.scrapers, args.seconds, args.rounds)
        if args.json:
            print(json.dumps(results))
            return
        print(
            f"{args.scrapers} scrapers in a closed loop     p50 ms    p99 ms    max ms  answers/s  CPU us each"
        )
        for kind, result in results.items():
            figures = "".join(f"{result[key]:10.2f}" for key in ("p50_ms", "p99_ms", "max_ms"))
            print(f"{kind:30}{figures}{result['per_second']:11.0f}{result['cpu_us']:13.0f}")


if __name__ == "__main__":
    main()
