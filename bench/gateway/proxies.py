"""The reverse proxies that are compared, each started on a port in front of one engine, on a core of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.daemon import cpu_seconds, exporter, free_port, resident_mb, wait_for
from bench.pages import CAPTURE

HERE = Path(__file__).parent
NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    upstream engine {{
        server 127.0.0.1:{engine};
        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_time 1d;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        keepalive_requests 1000000000;
        keepalive_time 1d;
        client_max_body_size 0;
        client_body_buffer_size 1m;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
            proxy_buffering off;
            proxy_read_timeout 1h;
        }}
    }}
}}
"""
HAPROXY = """
global
    nbthread 1
    maxconn 8192
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    http-reuse always
    option http-no-delay
frontend clients
    bind 127.0.0.1:{port}
    default_backend engine
backend engine
    server engine 127.0.0.1:{engine} pool-max-conn 1024
"""


class Cores(NamedTuple):
    """Who runs where; empty sets leave it to the kernel."""

    proxy: frozenset[int]
    engine: frozenset[int]
    load: frozenset[int]

    @classmethod
    def divided(cls) -> Cores:
        """One core each, where there are four or more; the first is left to the others on the machine."""
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 4 or not shutil.which("taskset"):
            return cls(frozenset(), frozenset(), frozenset())
        return cls(*(frozenset({core}) for core in cores[1:4]))


class Proxy(NamedTuple):
    """One that runs; `pid` 0 is no proxy at all."""

    name: str
    port: int
    pid: int

    def cpu(self) -> float:
        """CPU seconds so far of the process and all that it started."""
        return sum(cpu_seconds(pid) for pid in tree(self.pid)) if self.pid else 0.0

    def resident(self) -> float:
        """Their memory, in MB."""
        return sum(resident_mb(pid) for pid in tree(self.pid)) if self.pid else 0.0


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found.extend(int(child) for child in (task / "children").read_text().split())
    return found


@contextlib.contextmanager
def on_cores(
    command: Sequence[str], cores: frozenset[int], **options: object
) -> Iterator[subprocess.Popen[bytes]]:
    """A child for the time of a block, bound to cores from its first instruction, so that it counts them so."""
    if cores:
        command = ("taskset", "-c", ",".join(map(str, sorted(cores))), *command)
    process = subprocess.Popen(command, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def compile_all(folder: Path) -> None:
    """`engine` and `load`, into a folder."""
    for name in ("engine", "load"):
        subprocess.run(["cc", "-O2", "-o", str(folder / name), str(HERE / f"{name}.c")], check=True)


@contextlib.contextmanager
def engine(folder: Path, cores: frozenset[int]) -> Iterator[int]:
    """The mock engine, on a port."""
    port = free_port()
    with on_cores([str(folder / "engine"), str(port), str(CAPTURE)], cores):
        wait_for(port, path="/health")
        yield port


def nginx(folder: Path, port: int, engine: int) -> Sequence[str]:
    """One worker, keep-alive on both sides, nothing buffered, nothing logged."""
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, engine=engine))
    return ("nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr")


def haproxy(folder: Path, port: int, engine: int) -> Sequence[str]:
    """One thread."""
    (folder / "haproxy.cfg").write_text(HAPROXY.format(port=port, engine=engine))
    return ("haproxy", "-q", "-db", "-f", str(folder / "haproxy.cfg"))


def vllm_router(folder: Path, port: int, engine: int, *, program: str = "vllm-router") -> Sequence[str]:
    """Its cheapest policy; metrics on, as by default."""
    del folder
    return (
        program, "--host", "127.0.0.1", "--port", str(port), "--worker-urls", f"http://127.0.0.1:{engine}",
        "--policy", "round_robin", "--log-level", "error", "--prometheus-port", str(free_port()),
        "--worker-startup-check-interval", "1",
    )  # fmt: skip


def aiohttp_relay(folder: Path, port: int, engine: int) -> Sequence[str]:
    """A plain relay on aiohttp."""
    del folder
    return (sys.executable, "-m", "bench.gateway.aiohttp_relay", str(port), str(engine))


def litellm(folder: Path, port: int, engine: int) -> Sequence[str]:
    """LiteLLM's proxy."""
    (folder / "litellm.yaml").write_text(
        "model_list: [{model_name: tiny-qwen, litellm_params: "
        f"{{model: openai/tiny-qwen, api_base: 'http://127.0.0.1:{engine}/v1', api_key: none}}}}]\n"
        "general_settings: {dangerously_permit_weak_or_unset_master_key: true}\n"  # on loopback, for a minute
    )
    return ("litellm", "--host", "127.0.0.1", "--port", str(port), "--config", str(folder / "litellm.yaml"))


def ours(folder: Path, port: int, engine: int, *, log_level: str = "warning") -> Sequence[str]:
    """The whole daemon: it scrapes, evaluates and stores besides. At `info` each request has a line in the log."""
    return exporter(
        "run", "--engine-url", f"http://127.0.0.1:{engine}", "--listen", f"127.0.0.1:{free_port()}",
        "--data-dir", str(folder / "data"), "--log-level", log_level, "--set", "gpu.source=off",
        "--set", "gateway.mode=on", "--set", f"gateway.listen=127.0.0.1:{port}",
    )  # fmt: skip


def found(router: str | None, also: Sequence[str]) -> dict[str, Callable[[Path, int, int], Sequence[str]]]:
    """All that are there, ours first. `also`: NAME=COMMAND, with {port} and {engine}."""
    proxies: dict[str, Callable[[Path, int, int], Sequence[str]]] = {
        "vllm-exporter": ours,
        "vllm-exporter + access log": lambda folder, port, engine: ours(
            folder, port, engine, log_level="info"
        ),
    }
    for text in also:
        name, _, command = text.partition("=")
        proxies[name] = lambda _folder, port, engine, command=command: [
            word.format(port=port, engine=engine, python=sys.executable) for word in command.split()
        ]
    if shutil.which("nginx"):
        proxies["nginx"] = nginx
    if shutil.which("haproxy"):
        proxies["haproxy"] = haproxy
    if program := shutil.which(router or "vllm-router"):
        proxies["vllm-router"] = lambda folder, port, engine: vllm_router(
            folder, port, engine, program=program
        )
    proxies["aiohttp relay"] = aiohttp_relay
    if shutil.which("litellm"):
        proxies["LiteLLM"] = litellm
    return proxies


@contextlib.contextmanager
def started(
    name: str, make: Callable[[Path, int, int], Sequence[str]], engine: int, cores: frozenset[int]
) -> Iterator[Proxy]:
    """One proxy, once it answers."""
    port = free_port()
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        with (
            (folder / "errors").open("w+b") as errors,
            on_cores(make(folder, port, engine), cores, stdout=errors, stderr=errors) as process,
        ):
            try:
                wait_for(port, b"tiny-qwen", "/v1/models", seconds=60)
            except TimeoutError:
                errors.seek(0)
                raise RuntimeError(
                    f"{name} does not answer: {errors.read()[-2000:].decode(errors='replace')}"
                ) from None
            time.sleep(0.5)
            yield Proxy(name, port, process.pid)
