"""Several engines under one daemon: two replicas of one model and one of another, behind one gateway."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from daemon import PROGRAM, Daemon, eventually, free_port, gone
from sink import Sink

MODELS = {"a1": "alpha", "a2": "alpha", "b": "beta"}
DEPLOY = Path(__file__).parents[2] / "deploy" / "prometheus"
COMPARED = (
    "up|vllm:.+|vllm_(slo|ttft|num|exporter_engine|exporter_gateway|exporter_gpu|exporter_scrape).+|nvidia_.+"
)
GPUS = ("a1", "a2", "b", "bad")


class Box:
    """A daemon with three simulators, whose commands all say the same port, and the gateway's address."""

    def __init__(self, folder: Path, *flags: str, **engine: object) -> None:
        self.gateway = free_port()
        self.config = folder / "box.toml"
        self._shared = {"drain_timeout": 1, "restart_delay": 1, **engine}
        self._folder, self._flags = folder, flags
        self.names(MODELS)

    def names(self, models: Mapping[str, str], **more: str) -> None:
        """Write the configuration of these engines with their models. `more`: a flag for some engine's command."""
        lines = ["[engine]", *(f"{key} = {json.dumps(value)}" for key, value in self._shared.items())]
        lines += [
            "[gateway]", f'listen = "127.0.0.1:{self.gateway}"', "probe_interval = 0",
            "[scrape]", "interval = 0.5",
            "[gpu]", 'source = "simulated"',
        ]  # fmt: skip
        for name, model in models.items():
            command = [*PROGRAM, "simulate", "--served-model-name", model, "--step-seconds", "0.005"]
            command += more.get(name, "").split()
            lines += ["[[engines]]", f'name = "{name}"', f"gpus = [{GPUS.index(name)}]"]
            lines += [f"command = {json.dumps(command)}"]
        self.config.write_text("\n".join(lines) + "\n")

    def start(self) -> Daemon:
        return Daemon(self._folder, "run", "--config", str(self.config), *self._flags)

    @contextmanager
    def daemon(self) -> Iterator[Daemon]:
        """One run of it, from the moment on that all engines are ready."""
        with self.start() as daemon:
            eventually("all engines are ready", lambda: ready(daemon))
            eventually("the models are listed", lambda: self.models() == ["alpha", "beta"])
            yield daemon

    def models(self) -> list[str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.gateway}/v1/models", timeout=10) as answer:
                return [model["id"] for model in json.load(answer)["data"]]
        except urllib.error.HTTPError as error:
            error.close()
            return []

    def ask(self, model: str, tokens: int = 3) -> int:
        """The status of one request for a model; 0 when the connection broke."""
        body = {"model": model, "prompt": "hello", "max_tokens": tokens, "ignore_eos": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.gateway}/v1/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                assert json.load(answer)["usage"]["completion_tokens"] == tokens
                return 200
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0


Running = tuple[Box, Daemon]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A box for all who break nothing."""
    box = Box(tmp_path_factory.mktemp("box"))
    with box.daemon() as daemon:
        yield box, daemon


def ready(daemon: Daemon) -> bool:
    try:
        return daemon.get("/-/ready").startswith("ready: 3 of 3")
    except OSError:
        return False


def successes(daemon: Daemon) -> dict[str, float | None]:
    return {
        name: daemon.value("vllm_slo_requests_total", instance=name, outcome="success") for name in MODELS
    }


def test_requests_go_to_who_serves_their_model_and_each_engine_counts_its_own(running: Running):
    box, daemon = running
    assert [box.ask("alpha") for _ in range(6)] == [200] * 6
    assert [box.ask("beta"), box.ask("gamma")] == [200, 404]
    eventually("all counted", lambda: sum(count or 0 for count in successes(daemon).values()) == 7)
    counts = successes(daemon)
    assert counts["b"] == 1
    assert (counts["a1"] or 0) >= 2 <= (counts["a2"] or 0)  # the least outstanding, and of equals in turn
    assert daemon.value("vllm_slo_requests_total", source="gateway", outcome="success") == 7

    summary = json.loads(daemon.get("/api/v1/metrics"))
    assert (summary["status"], summary["requests"]["successful"]) == ("ready", 7)
    assert {one["name"]: one["requests"]["successful"] for one in summary["engines"]} == counts
    assert json.loads(daemon.get("/api/v1/metrics?engine=b"))["requests"]["successful"] == 1
    assert daemon.status("/api/v1/metrics?engine=c") == 404


def test_the_page_is_valid_and_each_engines_series_bear_its_name(running: Running):
    _, daemon = running
    probed = "vllm_exporter_engine_probe_duration_seconds"  # an engine has it from its first probe on
    eventually(
        "all were probed",
        lambda: (
            {
                sample.labels["instance"]
                for family in [daemon.families().get(probed)]
                if family
                for sample in family.samples
            }
            == set(MODELS)
        ),
    )
    for openmetrics in (False, True):
        families = daemon.families(openmetrics=openmetrics)
        lines = [
            (sample.name, tuple(sorted(sample.labels.items())))
            for family in families.values()
            for sample in family.samples
        ]
        assert len(lines) == len(set(lines))
        for name, family in families.items():
            instances = {sample.labels.get("instance") for sample in family.samples}
            if name.startswith(("vllm:", "vllm_exporter_engine_", "vllm_exporter_scrape")):
                assert instances == set(MODELS), name
            elif name.startswith(("nvidia_gpu_", "vllm_exporter_process_", "vllm_exporter_rule_")):
                assert instances == {None}, name


def test_each_engine_has_its_gpus_and_its_folder_and_check_config_shows_it(running: Running):
    box, daemon = running
    environments = {
        event["engine"]: Path(f"/proc/{event['pid']}/environ").read_bytes().split(b"\0")
        for event in daemon.events()
        if event["event"] == "engine_started"
    }
    for place, name in enumerate(MODELS):
        assert f"CUDA_VISIBLE_DEVICES={place}".encode() in environments[name]
    folders = box.config.parent / "data" / "engines"
    assert {path.name for path in folders.iterdir()} == set(MODELS)
    assert all((folders / name / "engine.log").stat().st_size for name in MODELS)

    shown = subprocess.run(
        [*PROGRAM, "check", "config", str(box.config)], capture_output=True, text=True, timeout=60, check=True
    )
    assert shown.stdout.count("[[engines]]") == 3
    assert '[[engines]]\nname = "a2"\ngpus = ["1"]\n' in shown.stdout


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus")
def test_a_prometheus_with_the_shipped_configuration_has_the_same_series(running: Running, tmp_path: Path):
    _, daemon = running
    port = free_port()
    config = (DEPLOY / "prometheus.yml").read_text()
    for shipped, here in (("127.0.0.1:9108", f"127.0.0.1:{daemon.port}"), (" 15s", " 1s"), (" 5s", " 1s")):
        assert shipped in config
        config = config.replace(shipped, here)
    (tmp_path / "prometheus.yml").write_text(config)
    with (tmp_path / "prometheus.log").open("wb") as log:
        prometheus = subprocess.Popen(
            [
                "prometheus", f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )  # fmt: skip

    def differ() -> list[tuple[tuple[str, str], ...]]:
        there = series(port)
        return sorted(series(daemon.port) ^ there) if there else [(("nothing", "there"),)]

    try:
        deadline = time.monotonic() + 20
        while (found := differ()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert found == []
    finally:
        prometheus.kill()
        prometheus.wait()
    by_name: dict[str, set[str]] = {}
    for labels in map(dict, series(daemon.port)):
        by_name.setdefault(labels["__name__"], set()).add(labels["instance"])
    assert by_name["vllm_exporter_engine_up"] == by_name["vllm:num_requests_running"] == set(MODELS)
    assert by_name["up"] == by_name["vllm_exporter_gpu_up"] == {f"127.0.0.1:{daemon.port}"}


def test_a_killed_replica_is_told_of_by_its_name_and_comes_back_while_the_other_serves(tmp_path: Path):
    with Sink() as sink:
        box = Box(tmp_path, "--webhook", sink.url)
        with box.daemon() as daemon:
            pids = {e["engine"]: int(e["pid"]) for e in daemon.events() if e["event"] == "engine_started"}
            answers: list[int] = []
            over = threading.Event()

            def client() -> None:
                while not over.is_set():
                    answers.append(box.ask("alpha", tokens=10))

            clients = [threading.Thread(target=client) for _ in range(4)]
            for thread in clients:
                thread.start()
            eventually("traffic", lambda: len(answers) >= 20)
            os.kill(pids["a1"], signal.SIGKILL)
            killed = len(answers)
            eventually(
                "it is seen", lambda: daemon.value("vllm_exporter_engine_restarts_total", instance="a1") == 1
            )
            assert daemon.status("/-/ready") == 200  # the other replica is there
            eventually("the other serves", lambda: len(answers) >= killed + 20)
            eventually("it is back", lambda: ready(daemon))
            over.set()
            for thread in clients:
                thread.join(30)

            failed = [status for status in answers if status != 200]
            assert len(failed) <= len(clients), failed  # what was at it when it died
            assert set(failed) <= {0, 502, 503}, failed
            for name in ("a2", "b"):
                assert daemon.value("vllm_exporter_engine_restarts_total", instance=name) == 0
                assert not gone(pids[name])

            told = eventually(
                "the alert",
                lambda: [
                    alert
                    for one in sink.arrived
                    for alert in one.body["alerts"]
                    if alert["labels"]["alertname"] == "VLLMEngineCrashed"
                ],
            )
            assert {alert["labels"]["instance"] for alert in told} == {"a1"}
            assert "SIGKILL" in told[0]["annotations"]["diagnosis"]
            found = json.loads(daemon.get("/api/v1/metrics?engine=a1"))["alerts"]
            assert "VLLMEngineCrashed" in {alert["name"] for alert in found}
            assert "VLLMEngineCrashed" not in {
                alert["name"] for alert in json.loads(daemon.get("/api/v1/metrics?engine=b"))["alerts"]
            }


def test_kept_engines_are_adopted_one_by_one_and_ended_when_nobody_names_them(tmp_path: Path):
    box = Box(tmp_path, on_exit="keep")
    pids: dict[str, Any] = {}
    try:
        with box.daemon() as daemon:
            pids = {e["engine"]: int(e["pid"]) for e in daemon.events() if e["event"] == "engine_started"}
            assert [box.ask(model) for model in ("alpha", "alpha", "beta")] == [200] * 3
            eventually("counted", lambda: sum(count or 0 for count in successes(daemon).values()) == 3)
            before = successes(daemon)
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(30) == 0
        assert not any(gone(pid) for pid in pids.values())
        began = time.time()
        with box.daemon() as daemon:
            daemon.event("engine_adopted", len(pids))
            adopted = {e["engine"]: int(e["pid"]) for e in daemon.events() if e["event"] == "engine_adopted"}
            assert adopted == pids
            assert successes(daemon) == before
            assert daemon.value("vllm_slo_requests_total", source="gateway", outcome="success") == 3
            assert daemon.value("vllm_exporter_engine_generation") == 3  # one each
            started = daemon.value("vllm_exporter_engine_start_time_seconds", instance="b")
            assert started is not None
            assert started < began
            assert box.ask("beta") == 200
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(30) == 0

        # What is named no more is ended, and one that cannot be started keeps no other from its work.
        box.names({"b": "beta", "bad": "gamma"}, bad="--fail unknown-flag")
        with box.start() as daemon:
            daemon.event("engine_of_earlier_run_stopped", 2)
            eventually("they are gone", lambda: gone(pids["a1"]) and gone(pids["a2"]))
            failed = daemon.event("engine_failed")
            assert (failed["engine"], failed["reason"]) == ("bad", "bad_arguments")
            assert daemon.event("engine_adopted")["pid"] == pids["b"]
            eventually("the other serves", lambda: box.ask("beta") == 200)
            assert box.ask("gamma") in (404, 503)
            assert "without one: gamma; bad: failed" in daemon.body("/-/ready")
            assert {path.name for path in (tmp_path / "data" / "engines").iterdir()} >= {"b", "bad"}
    finally:
        for pid in pids.values():
            if not gone(pid):
                os.kill(pid, signal.SIGKILL)


def series(port: int) -> set[tuple[tuple[str, str], ...]]:
    """The present series of the daemon's page in a store: their labels without `job`, bounds as numbers."""
    query = urllib.parse.urlencode({"query": f'{{__name__=~"{COMPARED}"}}'})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10) as answer:
            found = json.load(answer)["data"]["result"]
    except OSError:
        return set()
    return {
        tuple(
            sorted(
                (name, repr(float(value)) if name in ("le", "quantile") else value)
                for name, value in one["metric"].items()
                if name != "job"
            )
        )
        for one in found
    }
