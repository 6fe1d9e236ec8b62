"""A real Alertmanager, and a place where webhooks arrive: ours beside its own."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from exporter.notify.model import Alert

PROGRAM = shutil.which("prometheus-alertmanager")
AMTOOL = shutil.which("amtool")
PATIENCE_SECONDS = 30.0


class Hook(NamedTuple):
    """One POST as it arrived; `at` in monotonic seconds, when its first byte was read."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def payload(self) -> Any:
        """The body with the order of its keys: objects are lists of pairs."""
        return json.loads(self.body, object_pairs_hook=list)


class Sink:
    """A server in a thread that says 200 to everything and keeps what came."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hooks: list[Hook] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                at = time.monotonic()
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sink._take(Hook(self.path, dict(self.headers.items()), body, at))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, path: str) -> str:
        """Where a path of it is."""
        return f"http://127.0.0.1:{self.port}{path}"

    def at(self, path: str) -> list[Hook]:
        """What came to a path, in that order."""
        with self._lock:
            return [hook for hook in self._hooks if hook.path == path]

    def _take(self, hook: Hook) -> None:
        with self._lock:
            self._hooks.append(hook)


class Alertmanager:
    """One run of it on a free port, alone in its cluster; ended at last, whatever the test did."""

    def __init__(self, folder: Path, config: str, *, external_url: str = "") -> None:
        assert PROGRAM is not None
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "alertmanager.yml").write_text(config, encoding="utf-8")
        self._log = (folder / "alertmanager.log").open("w+")
        self._process = subprocess.Popen(
            [
                PROGRAM,
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                f"--web.external-url={external_url or self.url}",
                "--web.route-prefix=/",
                "--cluster.listen-address=",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=self._log,
            cwd=folder,
        )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if self.ask("GET", "/-/ready")[0] == 200:
                    return self
            except OSError:
                pass
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                log = self._log.read()
                self.__exit__(None, None, None)
                raise AssertionError(f"Alertmanager is not ready:\n{log}")
            time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """The answer of its API: the code and the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, path, text, {"Content-Type": "application/json"})
            with connection.getresponse() as response:
                return response.status, response.read()
        finally:
            connection.close()

    def push(self, alerts: Sequence[Alert]) -> None:
        """As Prometheus posts them."""
        status, answer = self.ask("POST", "/api/v2/alerts", [posted(alert) for alert in alerts])
        assert status == 200, answer

    def silence(self, *matchers: dict[str, Any], starts_at: float, ends_at: float) -> str:
        """Add a silence; gives its number."""
        asked = {
            "matchers": list(matchers),
            "startsAt": rfc3339(starts_at),
            "endsAt": rfc3339(ends_at),
            "createdBy": "test",
            "comment": "a test",
        }
        status, answer = self.ask("POST", "/api/v2/silences", asked)
        assert status == 200, answer
        return str(json.loads(answer)["silenceID"])

    def expire(self, silence: str) -> None:
        """End a silence now."""
        status, answer = self.ask("DELETE", f"/api/v2/silence/{silence}")
        assert status == 200, answer


def amtool(url: str, *arguments: str) -> str:
    """What Debian's amtool prints when it is asked something of an Alertmanager, or of what says that it is one."""
    assert AMTOOL is not None
    done = subprocess.run(
        [AMTOOL, f"--alertmanager.url={url}", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        env={"HOME": "/nonexistent", "TZ": "UTC"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def posted(alert: Alert) -> dict[str, Any]:
    """An alert as `/api/v2/alerts` takes it."""
    found: dict[str, Any] = {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "startsAt": rfc3339(alert.starts_at),
        "generatorURL": alert.generator_url,
    }
    if alert.ends_at is not None:
        found["endsAt"] = rfc3339(alert.ends_at)
    return found


def rfc3339(at: float) -> str:
    """A time in milliseconds, which is as fine as Alertmanager's API reads it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
