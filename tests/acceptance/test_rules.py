"""Rules in the installed program: loaded, reloaded, refused, and carried over a SIGKILL of the daemon."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from daemon import PROGRAM, Daemon, eventually, free_port, simulator

ROOT = Path(__file__).parents[2]
FLAGS = ("--set", "gpu.source=off", "--set", "engine.drain_timeout=1", "--set", "storage.flush_interval=1")
PENDING = """
groups:
  - name: mine
    interval: 1s
    rules:
      - alert: 长时间运行
        expr: vllm_exporter_engine_up == 1
        for: 1h
        labels: {severity: warning}
      - record: mine:tokens:rate10s
        expr: sum(rate(vllm_slo_tokens_total{source="engine"}[10s]))
"""


def alerts(daemon: Daemon) -> dict[str, dict[str, Any]]:
    found = json.loads(daemon.get("/api/v1/alerts"))["data"]["alerts"]
    return {alert["labels"]["alertname"]: alert for alert in found}


def active_at(daemon: Daemon) -> float:
    alert = alerts(daemon).get("长时间运行")
    return datetime.fromisoformat(alert["activeAt"]).timestamp() if alert else 0.0


def query(daemon: Daemon, expression: str) -> list[Any]:
    answer = daemon.get(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
    return list(json.loads(answer)["data"]["result"])


def post_reload(daemon: Daemon) -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{daemon.port}/-/reload", method="POST")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_rule_file_with_mistakes_is_refused_before_any_engine_starts(tmp_path: Path):
    bad = tmp_path / "bad.rules.yml"
    bad.write_text(
        "groups:\n  - name: g\n    rules:\n      - alert: A\n        expr: sum(\n      - record: b\n"
    )
    with Daemon(tmp_path, "run", *FLAGS, "--rules", str(bad), *simulator(free_port())) as daemon:
        assert daemon.process.wait(30) == 2
        log = daemon.log.read_text()
    assert f"{bad}:5:" in log
    assert f"{bad}:6:" in log
    assert "engine_started" not in log


def test_a_reload_brings_new_rules_and_a_bad_file_changes_nothing_and_says_why(tmp_path: Path):
    mine = tmp_path / "mine.rules.yml"
    mine.write_text("groups: []\n")
    files = str(tmp_path / "*.rules.yml")
    with Daemon(tmp_path, "run", *FLAGS, "--rules", files, *simulator(free_port())) as daemon:
        daemon.wait_ready()
        eventually("the shipped rules are at work", lambda: "Watchdog" in alerts(daemon))
        since = alerts(daemon)["Watchdog"]["activeAt"]
        mine.write_text(PENDING, encoding="utf-8")
        daemon.process.send_signal(signal.SIGHUP)
        eventually("the new rule is pending", lambda: "长时间运行" in alerts(daemon))
        mine.write_text(PENDING.replace("sum(rate", "sum(rat"), encoding="utf-8")
        code, text = post_reload(daemon)
        assert code == 500
        assert f"{mine}:" in text
        assert "rat" in text
        assert "长时间运行" in alerts(daemon), "what was loaded goes on"
        assert daemon.value("vllm_exporter_rules_last_reload_success") == 0
        loop = tmp_path / "loop.rules.yml"
        loop.symlink_to(loop.name)
        daemon.process.send_signal(signal.SIGHUP)
        assert post_reload(daemon)[0] == 500
        loop.unlink()
        mine.write_text("groups: []\n")
        assert post_reload(daemon)[0] == 200
        assert "长时间运行" not in alerts(daemon)
        assert alerts(daemon)["Watchdog"]["activeAt"] == since, "what did not change keeps its state"
        assert daemon.process.poll() is None


def test_a_sigkill_of_the_daemon_costs_at_most_ten_seconds_of_samples_and_no_pending_time(tmp_path: Path):
    mine = tmp_path / "mine.rules.yml"
    mine.write_text(PENDING, encoding="utf-8")
    flags = ("--set", "gpu.source=off", "--set", "engine.on_exit=keep", "--rules", str(mine))
    port = free_port()
    engine = subprocess.Popen(
        [*PROGRAM, "simulate", "--port", str(port), "--traffic", "5"], stdout=subprocess.DEVNULL
    )
    try:
        attached = ("--engine-url", f"http://127.0.0.1:{port}")
        with Daemon(tmp_path, "run", *flags[:2], "--rules", str(mine), *attached) as first:
            first.wait_ready()
            eventually("the rule is pending", lambda: "长时间运行" in alerts(first))
            since = active_at(first)
            time.sleep(14)
            killed = time.time()
            first.kill()
        with Daemon(tmp_path, "run", *flags[:2], "--rules", str(mine), *attached, port=first.port) as second:
            second.wait_ready()
            # As in Prometheus: the time that nobody saw counts neither for nor against the alert.
            eventually("the alert goes on from where it stood", lambda: since <= active_at(second) < killed)
            answer = query(second, f"timestamp(vllm_exporter_engine_up @ {killed:.3f})")
            assert answer, "what was there before the kill is there still"
            assert killed - float(answer[0]["value"][1]) <= 10.0
            rate = query(second, "increase(vllm_slo_tokens_total[5m])")
            total = query(second, "vllm_slo_tokens_total")
            assert sum(float(one["value"][1]) for one in rate) <= 1.5 * sum(
                float(one["value"][1]) for one in total
            )
    finally:
        engine.terminate()
        engine.wait()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Debian's prometheus")
def test_promtool_queries_the_daemon_as_it_queries_a_prometheus(tmp_path: Path):
    with Daemon(tmp_path, "run", *FLAGS, *simulator(free_port(), "--traffic", "5")) as daemon:
        daemon.wait_ready()
        url = f"http://127.0.0.1:{daemon.port}"
        eventually("samples", lambda: query(daemon, "count_over_time(vllm_slo_tokens_total[10s]) > 5"))

        def promtool(*arguments: str) -> str:
            done = subprocess.run(
                ["promtool", "query", *arguments], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert "=> 1 @[" in promtool("instant", url, "vllm_exporter_engine_up")
        now = time.time()
        moments = (f"--start={now - 3:.0f}", f"--end={now:.0f}", "--step=1s")
        assert promtool("range", *moments, url, "vllm_slo_tokens_total").count("@[") >= 4
        assert "vllm_exporter_engine_up" in promtool(
            "series", "--match=up", "--match=vllm_exporter_engine_up", url
        )
        assert "sim-8b" in promtool("labels", url, "model_name")


def test_the_query_command_prints_a_table_and_json(tmp_path: Path):
    with Daemon(tmp_path, "run", *FLAGS, *simulator(free_port(), "--traffic", "5")) as daemon:
        daemon.wait_ready()
        eventually("a sample", lambda: query(daemon, "vllm_slo_tokens_total"))

        def ask(*arguments: str) -> str:
            command = [*PROGRAM, "query", *arguments, "--url", f"http://127.0.0.1:{daemon.port}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout

        assert "sim-8b" in ask('sum by (model_name) (vllm_slo_tokens_total{source="engine"})')
        assert json.loads(ask("vllm_exporter_engine_up", "--json"))
        assert "sim-8b" in ask(
            'sum by (model_name) (vllm_slo_tokens_total{source="engine"})', "--range", "10s", "--step", "2s"
        )


def test_the_wheel_carries_the_rule_files(tmp_path: Path):
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {path.name for path in (ROOT / "rules").glob("*.rules.yml")}
    assert shipped
    with zipfile.ZipFile(wheel) as file:
        carried = {Path(name).name for name in file.namelist() if name.startswith("exporter/_rules/")}
    assert shipped <= carried
