"""Alerts of the whole daemon over restarts and reloads; its engine does not exist, and need not."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from daemon import Daemon, eventually, free_port

RULES = """
groups:
  - name: box
    interval: 500ms
    rules:
      - alert: Slow
        expr: vllm_exporter_engine_up == 0
        for: {wait}
        labels: {{severity: warning}}
        annotations: {{summary: "{summary}"}}
"""


def daemon(folder: Path) -> Daemon:
    return Daemon(
        folder, "run", "--engine-url", f"http://127.0.0.1:{free_port()}", "--scrape-interval", "0.25",
        "--rules", str(folder / "rules.yml"),
        "--set", "rules.builtin=false", "--set", "rules.for_grace_period=0", "--set", "gpu.source=off",
        "--set", "storage.flush_interval=0.2", "--set", "rules.instance=box",
    )  # fmt: skip


def write(folder: Path, wait: str, summary: str = "down") -> None:
    (folder / "rules.yml").write_text(RULES.format(wait=wait, summary=summary))


def rule(one: Daemon) -> dict[str, Any]:
    groups = json.loads(one.get("/api/v1/rules"))["data"]["groups"]
    return dict(groups[0]["rules"][0])


def alert(one: Daemon, state: str) -> dict[str, Any]:
    """Wait until the rule's alert is in this state."""

    def found() -> dict[str, Any] | None:
        try:
            return next((dict(a) for a in rule(one)["alerts"] if a["state"] == state), None)
        except OSError:
            return None

    return dict(eventually(f"the alert is {state}", found))


def since(one: dict[str, Any]) -> float:
    return datetime.fromisoformat(one["activeAt"]).timestamp()


def saved(one: Daemon) -> bool:
    """Whether the alert's time was written, and has had the time to be on disk."""
    query = "time()%20-%20timestamp(ALERTS_FOR_STATE)"
    result = json.loads(one.get(f"/api/v1/query?query={query}"))["data"]["result"]
    return bool(result)


def test_a_pending_alert_goes_on_from_where_it_stood_when_the_daemon_was_killed(tmp_path: Path) -> None:
    write(tmp_path, wait="1h")
    with daemon(tmp_path) as first:
        begun = since(alert(first, "pending"))
        eventually("its time is stored", lambda: saved(first))
        time.sleep(1.5)  # a few flushes
        killed = time.time()
        first.kill()
    time.sleep(0.5)
    with daemon(tmp_path) as second:
        started = time.time()
        assert second.event("alerts_restored")["alerts"] == 1
        after = since(alert(second, "pending"))
        # The time that it was down does not count; what was not on disk yet counts as such.
        assert begun + (started - killed) - 1 <= after <= begun + (time.time() - killed) + 5


def test_a_firing_alert_fires_again_at_once_after_a_restart(tmp_path: Path) -> None:
    write(tmp_path, wait="2s")
    with daemon(tmp_path) as first:
        begun = since(alert(first, "firing"))
        time.sleep(1.5)
        first.kill()
    with daemon(tmp_path) as second:
        after = since(alert(second, "firing"))
    assert after == pytest.approx(begun, abs=1.0)


def test_a_reload_keeps_a_pending_alert_and_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    import urllib.error
    import urllib.request

    def reload(one: Daemon) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{one.port}/-/reload", method="POST")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    write(tmp_path, wait="1h")
    with daemon(tmp_path) as one:
        begun = since(alert(one, "pending"))
        write(tmp_path, wait="1h", summary="changed")
        assert reload(one)[0] == 200
        changed = eventually(
            "it changed", lambda: (a := alert(one, "pending"))["annotations"]["summary"] == "changed" and a
        )
        assert since(changed) == begun
        (tmp_path / "rules.yml").write_text("groups: [{name: box, rules: [{alert: Slow, expr: 'sum('}]}]")
        status, body = reload(one)
        assert status == 500
        assert "rules.yml" in body
        assert since(alert(one, "pending")) == begun
        assert one.value("vllm_exporter_rules_last_reload_success") == 0
