from __future__ import annotations

import json
from collections.abc import Callable

import pynvml
import pytest

from exporter.gpu.capture import capture, main
from exporter.gpu.nvml import NvmlPort
from exporter.gpu.reading import GpuReading
from exporter.gpu.replay import ReplayLibrary
from exporter.gpu.sampling import Sampling

Install = Callable[..., ReplayLibrary]


def read() -> GpuReading:
    port = NvmlPort()
    sampling = Sampling(port)
    sampling.step(0.0)
    port.read_slow(0.1)
    return sampling.step(0.5).readings[0]


@pytest.mark.parametrize("name", ["h100", "laptop", "wsl", "mig"])
def test_a_replayed_capture_reads_as_the_machine_did(
    install: Install, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    library = install(name)
    library.capture["devices"][0]["nvmlDeviceGetUUID"] = "GPU-secret"
    before = read()
    record = json.loads(json.dumps(capture(pynvml)))
    assert pynvml.nvmlLib is library
    assert record["origin"].startswith("captured through NVML")
    assert "secret" not in json.dumps(record)
    monkeypatch.setattr(pynvml, "nvmlLib", ReplayLibrary(record))
    pynvml._nvmlGetFunctionPointer_cache.clear()
    after = read()
    mine, theirs = before.to_json(), after.to_json()
    for one in (mine, theirs):
        del one["uuid"]
        one["mig"] = [instance | {"uuid": ""} for instance in one["mig"]]
    assert mine == theirs


def test_captures_are_marked_as_what_they_are(install: Install) -> None:
    for name in ("h100", "laptop", "wsl", "mig"):
        assert install(name).capture["origin"] == "written from the NVML reference, not captured"


def test_a_machine_without_a_gpu_gets_a_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_library(name: str) -> None:
        raise OSError

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", no_library)
    assert main() == 1
    assert "no capture" in capsys.readouterr().err
