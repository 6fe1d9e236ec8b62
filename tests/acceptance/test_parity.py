"""The daemon beside a real Prometheus that scrapes it with the same rule files, through some minutes of trouble."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from daemon import Daemon, eventually, free_port, simulator

from exporter.alerting.durations import parse_duration

RULES = Path(__file__).parents[2] / "rules"
QUICK = """
groups:
  - name: quick
    interval: 1s
    rules:
      - record: quick:errors:ratio_rate10s
        expr: |
          sum(rate(vllm_slo_requests_total{source="engine",outcome="engine_error"}[10s]))
          / sum(rate(vllm_slo_requests_total{source="engine",outcome=~"engine_error|success"}[10s]))
      - alert: QuickErrors
        expr: quick:errors:ratio_rate10s > 0.2
        for: 2s
        keep_firing_for: 3s
        labels: {severity: critical, team: 推理}
        annotations: {summary: "{{ $value | humanizePercentage }} 的请求失败"}
      - alert: QuickDown
        expr: vllm_exporter_engine_up == 0
        for: 4s
        labels: {severity: critical}
      - alert: QuickAbsent
        expr: absent(vllm:num_requests_running)
        for: 2s
      - alert: QuickSlow
        expr: histogram_quantile(0.95, sum by (le) (rate(vllm_slo_time_to_first_token_seconds_bucket[10s]))) > 0.3
        for: 2s
      - alert: QuickRestart
        expr: increase(vllm_exporter_engine_restarts_total{reason="killed"}[20s]) > 0
      - alert: QuickState
        expr: vllm_exporter_engine_state == 1
        for: 3s
        labels: {state: "{{ $labels.state }}"}
"""
SKEW_SECONDS = 3
"""Prometheus scrapes up to a second after us, evaluates at its own moments, and this machine may be busy."""

pytestmark = [
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's prometheus"),
    pytest.mark.timeout(400),
]


@contextlib.contextmanager
def prometheus(folder: Path, target: int, rule_files: list[Path]) -> Iterator[int]:
    """A Prometheus that scrapes a port on loopback each second; gives its own port."""
    port = free_port()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "5s"},
        "rule_files": [str(path) for path in rule_files],
        "scrape_configs": [
            {"job_name": "vllm-exporter", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )  # fmt: skip
    try:
        eventually("Prometheus is ready", lambda: answers(port))
        yield port
    finally:
        process.terminate()
        process.wait(20)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2):
        return True
    return False


def ask(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=20) as answer:
        return json.load(answer)["data"]


Timelines = dict[str, dict[int, str]]
"""For each alert its state at each second in which it was active."""


class Watcher:
    """Asks a server for its active alerts each second, on a thread; `alerts` are by their labels."""

    def __init__(self, port: int) -> None:
        self.alerts: Timelines = {}
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _watch(self) -> None:
        while not self._over.wait(1.0 - time.time() % 1.0):
            moment, alerts = round(time.time()), []
            with contextlib.suppress(OSError):  # it has just started
                alerts = ask(self._port, "alerts")["alerts"]
            for alert in alerts:
                key = json.dumps(alert["labels"], sort_keys=True, ensure_ascii=False)
                self.alerts.setdefault(key, {})[moment] = alert["state"]


def disagreements(
    ours: Timelines, theirs: Timelines, start: int, end: int, intervals: dict[str, float]
) -> list[str]:
    """Where a state on one side is on the other neither then nor within an interval of the rule's group."""
    problems = []
    for key in sorted(ours.keys() | theirs.keys()):
        interval = int(intervals[json.loads(key)["alertname"]])
        margin = interval + SKEW_SECONDS
        for name, one, other in (("ours", ours, theirs), ("theirs", theirs, ours)):
            mine, its = one.get(key, {}), other.get(key, {})
            for moment in range(start + margin, end - margin):
                state = mine.get(moment, "inactive")
                if any(
                    mine.get(moment + step, "inactive") != state for step in range(-interval, interval + 1)
                ):
                    continue  # what does not last for an interval may lie between the other's evaluations
                near = {its.get(moment + step, "inactive") for step in range(-margin, margin + 1)}
                if state not in near:
                    problems.append(f"{key} at +{moment - start} s: {name} {state}, the other {near}")
                    break
    return problems


def fault(port: int, **faults: object) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/sim/faults",
        data=json.dumps(faults).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10):
        pass


def engine_pid(daemon: Daemon, life: int) -> int:
    eventually("the engine starts", lambda: daemon.log.read_text().count('"engine_started"') >= life, 120)
    return int(daemon.event("engine_started", life)["pid"])


def test_every_alert_is_in_the_same_state_as_in_a_prometheus_within_one_interval(tmp_path: Path):
    quick = tmp_path / "quick.rules.yml"
    quick.write_text(QUICK, encoding="utf-8")
    files = [*sorted(RULES.glob("*.rules.yml")), quick]
    intervals = {
        rule["alert"]: parse_duration(str(group.get("interval", "5s")))
        for file in files
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    engine_port = free_port()
    flags = (
        "--set", "gpu.source=simulated", "--set", "gateway.routes=/sim/faults",
        "--set", "engine.restart_delay=80", "--set", "engine.restart_delay_max=80", "--set", "engine.drain_timeout=1",
        "--set", "engine.on_hang=report", "--rules", str(quick),
    )  # fmt: skip
    traffic = ("--traffic", "15", "--max-num-seqs", "8")
    with (
        Daemon(tmp_path, "run", *flags, *simulator(engine_port, *traffic)) as daemon,
        prometheus(tmp_path, daemon.port, files) as peer,
        Watcher(daemon.port) as ours,
        Watcher(peer) as theirs,
    ):
        daemon.wait_ready()
        time.sleep(12)  # what either saw before the other did is forgotten
        start = int(time.time())
        time.sleep(8)
        fault(engine_port, error_rate=0.9)  # so many that no ratio comes near its threshold later on
        time.sleep(12)
        fault(engine_port, error_rate=0.0, slow=30.0)
        time.sleep(10)
        fault(engine_port, slow=1.0)
        time.sleep(10)
        os.kill(engine_pid(daemon, 1), signal.SIGKILL)
        second = engine_pid(daemon, 2)
        daemon.wait_ready()
        time.sleep(5)
        os.kill(second, signal.SIGSTOP)
        time.sleep(10)
        os.kill(second, signal.SIGCONT)
        time.sleep(12)
        end = int(time.time()) - 1
    fired = {
        json.loads(key)["alertname"] for key, states in ours.alerts.items() if "firing" in states.values()
    }
    assert {"QuickErrors", "QuickDown", "QuickAbsent", "QuickSlow", "QuickRestart", "QuickState"} <= set(
        fired
    )
    assert {"VLLMEngineDown", "Watchdog"} <= set(fired)
    assert not disagreements(ours.alerts, theirs.alerts, start, end, intervals)
