"""Record what a real vLLM prints, into `captures/`: `python capture.py VLLM MODEL [NAME…]`.

The captures feed the tests of the log reader, the diagnosis and the simulator. Each is standard output and error merged
into a file, as the supervisor gets them, with progress bars' carriage returns kept; names of the machine that recorded
them are replaced. Run it again for a new vLLM release, and read the difference. Needs only the standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CAPTURES = Path(__file__).parent / "captures"
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "PYTHONUNBUFFERED": "1",
}
START_LIMIT = 240.0
STOP_LIMIT = 20.0


class Server:
    """One vLLM under recording."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, output: Path) -> None:
        self.process = process
        self.port = port
        self.output = output

    def get(self, path: str, timeout: float = 5.0) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=timeout) as answer:
            return answer.read()

    def complete(self, tokens: int, timeout: float = 30.0) -> str:
        body = {"model": "tiny-qwen", "prompt": "hello", "max_tokens": tokens, "ignore_eos": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return f"{answer.status} {answer.read().decode()}"
        except urllib.error.HTTPError as error:
            return f"{error.code} {error.read().decode()}"
        except OSError as error:
            return repr(error)

    def wait_ready(self) -> None:
        until = time.monotonic() + START_LIMIT
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError):
                self.get("/health")
                return
            time.sleep(0.2)
        raise RuntimeError(f"not ready: {self.output.read_bytes()[-2000:].decode(errors='replace')}")

    def wait_output(self, text: bytes) -> None:
        until = time.monotonic() + START_LIMIT
        while text not in self.output.read_bytes():
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError(f"never printed {text!r}")
            time.sleep(0.05)

    def kill_named(self, name: str, signum: int = signal.SIGKILL) -> None:
        """Signal the processes of the tree whose title contains `name`."""
        for pid in tree(self.process.pid):
            with contextlib.suppress(OSError):
                if name in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
                    os.kill(pid, signum)


def tree(root: int) -> list[int]:
    """`root` and its descendants, and every process of its session (orphans keep it)."""
    parents: dict[int, int] = {}
    session = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            parents[int(entry.name)] = int(fields[1])
            if int(fields[3]) == root:
                session.append(int(entry.name))
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid and child not in found]
    return found + [pid for pid in session if pid not in found]


@dataclass(frozen=True)
class Scenario:
    name: str
    flags: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    act: Callable[[Server], None] | None = None  # once it runs; without it the program must end by itself
    model: str | None = None


def serve_and_stop(server: Server) -> None:
    server.wait_ready()
    print("  ", server.complete(16)[:200])
    print("  ", server.complete(5000)[:200])
    time.sleep(11)
    server.process.send_signal(signal.SIGTERM)


def stop_while_loading(server: Server) -> None:
    server.wait_output(b"Loading safetensors checkpoint shards")
    server.process.send_signal(signal.SIGTERM)


def stop_before_engine(server: Server) -> None:
    server.wait_output(b"non-default args")
    server.process.send_signal(signal.SIGTERM)


def under_load(server: Server, hurt: Callable[[], None]) -> None:
    """Two long requests run when `hurt` is called, and one is sent afterwards."""
    server.wait_ready()
    answers: list[str] = []
    clients = [
        threading.Thread(target=lambda: answers.append(server.complete(900)), daemon=True) for _ in range(2)
    ]
    for client in clients:
        client.start()
    time.sleep(0.15)
    hurt()
    for client in clients:
        client.join(40)
    answers.append(server.complete(1))
    for answer in answers:
        print("  ", answer[:300])


def kill_engine_core(server: Server) -> None:
    under_load(server, lambda: server.kill_named("EngineCore"))


def kill_worker(server: Server) -> None:
    under_load(server, lambda: server.kill_named("Worker_TP1"))


def kill_api_server(server: Server) -> None:
    under_load(server, server.process.kill)


def kill_engine_core_in_load(server: Server) -> None:
    server.wait_output(b"Starting to load model")
    server.kill_named("EngineCore")


def freeze_worker(server: Server) -> None:
    under_load(server, lambda: server.kill_named("Worker_TP1", signal.SIGSTOP))
    time.sleep(40)


def saturate(server: Server) -> None:
    server.wait_ready()
    clients = [threading.Thread(target=server.complete, args=(300,), daemon=True) for _ in range(64)]
    for client in clients:
        client.start()
    time.sleep(12)
    for client in clients:
        client.join(30)
    server.process.send_signal(signal.SIGINT)


SCENARIOS = (
    Scenario("ready", act=serve_and_stop),
    Scenario("unknown-flag", ("--no-such-flag",)),
    Scenario("invalid-value", ("--gpu-memory-utilization", "lots")),
    Scenario("model-path-missing", model="/models/absent"),
    Scenario("model-not-cached", model="example-org/absent-model"),
    Scenario("model-len-too-large", ("--max-model-len", "999999")),
    Scenario("tensor-parallel-indivisible", ("--tensor-parallel-size", "3")),
    Scenario("port-taken", ("--port", "taken")),
    Scenario("kv-cache-too-small", ("--max-model-len", "2000000"), (("VLLM_ALLOW_LONG_MAX_MODEL_LEN", "1"),)),
    Scenario("stopped-while-loading", act=stop_while_loading),
    Scenario("stopped-before-engine", act=stop_before_engine),
    Scenario("saturated", act=saturate),
    Scenario("engine-core-killed", act=kill_engine_core),
    Scenario("engine-core-killed-in-load", act=kill_engine_core_in_load),
    Scenario("worker-killed", ("--tensor-parallel-size", "2"), act=kill_worker),
    Scenario(
        "worker-frozen",
        ("--tensor-parallel-size", "2"),
        (("VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS", "20"),),
        act=freeze_worker,
    ),
    Scenario("api-server-killed", act=kill_api_server),
    Scenario("two-api-servers", ("--api-server-count", "2"), act=serve_and_stop),
    Scenario("log-level-debug", environment=(("VLLM_LOGGING_LEVEL", "DEBUG"),), act=serve_and_stop),
)


def neutral(text: bytes, replacements: dict[str, str]) -> bytes:
    for name in sorted(replacements, key=len, reverse=True):
        text = text.replace(name.encode(), replacements[name].encode())
    text = re.sub(rb"/[^\s'\"]*/lib/python3\.\d+/(?!site-packages)", b"/usr/lib/python3/", text)
    text = re.sub(rb"/tmp/[0-9a-f]{8}-[0-9a-f-]{27}", b"/tmp/00000000-0000-0000-0000-000000000000", text)
    return re.sub(rb"\b(?!127\.|0\.0\.)(?:10|172|192|100|169)\.\d+\.\d+\.\d+\b", b"192.0.2.1", text)


def record(scenario: Scenario, vllm: Path, model: Path) -> None:
    flags = list(scenario.flags)
    holder = socket.create_server(("127.0.0.1", 0))
    port = holder.getsockname()[1]
    if "taken" in flags:
        flags[flags.index("taken")] = str(port)
    else:
        holder.close()
        flags += ["--port", str(port)]
    if "--max-model-len" not in flags:
        flags += ["--max-model-len", "1024"]
    argv = [
        str(vllm), "serve", scenario.model or str(model), "--dtype", "float32", "--served-model-name", "tiny-qwen",
        "--host", "127.0.0.1", *flags,
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        with output.open("ab") as file:
            started = time.monotonic()
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                cwd=folder,
                env={**os.environ, **ENVIRONMENT, **dict(scenario.environment)},
            )
        server = Server(process, port, output)
        members: set[int] = {process.pid}
        try:
            if scenario.act is not None:
                scenario.act(server)
                members |= set(tree(process.pid))
                code: object = process.wait(STOP_LIMIT)
            else:
                code = process.wait(START_LIMIT)
        except subprocess.TimeoutExpired:
            code = "none, had to be killed"
        finally:
            time.sleep(2)
            members |= set(tree(process.pid))
            for pid in members - {process.pid}:
                with contextlib.suppress(OSError):
                    if os.getsid(pid) == process.pid:
                        os.kill(pid, signal.SIGKILL)
            process.kill()
            process.wait()
            holder.close()
        elapsed = time.monotonic() - started
        replacements = {
            str(vllm.parent.parent.resolve()): "/opt/vllm",
            str(vllm.parent.parent): "/opt/vllm",
            str(model): "/models/tiny",
            str(model.resolve()): "/models/tiny",
            folder: "/srv",
            socket.gethostname(): "host",
            str(Path.home()): "/home/vllm",
            str(port): "8000",
        }
        CAPTURES.mkdir(exist_ok=True)
        (CAPTURES / f"{scenario.name}.log").write_bytes(neutral(output.read_bytes(), replacements))
    flags = ["8000" if flag == str(port) else flag for flag in flags]
    print(f"{scenario.name}: exit {code} after {elapsed:.1f} s: {' '.join(flags)}", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} VLLM MODEL [NAME…]")
    wanted = sys.argv[3:]
    for scenario in SCENARIOS:
        if not wanted or scenario.name in wanted:
            record(scenario, Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
