"""Alerts that arrive: the installed program, a real receiver, and an engine in trouble."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from daemon import PROGRAM, Daemon, eventually, free_port
from sink import Sink

RULES = """
groups:
  - name: box
    interval: 250ms
    rules:
      - alert: Busy
        expr: vllm_slo_requests_running > 0
        labels: {severity: critical}
        annotations: {summary: "忙", description: "{{ $value }} requests run"}
"""


def supervised(folder: Path, *flags: str, port: int | None = None, traffic: str = "5") -> Daemon:
    return Daemon(
        folder, "run", "--scrape-interval", "0.25", "--set", "gpu.source=off", "--set", "engine.restart_delay=0.5",
        "--set", "engine.drain_timeout=0.5",
        *flags, "--", sys.executable, "-m", "exporter", "simulate", "--port", str(free_port()), "--traffic", traffic,
        port=port,
    )  # fmt: skip


def test_a_crash_reaches_the_webhook_from_the_event_with_its_diagnosis_and_last_lines(tmp_path: Path) -> None:
    with Sink() as sink, supervised(tmp_path, "--webhook", sink.url) as daemon:
        daemon.wait_ready()
        engine = daemon.event("engine_started")["pid"]
        killed = time.time()
        os.kill(engine, signal.SIGKILL)
        crash = eventually("the crash is told", lambda: sink.about("VLLMEngineCrashed"))[0]
        assert crash.at - killed < 10  # `make bench` tells how soon
        body = crash.body
        assert body["version"] == "4"
        assert body["status"] == "firing"
        assert body["groupKey"].endswith(':{alertname="VLLMEngineCrashed"}')
        alert = next(one for one in body["alerts"] if one["labels"]["alertname"] == "VLLMEngineCrashed")
        assert alert["labels"]["severity"] == "critical"
        assert "kill" in alert["annotations"]["diagnosis"].lower()
        assert alert["annotations"]["last_log"]
        assert alert["endsAt"] == "0001-01-01T00:00:00Z"
        assert not sink.about("Watchdog")
        assert 'outcome="delivered"} 0' not in daemon.get()


def test_the_built_in_alerts_arrive_and_are_resolved(tmp_path: Path) -> None:
    (tmp_path / "busy.rules.yml").write_text(RULES, encoding="utf-8")
    with (
        Sink() as sink,
        supervised(
            tmp_path, "--webhook", sink.url, "--rules", str(tmp_path / "busy.rules.yml"),
            "--set", "rules.builtin=false", traffic="3",
        ) as daemon,
    ):  # fmt: skip
        firing = eventually("the alert is told", lambda: sink.about("Busy", "firing"))[0]
        assert firing.body["alerts"][0]["annotations"]["summary"] == "忙"
        assert firing.body["externalURL"] == f"http://127.0.0.1:{daemon.port}"
        listed = json.loads(daemon.get("/api/v2/alerts"))
        assert [one["labels"]["alertname"] for one in listed] == ["Busy"]


def test_an_alert_whose_engine_died_is_held_and_not_told_as_resolved(tmp_path: Path) -> None:
    (tmp_path / "busy.rules.yml").write_text(RULES, encoding="utf-8")
    with (
        Sink() as sink,
        supervised(
            tmp_path, "--webhook", sink.url, "--rules", str(tmp_path / "busy.rules.yml"),
            "--set", "rules.builtin=false", "--set", "engine.restart_delay=60", traffic="50",
        ) as daemon,
    ):  # fmt: skip
        eventually("the alert is told", lambda: sink.about("Busy", "firing"))
        os.kill(daemon.event("engine_started")["pid"], signal.SIGKILL)

        def held() -> bool:
            alerts = json.loads(daemon.get("/api/v2/alerts"))
            return any("no_data" in one["annotations"] for one in alerts)

        eventually("it is held", held)
        time.sleep(1.5)
        last = sink.about("Busy")[-1]
        assert last.body["status"] == "firing"


def test_what_was_told_before_a_kill_is_not_told_again_and_what_ended_meanwhile_is(tmp_path: Path) -> None:
    port = free_port()
    rules = tmp_path / "up.rules.yml"
    rule = RULES.replace("vllm_slo_requests_running > 0", "vllm_exporter_process_threads > LIMIT")
    rule = rule.replace("Busy", "Up")
    rules.write_text(rule.replace("LIMIT", "0"), encoding="utf-8")
    quick = tmp_path / "alertmanager.yml"
    quick.write_text(
        "route: {receiver: all, group_by: [alertname], group_wait: 0s, group_interval: 1s}\nreceivers: [{name: all}]\n"
    )
    flags = (
        "--rules", str(rules), "--set", "rules.builtin=false", "--set", "rules.instance=box",
        "--set", f"notify.file={quick}",
    )  # fmt: skip
    with Sink() as sink:
        with supervised(tmp_path, "--webhook", sink.url, *flags, port=port) as first:
            eventually("the alert is told", lambda: sink.about("Up", "firing"))
            eventually("it is struck off", lambda: first.value("vllm_exporter_notifications_pending") == 0)
            first.kill()
        with supervised(tmp_path, "--webhook", sink.url, *flags, port=port) as second:
            second.wait_ready()
            eventually("it fires again", lambda: '"Up"' in second.get("/api/v1/alerts"))
            time.sleep(1)
            assert len(sink.about("Up")) == 1
            second.kill()
        rules.write_text(rule.replace("LIMIT", "1e9"), encoding="utf-8")
        with supervised(
            tmp_path,
            "--webhook",
            sink.url,
            *flags,
            port=port,
        ):
            eventually("its end is told", lambda: sink.about("Up", "resolved"), 120)


def test_a_test_alert_goes_the_real_way_and_says_what_was_answered(tmp_path: Path) -> None:
    with Sink() as sink:
        command = [*PROGRAM, "test", "notify"]
        environ = {**os.environ, "VLLM_EXPORTER_NOTIFY__WEBHOOKS": sink.url}
        good = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        assert good.returncode == 0, good.stderr
        assert "200" in good.stdout
        assert sink.about("VLLMExporterTest")
        sink.status = 403
        bad = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        assert bad.returncode == 1
        assert "403" in bad.stdout + bad.stderr
        assert sink.url not in bad.stdout + bad.stderr


@pytest.mark.skipif(shutil.which("amtool") is None, reason="no amtool")
def test_amtool_sees_and_silences_the_alerts_of_the_daemon(tmp_path: Path) -> None:
    with Sink() as sink, supervised(tmp_path, "--webhook", sink.url) as daemon:
        daemon.wait_ready()

        def amtool(*words: str) -> str:
            command = ["amtool", f"--alertmanager.url=http://127.0.0.1:{daemon.port}", *words]
            return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

        eventually("Watchdog is listed", lambda: "Watchdog" in amtool("alert", "query"))
        silence = amtool(
            "silence", "add", "alertname=Watchdog", "--comment", "测试", "--author", "me"
        ).strip()
        assert "Watchdog" not in amtool("alert", "query")
        assert silence in amtool("silence", "query")
        amtool("silence", "expire", silence)
        assert "Watchdog" in amtool("alert", "query")


def test_a_webhook_is_shown_nowhere(tmp_path: Path) -> None:
    with Sink(status=500) as sink:
        secret = f"{sink.url}?token=hunter2"
        with supervised(tmp_path, "--webhook", secret) as daemon:
            daemon.wait_ready()
            os.kill(daemon.event("engine_started")["pid"], signal.SIGKILL)
            eventually(
                "it failed", lambda: daemon.value("vllm_exporter_notifications_total", outcome="failed")
            )
            for path in (
                "/metrics",
                "/api/v2/status",
                "/api/v2/receivers",
                "/api/v1/status/config",
                "/api/v1/notifications",
            ):
                assert "hunter2" not in daemon.get(path), path
            assert "hunter2" not in daemon.log.read_text(encoding="utf-8")
