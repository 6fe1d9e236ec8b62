"""A stand-in for `vllm serve` that misbehaves on request: stdlib only, one thread, starts in about 50 ms.

Everything is told by flags; `--steer FILE` names a JSON file that is read anew at each request, so that a test changes
the behaviour of a running engine: {"running": 3, "waiting": 2, "wedged": true, "health": 503, "mute": true}.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--model", default="tiny")
parser.add_argument("--say", action="append", default=[], help="a line printed at the start")
parser.add_argument("--load-seconds", type=float, default=0.0, help="time before the port opens")
parser.add_argument("--exit-at-start", type=int, default=None, help="exit with this code instead of serving")
parser.add_argument(
    "--crash-times", type=Path, help="file with a count: crash at the start that often, then serve"
)
parser.add_argument("--exit-after", type=float, default=None, help="exit this long after the port opened")
parser.add_argument("--exit-code", type=int, default=0, help="code of --exit-after")
parser.add_argument("--ignore-term", action="store_true")
parser.add_argument(
    "--orphan", type=Path, help="start a child in a session of its own that ignores TERM; pid here"
)
parser.add_argument("--steer", type=Path)
parser.add_argument("--pidfile", type=Path)
parser.add_argument("--note-term", type=Path, help="write the time of SIGTERM here")
options = parser.parse_args()


def steered() -> dict:
    try:
        return json.loads(options.steer.read_text()) if options.steer else {}
    except (OSError, ValueError):
        return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        now = steered()
        if now.get("mute"):
            time.sleep(600)
        if self.path == "/health":
            self.answer(now.get("health", 200), {})
        elif self.path == "/v1/models":
            self.answer(
                now.get("models", 200), {"object": "list", "data": [{"id": options.model, "object": "model"}]}
            )
        elif self.path == "/metrics":
            page = "".join(
                f'vllm:num_requests_{what}{{engine="0"}} {now.get(what, 0)}.0\n'
                for what in ("running", "waiting")
            )
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page.encode())
        else:
            self.answer(404, {})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        now = steered()
        if now.get("wedged") or now.get("mute"):
            time.sleep(600)
        self.answer(
            now.get("completion", 200), {"choices": [{"text": "x"}], "usage": {"completion_tokens": 1}}
        )


def terminated(signum: int, frame: object) -> None:
    if options.note_term:
        options.note_term.write_text(str(time.time()))
    if not options.ignore_term:
        os._exit(0)


def main() -> None:
    signal.signal(signal.SIGTERM, terminated)
    if options.pidfile:
        with options.pidfile.open("a") as file:
            file.write(f"{os.getpid()}\n")
    if options.orphan:
        sleeper = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", sleeper], start_new_session=True)
        options.orphan.write_text(str(child.pid))
    for line in options.say:
        print(line, flush=True)
    if options.crash_times:
        left = int(options.crash_times.read_text() or 0)
        options.crash_times.write_text(str(max(left - 1, 0)))
        if left > 0:
            os._exit(1)
    if options.exit_at_start is not None:
        os._exit(options.exit_at_start)
    time.sleep(options.load_seconds)
    try:
        server = ThreadingHTTPServer((options.host, options.port), Handler)
    except OSError as error:
        print(f"OSError: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    server.daemon_threads = True
    if options.exit_after is not None:
        threading.Timer(options.exit_after, lambda: os._exit(options.exit_code)).start()
    server.serve_forever()


main()
