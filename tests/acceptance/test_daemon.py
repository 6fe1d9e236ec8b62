"""The daemon over the built-in simulator, from its command line to its metrics page."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from daemon import PROGRAM, Daemon, eventually, free_port, gone, simulator

QUICK = ("--set", "engine.drain_timeout=1", "--set", "engine.restart_delay=0.2")


def test_the_demo_shows_everything_within_a_minute_and_leaves_nothing_behind(tmp_path: Path):
    with Daemon(tmp_path, "demo", "--traffic", "5") as daemon:
        daemon.wait_ready()
        eventually(
            "requests ended", lambda: (daemon.value("vllm_slo_requests_total", outcome="success") or 0) > 3
        )
        seen = {"source": "gateway", "outcome": "success"}  # the demo's clients come through the gateway
        eventually("seen", lambda: (daemon.value("vllm_slo_requests_total", **seen) or 0) > 3)
        for openmetrics in (False, True):
            families = daemon.families(openmetrics=openmetrics)
            assert "vllm:time_to_first_token_seconds" in families
            assert "vllm_slo_time_to_first_token_seconds" in families
            assert "vllm_ttft_p95" in families
            assert "nvidia_gpu_memory_used_bytes" in families
            assert "vllm_exporter_engine_up" in families
            assert "vllm_exporter_process_resident_memory_bytes" in families
            assert not [name for name in families if name.endswith("_created")]
        assert daemon.value("nvidia_gpu_info", simulated="true") == 1
        engine = int(daemon.event("engine_started")["pid"])
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(30) == 0
        assert gone(engine)


def test_the_demos_clients_outlive_its_engine_and_not_the_demo(tmp_path: Path):
    with Daemon(tmp_path, "demo", "--traffic", "20", *QUICK) as daemon:
        daemon.wait_ready()
        seen = {"source": "gateway", "outcome": "success"}
        eventually("traffic", lambda: (daemon.value("vllm_slo_requests_total", **seen) or 0) > 5)
        os.kill(int(daemon.event("engine_started")["pid"]), signal.SIGKILL)
        daemon.event("engine_ready", 2)
        before = daemon.value("vllm_slo_requests_total", **seen) or 0
        eventually(
            "traffic again", lambda: (daemon.value("vllm_slo_requests_total", **seen) or 0) > before + 5
        )
        children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
        daemon.kill()
        eventually("all gone", lambda: all(gone(int(child)) for child in children))


def test_derived_totals_never_go_back_when_the_engine_is_killed_again_and_again(tmp_path: Path):
    port = free_port()
    flags = ("--set", "gpu.source=off", "--set", "scrape.interval=0.2", *QUICK)
    names = ("vllm_slo_tokens_total", "vllm_slo_requests_total", "vllm_slo_time_to_first_token_seconds_count")
    with Daemon(tmp_path, "run", *flags, *simulator(port, "--traffic", "10")) as daemon:
        before = dict.fromkeys(names, 0.0)
        for life in range(1, 4):
            daemon.wait_ready()
            start = before["vllm_slo_tokens_total"]
            eventually("traffic", lambda at=start: (daemon.value("vllm_slo_tokens_total") or 0) > at + 50)
            engine = int(daemon.event("engine_started", life)["pid"])
            before = {name: daemon.value(name) or 0 for name in names}
            os.kill(engine, signal.SIGKILL)
            eventually("counted", lambda n=life: daemon.value("vllm_exporter_engine_restarts_total") == n)
            now = {name: daemon.value(name) or 0 for name in names}
            assert all(now[name] >= before[name] for name in names), (before, now)
        assert daemon.value("vllm_exporter_engine_restarts_total", reason="killed") == 3


def test_the_engines_series_are_absent_while_it_is_down_and_the_state_says_why(tmp_path: Path):
    port = free_port()
    flags = (
        "--set",
        "gpu.source=off",
        "--set",
        "engine.restart_delay=30",
        "--set",
        "engine.restart_delay_max=30",
    )
    with Daemon(tmp_path, "run", *flags, *simulator(port)) as daemon:
        daemon.wait_ready()
        eventually("a page", lambda: daemon.value("vllm:num_requests_running") is not None)
        os.kill(int(daemon.event("engine_started")["pid"]), signal.SIGKILL)
        eventually("backoff", lambda: daemon.value("vllm_exporter_engine_state", state="backoff") == 1)
        assert daemon.value("vllm:num_requests_running") is None
        eventually("gauges absent", lambda: daemon.value("vllm_slo_requests_running") is None)
        assert daemon.value("vllm_slo_tokens_total") is not None
        assert daemon.status("/-/ready") == 503
        assert daemon.status("/-/healthy") == 200
        eventually("down-time counts as error", lambda: (daemon.value("vllm_slo_error_ratio_sum") or 0) >= 2)


def test_a_killed_daemon_that_keeps_its_engine_finds_it_again_with_all_its_totals(tmp_path: Path):
    port = free_port()
    run = (
        "run",
        "--on-exit",
        "keep",
        "--set",
        "gpu.source=off",
        "--set",
        "gateway.mode=off",
        *QUICK,
        *simulator(port, "--engine-processes", "1"),
    )
    with Daemon(tmp_path, *run) as daemon:
        daemon.wait_ready()
        engine = int(daemon.event("engine_started")["pid"])
        for _ in range(3):
            complete(port, tokens=20)
        eventually("tokens", lambda: daemon.value("vllm_slo_tokens_total", direction="output") == 60)
        daemon.kill()
    assert not gone(engine)
    complete(port, tokens=7)
    with Daemon(tmp_path, *run) as daemon:
        daemon.wait_ready()
        assert int(daemon.event("engine_adopted")["pid"]) == engine
        eventually("tokens", lambda: daemon.value("vllm_slo_tokens_total", direction="output") == 67)
        assert daemon.value("vllm:generation_tokens_total") == 67
        assert not daemon.value("vllm_exporter_engine_restarts_total")
        os.kill(engine, signal.SIGKILL)
        eventually("restarted", lambda: daemon.value("vllm_exporter_engine_restarts_total") == 1)
        assert daemon.value("vllm_exporter_engine_crashes_total") == 1
        daemon.wait_ready()
        successor = int(daemon.event("engine_started")["pid"])
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(30) == 0
    assert not gone(successor), "on_exit = keep means keep"
    # A daemon that is to stop its engine takes over and ends it.
    stop = tuple("stop" if word == "keep" else word for word in run)
    with Daemon(tmp_path, *stop) as daemon:
        daemon.wait_ready()
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(30) == 0
    assert gone(successor)


@pytest.mark.parametrize("on_exit", ["keep", "stop"])
def test_no_total_that_was_ever_shown_goes_back_when_the_daemon_is_killed(tmp_path: Path, on_exit: str):
    """The saved totals were ten seconds old, and Prometheus took each fall for a reset and counted all again."""
    port = free_port()
    quick = ("--set", "gpu.source=off", "--set", "scrape.interval=0.1", *QUICK)
    run = ("run", "--on-exit", on_exit, *quick, *simulator(port, "--traffic", "20"))
    shown: dict[str, float] = {}

    def look(daemon: Daemon) -> None:
        for family in daemon.families().values():
            for sample in family.samples:
                if sample.name.startswith(("vllm_slo_", "vllm_exporter_engine_")) and sample.name.endswith(
                    ("_total", "_count", "_bucket", "_sum")
                ):
                    key = f"{sample.name}{sorted(sample.labels.items())}"
                    assert sample.value >= shown.get(key, 0), key
                    shown[key] = sample.value

    for _ in range(3):
        with Daemon(tmp_path, *run) as daemon:
            eventually("serving", lambda at=daemon: at.status("/-/healthy") == 200)
            before = sum(shown.values())
            eventually(
                "totals moved", lambda at=daemon, was=before: (look(at), sum(shown.values()) > was + 100)[1]
            )
            look(daemon)
            daemon.kill()
    with Daemon(tmp_path, *("stop" if word == "keep" else word for word in run)) as daemon:
        daemon.wait_ready()
        look(daemon)


def test_a_killed_daemon_that_stops_its_engine_takes_it_along(tmp_path: Path):
    port = free_port()
    with Daemon(
        tmp_path, "run", "--set", "gpu.source=off", *simulator(port, "--engine-processes", "2")
    ) as daemon:
        daemon.wait_ready()
        engine = int(daemon.event("engine_started")["pid"])
        family = [engine, *children_of(engine)]
        assert len(family) == 3
        daemon.kill()
        eventually("all gone", lambda: all(gone(pid) for pid in family), seconds=20)


def test_a_failure_that_a_retry_cannot_mend_is_named_and_not_retried(tmp_path: Path):
    port = free_port()
    with Daemon(
        tmp_path, "run", "--set", "gpu.source=off", *simulator(port, "--fail", "kv-cache-too-small")
    ) as daemon:
        eventually("failed", lambda: daemon.value("vllm_exporter_engine_state", state="failed") == 1)
        families = daemon.families()
        (failure,) = families["vllm_exporter_engine_last_failure_info"].samples
        assert failure.labels == {"reason": "kv_cache_too_small"}
        assert not daemon.value("vllm_exporter_engine_restarts_total")
        told = daemon.event("engine_failed")
        assert "--max-model-len" in json.dumps(told)
        assert daemon.process.poll() is None, "the metrics that tell of it stay up"


@pytest.mark.parametrize("how", ["closed pipe", "full disk"])
def test_a_log_that_nobody_takes_ends_neither_the_daemon_nor_its_obedience(tmp_path: Path, how: str):
    port, engine_port = free_port(), free_port()
    reading, writing = os.pipe() if how == "closed pipe" else (None, os.open("/dev/full", os.O_WRONLY))
    command = (*PROGRAM, "run", "--listen", f"127.0.0.1:{port}", "--data-dir", str(tmp_path / "data"))
    process = subprocess.Popen(
        [*command, "--set", "gpu.source=off", *QUICK, *simulator(engine_port)], stderr=writing
    )
    os.close(writing)
    daemon = Daemon.around(process, port, tmp_path / "none.log")
    with daemon:
        daemon.wait_ready()
        if reading is not None:
            os.close(reading)
        os.kill(children_of(process.pid)[0], signal.SIGKILL)
        eventually("restarted", lambda: daemon.value("vllm_exporter_engine_restarts_total") == 1)
        daemon.wait_ready()
        assert (daemon.value("vllm_exporter_log_lines_lost_total") or 0) > 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_key_from_the_settings_is_masked_wherever_the_engine_prints_it(tmp_path: Path):
    key = tmp_path / "key"
    key.write_text("K3y-from-a-file")
    script = ("sh", "-c", f"cat {key}; echo; exit 3")
    flags = (
        "--set",
        f"engine.api_key_file={key}",
        "--set",
        "engine.crash_limit=1",
        "--set",
        "gpu.source=off",
    )
    with Daemon(tmp_path, "run", *flags, "--", *script) as daemon:
        eventually("failed", lambda: daemon.value("vllm_exporter_engine_state", state="failed") == 1)
        eventually("masked", lambda: any("***" in str(event) for event in daemon.events()))
        for shown in (daemon.log.read_text(), daemon.get(), str(daemon.body("/-/ready"))):
            assert "K3y-from-a-file" not in shown


def test_a_model_name_of_quotes_newlines_and_emoji_is_escaped_in_every_output(tmp_path: Path):
    name = 'a"b\\c\nd{e=",}😀通义'
    port = free_port()
    run = ("run", "--set", "gpu.source=off", *QUICK, *simulator(port, "--served-model-name", name))
    with Daemon(tmp_path, *run) as daemon:
        daemon.wait_ready()
        complete(port, tokens=5, model=name)
        eventually(
            "derived", lambda: daemon.value("vllm_slo_tokens_total", model_name=name, direction="output") == 5
        )
        for openmetrics in (False, True):
            samples = daemon.families(openmetrics=openmetrics)["vllm_slo_requests_running"].samples
            assert [sample.labels["model_name"] for sample in samples] == [name]
        assert json.loads(daemon.get("/-/ready", Accept="application/json"))["models"] == [name]
        daemon.event("engine_ready")


def test_attaching_to_what_is_no_engine_says_so_and_keeps_trying(tmp_path: Path):
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with Daemon(tmp_path, "run", "--engine-url", url, "--set", "gpu.source=off") as daemon:
            reason = {"reason": "content_type"}
            eventually(
                "refused", lambda: (daemon.value("vllm_exporter_scrape_errors_total", **reason) or 0) >= 2
            )
            assert daemon.status("/-/ready") == 503
            failures = [event for event in daemon.events() if event["event"] == "scrape_failed"]
            assert len(failures) == 1, "told once, not each second"
            assert "is it an engine's address?" in failures[0]["error"]
    finally:
        server.shutdown()
        server.server_close()


def test_an_engine_that_comes_later_is_found(tmp_path: Path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with Daemon(tmp_path, "run", "--engine-url", url, "--set", "gpu.source=off") as daemon:
        eventually(
            "tried", lambda: (daemon.value("vllm_exporter_scrape_errors_total", reason="connect") or 0) >= 1
        )
        assert daemon.value("vllm_exporter_engine_up") == 0
        (tmp_path / "other").mkdir()
        with Daemon(tmp_path / "other", "run", "--set", "gpu.source=off", *QUICK, *simulator(port)) as other:
            other.wait_ready()
            daemon.wait_ready()
            eventually("a page", lambda: daemon.value("vllm:num_requests_running") is not None)
            assert daemon.value("vllm_exporter_engine_info", mode="attached") == 1
        eventually("away", lambda: daemon.value("vllm_exporter_engine_up") == 0)
        assert daemon.value("vllm:num_requests_running") is None


@pytest.mark.parametrize("signals", [1, 2])
def test_a_stop_waits_for_running_requests_and_a_second_one_does_not(tmp_path: Path, signals: int):
    port = free_port()
    run = ("run", "--set", "gpu.source=off", "--set", "engine.drain_timeout=60", *simulator(port))
    with Daemon(tmp_path, *run) as daemon:
        daemon.wait_ready()
        answers: list[str] = []

        def ask() -> None:
            try:
                answers.append(complete(port, tokens=250))
            except OSError as error:
                answers.append(repr(error))

        client = threading.Thread(target=ask)
        client.start()
        eventually("running", lambda: (daemon.value("vllm:num_requests_running") or 0) == 1)
        for _ in range(signals):
            daemon.process.send_signal(signal.SIGTERM)
            daemon.event("engine_draining")
            time.sleep(0.2)
        assert daemon.process.wait(90) == 0
        client.join(30)
        finished = '"completion_tokens": 250' in answers[0] or '"completion_tokens":250' in answers[0]
        assert finished == (signals == 1), answers


def complete(port: int, *, tokens: int, model: str = "sim-8b") -> str:
    body = {"model": model, "prompt": "你好", "max_tokens": tokens, "ignore_eos": True}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.read().decode())


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
