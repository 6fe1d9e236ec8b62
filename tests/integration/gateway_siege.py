"""What a siege of the gateway needs: the real daemon before an engine, clients that send any bytes, and an engine that answers any."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

PATIENCE = 20.0
"""Seconds for anything that is waited for."""
MODEL = "sim-8b"
GREED = 64 << 20
"""Bytes by which an attack may make the daemon grow, of whatever is not told: pages of its own, buffers that come and go."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(what: str, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return found


def raise_files(wanted: int) -> bool:
    """Whether this process, and what it starts from now on, may open so many files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            return False
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return True


def request(method: str, path: str, *lines: str, body: bytes = b"") -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: g", *lines]
    if body or method == "POST":
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def post(body: bytes, *lines: str, path: str = "/v1/completions") -> bytes:
    return request("POST", path, "Content-Type: application/json", *lines, body=body)


def ask_for(tokens: int = 1, *, stream: bool = False) -> bytes:
    return json.dumps(
        {"model": MODEL, "prompt": "x", "max_tokens": tokens, "ignore_eos": True, "stream": stream}
    ).encode()


class Client:
    """A plain socket, with a time limit on everything."""

    def __init__(self, port: int, *, window: int | None = None) -> None:
        self.socket = socket.socket()
        if window is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise

    def send(self, data: bytes) -> bool:
        """Whether it was taken, all of it."""
        try:
            self.socket.sendall(data)
        except ConnectionError:
            return False
        return True

    def some(self) -> bytes:
        try:
            return self.socket.recv(1 << 20)
        except ConnectionError:
            return b""

    def head(self) -> bytes:
        """The next answer's head, or what came of it."""
        data = b""
        while b"\r\n\r\n" not in data and (piece := self.some()):
            data += piece
        return data

    def rest(self, limit: int = 1 << 24) -> bytes:
        """All until the other side closes."""
        data = bytearray()
        while len(data) < limit and (piece := self.some()):
            data += piece
        return bytes(data)

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


class Siege:
    """The daemon with its gateway at `port`."""

    def __init__(self, folder: Path, port: int, *arguments: str, files: int | None = None) -> None:
        """`files`: how many files it may open at most; None for as many as this process."""
        self.port = port
        within = ("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh") if files else ()
        self.page_port = free_port()
        self.log = folder / "daemon.log"
        common = (
            "--listen", f"127.0.0.1:{self.page_port}", "--data-dir", str(folder / "data"), "--log-format", "json",
            "--set", "gpu.source=off", "--set", "gateway.probe_interval=0", "--set", "scrape.interval=0.5",
        )  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*within, sys.executable, "-m", "exporter", "run", *common, *arguments],
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        """Until requests are answered."""

        def answers() -> bool:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                return self.ask(post(ask_for()))[:12] == b"HTTP/1.1 200"
            except OSError:
                return False

        eventually("the gateway serves", answers)
        self.memory_at_first = self.memory()

    def ask(self, data: bytes) -> bytes:
        """The head of the answer, and what came with it."""
        with self.client() as client:
            client.send(data)
            return client.head()

    def client(self, *, window: int | None = None) -> Client:
        return Client(self.port, window=window)

    def memory(self) -> int:
        """Bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
        raise AssertionError("no VmRSS")

    @contextlib.contextmanager
    def most_memory(self) -> Iterator[Callable[[], int]]:
        """How many bytes it has grown by at most while this lasts, told at its end."""
        before = most = self.memory()
        over = threading.Event()

        def look() -> None:
            nonlocal most
            while not over.wait(0.005):
                most = max(most, self.memory())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield lambda: most - before
        finally:
            over.set()
            thread.join()

    @contextlib.contextmanager
    def stall(self) -> Iterator[Callable[[], float]]:
        """The longest time for which the event loop answered nobody while this lasts, told at its end: in seconds."""
        longest = 0.0
        over = threading.Event()

        def look() -> None:
            nonlocal longest
            with self.client() as client:
                while not over.is_set():
                    asked = time.monotonic()
                    client.send(request("GET", "/nowhere"))
                    client.head()
                    longest = max(longest, time.monotonic() - asked)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield lambda: longest
        finally:
            over.set()
            thread.join()

    def page(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.page_port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def value(self, name: str) -> float:
        """Sum of the series of this name, on a page that parses."""
        families = list(text_string_to_metric_families(self.page()))
        return sum(sample.value for family in families for sample in family.samples if sample.name == name)

    def check(self) -> None:
        """It still stands: it serves, its page is valid, nothing is left over, no memory is lost, no exception was logged."""
        assert self.process.poll() is None, self.log.read_text(errors="replace")[-3000:]
        eventually("a request is served", lambda: self.ask(post(ask_for()))[:12] == b"HTTP/1.1 200")
        eventually("none runs", lambda: self.value("vllm_exporter_gateway_requests_running") == 0)
        eventually("none waits", lambda: self.value("vllm_exporter_gateway_requests_queued") == 0)
        eventually("no connections", lambda: self.value("vllm_exporter_gateway_connections") < 5)
        grown = self.memory() - self.memory_at_first
        assert grown < 2 * GREED, f"{grown >> 20} MiB more than at first"
        for event in self.events():
            assert "exception" not in event, event
            assert "Traceback" not in str(event) or event["event"] == "engine_log", event

    def events(self) -> list[dict[str, Any]]:
        """The log so far; each of its lines is JSON, whatever is written in it."""
        return [json.loads(line) for line in self.log.read_bytes().split(b"\n")[:-1]]

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def files(self) -> int:
        """Descriptors that it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


_PAGE = b'# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name="sim-8b"} 0\n'
_SMALL = {
    b"/health": b"",
    b"/version": b'{"version":"0.32.0"}',
    b"/metrics": _PAGE,
    b"/v1/models": b'{"object":"list","data":[{"id":"sim-8b","object":"model","max_model_len":4096}]}',
}
Answer = Callable[[socket.socket, bytes], None]


def _answer_well(connection: socket.socket, head: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")


class Wicked:
    """An engine that is asked how it is in good manners, and answers anything else as `answer` does: bytes, no HTTP."""

    def __init__(self) -> None:
        self.answer: Answer = _answer_well
        self.taken = 0
        """Bytes of request bodies."""
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def well(self) -> None:
        """Answer well from now on."""
        self.answer = _answer_well

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with contextlib.suppress(OSError), connection:
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    piece = connection.recv(1 << 16)
                    if not piece:
                        return
                    data += piece
                head, _, data = data.partition(b"\r\n\r\n")
                small = _SMALL.get(head.split(b" ")[1])
                if small is not None:
                    connection.sendall(
                        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%b"
                        % (len(small), small)
                    )
                    continue
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line[15:])
                left = length - len(data)
                data = data[length:] if left <= 0 else b""
                buffer = bytearray(1 << 20)
                while left > 0:
                    count = connection.recv_into(buffer, min(len(buffer), left))
                    if not count:
                        return
                    left -= count
                self.taken += length
                self.answer(connection, head)

    def close(self) -> None:
        self.listener.close()
