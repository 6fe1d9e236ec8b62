"""The files in deploy/, judged by the programs that will read them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from exporter.settings import EngineSettings, load_settings, option_names

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "systemd" / "vllm-exporter.service"
KEEP = DEPLOY / "systemd" / "keep-engine.conf"
EXECUTABLE = "/opt/vllm-exporter/bin/vllm-exporter"


def directives(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


@pytest.fixture(params=["alone", "with the drop-in that keeps the engine"])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The unit as on a machine where it is installed."""
    unit = tmp_path / "vllm-exporter.service"
    unit.write_text(UNIT.read_text().replace(EXECUTABLE, need("true")))
    if request.param != "alone":
        folder = tmp_path / "vllm-exporter.service.d"
        folder.mkdir()
        shutil.copy(KEEP, folder)
    return unit


def test_systemd_accepts_the_unit_without_a_remark(installed: Path) -> None:
    command = [need("systemd-analyze"), "verify", "--man=no", str(installed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    remarks = [line for line in (done.stdout + done.stderr).splitlines() if "vllm-exporter" in line]
    assert remarks == []
    assert done.returncode == 0


def test_the_unit_is_exposed_no_more_than_the_design_allows(installed: Path) -> None:
    command = [need("systemd-analyze"), "security", "--offline=true", "--no-pager", "--threshold=30"]
    done = subprocess.run([*command, str(installed)], capture_output=True, text=True, timeout=60)
    exposure = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert exposure is not None, done.stderr
    assert float(exposure[1]) <= 3.0
    assert done.returncode == 0


def test_the_stop_timeout_leaves_room_for_drain_and_kill() -> None:
    engine = EngineSettings()
    (timeout,) = directives(UNIT.read_text())["TimeoutStopSec"]
    assert float(timeout) >= engine.drain_timeout + engine.kill_timeout + 20


def test_no_setting_takes_the_gpus_away() -> None:
    # ProtectClock= implies DeviceAllow=char-rtc, and one DeviceAllow= forbids whatever is not allowed.
    names = {
        "PrivateDevices",
        "DevicePolicy",
        "DeviceAllow",
        "ProtectClock",
        "MemoryDenyWriteExecute",
        "ProcSubset",
    }
    assert not names & (directives(UNIT.read_text()).keys() | directives(KEEP.read_text()).keys())


def test_a_mistake_in_the_configuration_is_not_retried() -> None:
    unit = directives(UNIT.read_text())
    assert unit["Restart"] == ["on-failure"]
    assert unit["RestartPreventExitStatus"] == ["2"]
    assert unit["Type"] == ["notify"]


def test_each_credential_is_named_as_the_option_that_it_sets() -> None:
    for value in directives(UNIT.read_text())["LoadCredential"]:
        name, _, source = value.partition(":")
        assert name in option_names()
        assert source == f"vllm-exporter.{name}"


def test_the_drop_in_takes_back_everything_that_would_kill_or_cripple_a_kept_engine() -> None:
    unit, keep = directives(UNIT.read_text()), directives(KEEP.read_text())
    assert unit["KillMode"] == ["mixed"]
    assert keep["KillMode"] == ["process"]
    for name in ("PrivateTmp", "RemoveIPC"):
        assert (unit[name], keep[name]) == (["yes"], ["no"])
    (assignment,) = keep["Environment"]
    name, _, value = assignment.partition("=")
    assert load_settings({}, environ={name: value}).engine.on_exit == "keep"


def test_the_example_configuration_loads() -> None:
    settings = load_settings({}, config=DEPLOY / "vllm-exporter.toml", environ={})
    assert settings.engine.command[:2] == ("/opt/vllm/bin/vllm", "serve")
    assert settings.web.listen == "127.0.0.1:9108"


def test_prometheus_accepts_the_scrape_configuration() -> None:
    command = [need("promtool"), "check", "config", str(DEPLOY / "prometheus" / "prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
