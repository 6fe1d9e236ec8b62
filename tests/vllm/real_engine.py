"""The daemon over a real vLLM, as a test drives it: started as a program, seen through `/metrics` and `/proc`."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import openai
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
MODEL_NAME = "tiny-qwen"
MODEL_LEN = 8192
PROMPT = "once upon a time"
START_LIMIT = 240.0
"""Seconds for a start; it takes 15 on 4 idle cores, and several times that on 2 busy ones."""
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",  # threads that spin at barriers starve each other on a busy machine
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CACHE_ROOT": str(ROOT / ".cache" / "vllm"),
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "engine": {"drain_timeout": 60.0, "kill_timeout": 5.0, "restart_delay": 0.2, "crash_limit": 20},
    "scrape": {"interval": 0.5},
    "gpu": {"source": "off"},
    "log": {"format": "json"},
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


class Page:
    """One answer of `/metrics`, parsed as Prometheus' own client library does."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def get(self, name: str, **labels: str) -> float | None:
        """The sum over the series of this name with these labels; None when there is none. Indicators are the engine's unless told."""
        if name.startswith("vllm_slo_") and not name.startswith(("vllm_slo_probe_", "vllm_slo_key_")):
            labels.setdefault("source", "engine")
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    def total(self, name: str, **labels: str) -> float:
        return self.get(name, **labels) or 0.0

    def labels(self, name: str, label: str) -> set[str]:
        """Values of the label on the series of this name that are not zero."""
        return {s.labels[label] for s in self.samples if s.name == name and s.value}

    @property
    def state(self) -> str | None:
        return next(iter(self.labels("vllm_exporter_engine_state", "state")), None)


class Daemon:
    """`python -m exporter run -- vllm serve MODEL`, and everything that it starts; `attach_to` a port: only watching; `engines`: one of
    each name behind one gateway.
    """

    def __init__(
        self,
        vllm: Path,
        model: Path | str,
        folder: Path,
        *flags: str,
        attach_to: int | None = None,
        engines: Sequence[str] = (),
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.vllm, self.model, self.folder, self.flags = vllm, model, folder, flags
        self.environment = dict(environment or {})
        self.attached = attach_to is not None
        self.engines = engines
        self.port, self.engine_port = free_port(), attach_to or free_port()
        """Where the daemon is scraped, and where clients come: to the gateway, or to the engine that it watches."""
        self.log = folder / "daemon.log"
        self.data_dir = folder / "data"
        self.process: subprocess.Popen[bytes] | None = None
        self.sessions: set[int] = set()
        sections: dict[str, dict[str, Any]] = {name: dict(section) for name, section in DEFAULTS.items()}
        for name, section in (settings or {}).items():
            sections.setdefault(name, {}).update(section)
        sections.setdefault("web", {})["listen"] = f"127.0.0.1:{self.port}"
        if engines:
            sections.setdefault("gateway", {})["listen"] = f"127.0.0.1:{self.engine_port}"
        lines = [f"data_dir = {json.dumps(str(self.data_dir))}"]
        for name, section in sections.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
        for name in engines:
            lines += [
                "[[engines]]",
                f"name = {json.dumps(name)}",
                f"command = {json.dumps(self._engine_command())}",
            ]
        self.config = folder / "config.toml"
        self.config.write_text("\n".join(lines) + "\n")

    # its life

    def start(self) -> Daemon:
        argv = [sys.executable, "-m", "exporter", "run", "--config", str(self.config)]
        if self.attached:
            argv += ["--engine-url", f"http://127.0.0.1:{self.engine_port}"]
        elif not self.engines:
            argv += ["--", *self._engine_command()]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                argv,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **ENVIRONMENT, **self.environment},
            )
        return self

    def _engine_command(self) -> list[str]:
        argv = [
            str(self.vllm), "serve", str(self.model), "--dtype", "float32", "--enforce-eager",
            "--served-model-name", MODEL_NAME, "--host", "127.0.0.1", "--port", str(self.engine_port),
        ]  # fmt: skip
        if "--max-model-len" not in self.flags:
            argv += ["--max-model-len", str(MODEL_LEN)]
        return [*argv, *self.flags]

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, signum: int) -> None:
        assert self.process is not None
        self.process.send_signal(signum)

    def wait_exit(self, limit: float) -> int:
        """The daemon's exit code; its engine's processes are looked at meanwhile."""
        assert self.process is not None
        self.engine_processes()
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the daemon has not ended in {limit} s\n{self.tail()}") from None

    def close(self) -> None:
        """End whatever is left."""
        if self.process is not None and self.process.poll() is None:
            self.engine_processes()
            self.process.kill()
            self.process.wait()
        for pid in self.engine_processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    # what it shows

    def get(self, path: str) -> tuple[int, str]:
        """Status and text of an answer; OSError when there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def page(self) -> Page:
        status, text = self.get("/metrics")
        assert status == 200, text
        return Page(text)

    def status_of(self, path: str) -> int:
        return self.get(path)[0]

    def pages(self, limit: float, interval: float = 0.1) -> Iterator[Page]:
        """Pages until the limit, which is an AssertionError; the daemon must live all the while."""
        until = time.monotonic() + limit
        while time.monotonic() < until:
            assert self.process is not None
            code = self.process.poll()
            assert code is None, f"the daemon ended with {code}\n{self.tail()}"
            page = None
            with contextlib.suppress(OSError, http.client.HTTPException):  # it is about to listen, or to end
                page = self.page()
            self.engine_processes()
            if page is not None:
                yield page
            time.sleep(interval)
        raise AssertionError(f"not within {limit} s; state {self.page().state}\n{self.tail()}")

    def wait(self, wanted: Callable[[Page], bool], limit: float = 30.0) -> Page:
        """The first page of which `wanted` is true."""
        return next(page for page in self.pages(limit) if wanted(page))

    def wait_state(self, state: str, limit: float = START_LIMIT) -> Page:
        """The first page in that state; AssertionError at once when the engine has failed for good instead."""
        for page in self.pages(limit):
            if page.state == state:
                return page
            assert page.state != "failed", f"the engine failed\n{self.tail()}"
        raise AssertionError("unreachable")

    def events(self, name: str) -> list[dict[str, Any]]:
        """The daemon's own log lines of one event."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.get("event") == name:
                    found.append(entry)
        return found

    def told(self, name: str) -> list[dict[str, Any]]:
        """The log lines of an event that must come: what `/metrics` shows may be written down a moment later."""
        until = time.monotonic() + 10
        while not (found := self.events(name)) and time.monotonic() < until:
            time.sleep(0.05)
        return found

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]

    # its engine

    @property
    def api_key(self) -> str:
        return self.environment.get("VLLM_API_KEY", "none")

    def client(self, *, port: int | None = None, **options: Any) -> openai.OpenAI:
        url = f"http://127.0.0.1:{port or self.engine_port}/v1"
        plain = openai.DefaultHttpxClient(
            verify=False
        )  # reading the CA bundle for each costs more than the request
        return openai.OpenAI(
            base_url=url, api_key=self.api_key, max_retries=0, timeout=120, http_client=plain, **options
        )

    def engine_processes(self) -> dict[int, str]:
        """Living processes, by pid, of every session that the daemon's children have led; orphans keep the session."""
        table: dict[int, tuple[int, int, str]] = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                head, _, rest = (entry / "stat").read_text().rpartition(")")
                fields = rest.split()
                if fields[0] not in "ZX":
                    name = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    table[int(entry.name)] = (int(fields[1]), int(fields[3]), name or head.partition("(")[2])
        if self.process is not None:
            for pid, (parent, session, _) in table.items():
                if parent == self.process.pid and session == pid:
                    self.sessions.add(session)
        return {pid: name for pid, (_, session, name) in table.items() if session in self.sessions}

    def engine_pid(self, title: str) -> int:
        """The one process of the engine with this in its title or command."""
        found = {pid: name for pid, name in self.engine_processes().items() if title in name}
        assert len(found) == 1, f"{title}: {found} among {self.engine_processes()}"
        return next(iter(found))

    @property
    def own_port(self) -> int:
        """Where the engine itself listens, which is `engine_port` only without a gateway: its last `--port`."""
        words = Path(f"/proc/{self.engine_pid('vllm serve')}/cmdline").read_bytes().decode().split("\0")
        return int(words[len(words) - words[::-1].index("--port")])

    def engine_is_open(self) -> bool:
        """Whether the engine itself accepts connections."""
        with contextlib.suppress(AssertionError, OSError, ValueError):  # it has only just been started
            return is_open(self.own_port)
        return False

    def wait_gone(self, limit: float) -> None:
        """No process of the engine is left, and its port is closed, unless the daemon itself still answers there."""
        assert self.process is not None
        until = time.monotonic() + limit
        while (left := self.engine_processes()) or (
            self.process.poll() is not None and is_open(self.engine_port)
        ):
            if time.monotonic() > until:
                raise AssertionError(f"left after {limit} s: {left}, port open: {is_open(self.engine_port)}")
            time.sleep(0.05)


class Stream:
    """One streamed completion, read in a thread of its own and understood when it has ended.

    On a bare socket: a client library's work for each token would be slower than a tiny model, and a stream that ends
    before the test comes to its point tests nothing.
    """

    def __init__(self, daemon: Daemon, tokens: int) -> None:
        self.finish_reason: str | None = None
        self.output_tokens = 0
        self.error: str | None = None
        self.began = threading.Event()
        self._received = bytearray()
        self._daemon, self._tokens = daemon, tokens
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _request(self) -> bytes:
        body = json.dumps(
            {
                "model": MODEL_NAME,
                "prompt": PROMPT,
                "max_tokens": self._tokens,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        ).encode()
        head = (
            "POST /v1/completions HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self._daemon.api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def _run(self) -> None:
        try:
            with socket.create_connection(("127.0.0.1", self._daemon.engine_port), timeout=120) as connection:
                connection.sendall(self._request())
                while data := connection.recv(1 << 16):
                    self._received += data
                    if b"\ndata: " in self._received[:2000]:
                        self.began.set()
        except OSError as error:
            self.error = repr(error)
        finally:
            self.began.set()

    def join(self, limit: float) -> Stream:
        """Wait for its end, and fill in what it was."""
        self._thread.join(limit)
        assert not self._thread.is_alive(), f"the stream has not ended in {limit} s"
        text = self._received.decode(errors="replace")
        if not text.startswith(("HTTP/1.1 200", "HTTP/1.0 200")):
            self.error = self.error or text[:300] or "no answer"
        for line in text.splitlines():
            if line.startswith("data: {"):
                with contextlib.suppress(ValueError):  # cut off
                    self._take(json.loads(line[6:]))
        if self.error is None and "data: [DONE]" not in text[-100:]:  # chunked coding ends after it
            self.error = "cut off"
        return self

    def _take(self, event: dict[str, Any]) -> None:
        if "error" in event:
            self.error = str(event["error"])
        for choice in event.get("choices", ()):
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        self.output_tokens = (event.get("usage") or {}).get("completion_tokens", self.output_tokens)


def streams(daemon: Daemon, count: int, tokens: int = 6000) -> list[Stream]:
    """That many streams, all past their first token."""
    running = [Stream(daemon, tokens) for _ in range(count)]
    for stream in running:
        assert stream.began.wait(60)
        assert stream.error is None, stream.error
    return running
