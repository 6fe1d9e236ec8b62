"""Where notifications arrive: an HTTP server that keeps what it was sent, and when."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Arrived:
    """One request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float
    """Unix seconds, of its first line."""

    @property
    def names(self) -> list[str]:
        return [alert["labels"]["alertname"] for alert in self.body["alerts"]]


@dataclass
class Sink:
    """Answers everything with `status`."""

    status: int = 200
    arrived: list[Arrived] = field(default_factory=list)

    def __enter__(self) -> Self:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                at = time.time()
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                sink.arrived.append(Arrived(self.path, dict(self.headers), json.loads(body), at))
                self.send_response(sink.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_what: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def about(self, name: str, status: str | None = None) -> list[Arrived]:
        """The requests with an alert of this name, and this status."""
        return [
            one
            for one in list(self.arrived)
            if any(
                alert["labels"]["alertname"] == name and status in (None, alert["status"])
                for alert in one.body["alerts"]
            )
        ]
