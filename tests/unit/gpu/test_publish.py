from __future__ import annotations

import dataclasses
import shutil
import subprocess
from collections.abc import Callable

import pytest

from exporter.exposition.block import Block
from exporter.gpu import families
from exporter.gpu.nvml import NvmlPort
from exporter.gpu.publish import DERIVED_SECONDS, Publisher
from exporter.gpu.reading import (
    DriverInfo,
    GpuIdentity,
    GpuReading,
    LostGpu,
    ProcessMemory,
    Snapshot,
    XidEvent,
)
from exporter.gpu.replay import ReplayLibrary
from exporter.gpu.sampling import Sampling

Install = Callable[..., ReplayLibrary]
DRIVER = DriverInfo("580.95.05", "13.0")
WHO = 'gpu="0",uuid="GPU-a",name="H100"'


def gpu(index: int = 0, uuid: str = "GPU-a", **values: object) -> GpuReading:
    return GpuReading(index, uuid, "H100", **values)  # type: ignore[arg-type]


class Shown:
    def __init__(self, *, window: float = 15.0) -> None:
        self.block = Block()
        self.pids: frozenset[int] = frozenset()
        self.tokens: float | None = None
        self.publisher = Publisher(
            self.block, peak_window=window, engine_pids=lambda: self.pids, tokens_total=lambda: self.tokens
        )

    def tick(
        self, time: float, *readings: GpuReading, reason: str = "ok", lost: tuple[LostGpu, ...] = ()
    ) -> None:
        self.snapshot = Snapshot(time, reason, "", DRIVER, readings, lost)
        self.publisher.accept(self.snapshot)

    def show(self) -> str:
        self.publisher.show(self.snapshot)
        return self.block.render(openmetrics=False).decode()


def value(page: str, series: str) -> str | None:
    for line in page.splitlines():
        if line.startswith(f"{series} "):
            return line.rpartition(" ")[2]
    return None


def test_readings_become_series_with_the_labels_of_their_gpu() -> None:
    shown = Shown()
    shown.tick(0.0, gpu(utilization_ratio=0.87, memory_used_bytes=77_000_000_000, energy_joules=12.5))
    page = shown.show()
    assert value(page, f"nvidia_gpu_utilization_ratio{{{WHO}}}") == "0.87"
    assert value(page, f"nvidia_gpu_memory_used_bytes{{{WHO}}}") == "77000000000"
    assert value(page, f"nvidia_gpu_energy_joules_total{{{WHO}}}") == "12.5"
    assert value(page, "vllm_exporter_gpu_up") == "1"
    assert value(page, 'vllm_exporter_gpu_status_info{reason="ok"}') == "1"
    assert 'simulated="false"' in page
    assert "nvidia_gpu_fan_speed_ratio" not in page


def test_an_outage_takes_readings_away_and_says_why() -> None:
    shown = Shown()
    shown.tick(0.0, gpu(utilization_ratio=0.87, processes=(ProcessMemory(7, 1),), throttle_reasons=4))
    shown.pids = frozenset({7})
    shown.show()
    shown.tick(1.0, reason="driver_not_loaded")
    page = shown.show()
    assert value(page, "vllm_exporter_gpu_up") == "0"
    assert value(page, 'vllm_exporter_gpu_status_info{reason="driver_not_loaded"}') == "1"
    assert 'reason="ok"' not in page
    assert "nvidia_gpu_" not in page
    shown.tick(2.0, gpu(utilization_ratio=0.5))
    assert value(shown.show(), f"nvidia_gpu_utilization_ratio{{{WHO}}}") == "0.5"


def test_a_lost_gpu_is_down_and_the_other_one_is_read() -> None:
    shown = Shown()
    shown.tick(0.0, gpu(power_watts=1.0), gpu(1, "GPU-b", power_watts=2.0))
    shown.show()
    lost = (LostGpu(GpuIdentity(0, "GPU-a", "H100"), "gpu_lost"),)
    shown.tick(1.0, gpu(1, "GPU-b", power_watts=2.0), reason="gpu_lost", lost=lost)
    page = shown.show()
    assert value(page, "vllm_exporter_gpu_up") == "0"
    assert value(page, f"nvidia_gpu_up{{{WHO}}}") == "0"
    assert value(page, 'nvidia_gpu_up{gpu="1",uuid="GPU-b",name="H100"}') == "1"
    assert f"nvidia_gpu_power_usage_watts{{{WHO}}}" not in page
    shown.tick(2.0, gpu(power_watts=1.0), gpu(1, "GPU-b", power_watts=2.0))
    page = shown.show()
    assert value(page, f"nvidia_gpu_up{{{WHO}}}") == "1"
    assert value(page, f"nvidia_gpu_power_usage_watts{{{WHO}}}") == "1"
    # Lost and back between two scrapes.
    shown.tick(3.0, gpu(1, "GPU-b", power_watts=2.0), reason="gpu_lost", lost=lost)
    shown.tick(4.0, gpu(power_watts=3.0), gpu(1, "GPU-b", power_watts=2.0))
    assert value(shown.show(), f"nvidia_gpu_up{{{WHO}}}") == "1"


def test_a_lost_gpu_that_never_comes_back_stays_shown_as_down() -> None:
    shown = Shown()
    lost = (LostGpu(GpuIdentity(0, "GPU-a", "H100"), "gpu_lost"),)
    for time in range(3):
        shown.tick(float(time), reason="gpu_lost", lost=lost)
        assert value(shown.show(), f"nvidia_gpu_up{{{WHO}}}") == "0"
    shown.tick(4.0, reason="driver_not_loaded")
    assert "nvidia_gpu_up" not in shown.show()


def test_another_driver_takes_the_place_of_the_first_in_the_info() -> None:
    shown = Shown()
    shown.tick(0.0, gpu())
    shown.show()
    shown.snapshot = Snapshot(1.0, "ok", "", dataclasses.replace(DRIVER, driver_version="590.1"), (gpu(),))
    shown.publisher.accept(shown.snapshot)
    page = shown.show()
    assert page.count("nvidia_gpu_info{") == 1
    assert 'driver_version="590.1"' in page


def test_a_spike_between_scrapes_shows_in_the_max() -> None:
    shown = Shown()
    shown.tick(0.0, gpu(utilization_ratio=1.0, throttle_reasons=0x40))
    shown.tick(0.5, gpu(utilization_ratio=0.1, throttle_reasons=0))
    page = shown.show()
    assert value(page, f"nvidia_gpu_utilization_ratio{{{WHO}}}") == "0.1"
    assert value(page, f"nvidia_gpu_utilization_ratio_max{{{WHO}}}") == "1"
    assert value(page, f'nvidia_gpu_throttle_reason{{{WHO},reason="hw_thermal_slowdown"}}') == "0"
    assert value(page, f'nvidia_gpu_throttle_reason_max{{{WHO},reason="hw_thermal_slowdown"}}') == "1"
    shown.tick(100.0, gpu(utilization_ratio=0.1, throttle_reasons=0))
    page = shown.show()
    assert value(page, f"nvidia_gpu_utilization_ratio_max{{{WHO}}}") == "0.1"
    assert value(page, f'nvidia_gpu_throttle_reason_max{{{WHO},reason="hw_thermal_slowdown"}}') == "0"


def test_xid_errors_are_counted_and_outlive_an_outage() -> None:
    shown = Shown()
    identity = GpuIdentity(0, "GPU-a", "H100")
    shown.publisher.count(XidEvent(identity, 31))
    shown.publisher.count(XidEvent(identity, 79))
    shown.publisher.count(XidEvent(identity, 79))
    shown.tick(0.0, reason="gpu_lost")
    page = shown.show()
    assert value(page, f'nvidia_gpu_xid_errors_total{{{WHO},xid="79"}}') == "2"
    assert value(page, f'nvidia_gpu_xid_errors_total{{{WHO},xid="31"}}') == "1"
    assert value(page, f"nvidia_gpu_last_xid{{{WHO}}}") == "79"


def test_only_the_engines_own_processes_are_shown() -> None:
    shown = Shown()
    shown.pids = frozenset({7})
    shown.tick(0.0, gpu(processes=(ProcessMemory(7, 100), ProcessMemory(8, 200))))
    page = shown.show()
    assert value(page, f'nvidia_gpu_process_memory_used_bytes{{{WHO},pid="7"}}') == "100"
    assert 'pid="8"' not in page
    shown.pids = frozenset({8})
    page = shown.show()
    assert 'pid="7"' not in page
    assert value(page, f'nvidia_gpu_process_memory_used_bytes{{{WHO},pid="8"}}') == "200"


def test_mig_instances_have_families_of_their_own(install: Install) -> None:
    install("mig")
    shown = Shown()
    (reading,) = Sampling(NvmlPort()).step(0.0).readings
    shown.pids = frozenset({4711})
    shown.tick(0.0, reading)
    page = shown.show()
    assert page.count("nvidia_gpu_mig_memory_used_bytes{") == 2
    assert page.count("nvidia_gpu_memory_used_bytes{") == 1
    assert 'profile="3g.40gb"' in page
    assert 'pid="4711"} 19000000000' in page
    shown.tick(1.0, dataclasses.replace(reading, mig=reading.mig[:1]))
    assert shown.show().count("nvidia_gpu_mig_memory_used_bytes{") == 1


def test_energy_per_token_and_tokens_per_gpu_follow_the_engines_gpus() -> None:
    shown = Shown()
    shown.pids = frozenset({7})
    for second in range(121):
        shown.tokens = 1000.0 * second
        shown.tick(
            float(second),
            gpu(energy_joules=500.0 * second, processes=(ProcessMemory(7, 1),)),
            gpu(1, "GPU-b", energy_joules=90.0 * second, processes=()),
        )
    page = shown.show()
    assert value(page, "vllm_slo_energy_per_output_token_joules") == "0.5"
    assert value(page, "vllm_slo_gpu_output_tokens_per_second") == "1000"


def test_when_nobody_knows_the_engines_gpus_all_of_them_count() -> None:
    shown = Shown()
    for second in range(31):
        shown.tokens = 1000.0 * second
        shown.tick(
            float(second), gpu(energy_joules=500.0 * second), gpu(1, "GPU-b", energy_joules=500.0 * second)
        )
    page = shown.show()
    assert value(page, "vllm_slo_energy_per_output_token_joules") == "1"
    assert value(page, "vllm_slo_gpu_output_tokens_per_second") == "500"


def test_without_tokens_there_is_no_energy_per_token() -> None:
    shown = Shown()
    for second in range(31):
        shown.tokens = 1000.0
        shown.tick(float(second), gpu(energy_joules=70.0 * second))
    page = shown.show()
    assert "vllm_slo_energy_per_output_token_joules" not in page
    assert value(page, "vllm_slo_gpu_output_tokens_per_second") == "0"
    shown.tokens = None
    shown.tick(31.0, gpu(energy_joules=70.0 * 31))
    assert "vllm_slo_" not in shown.show()


def test_the_derived_window_slides() -> None:
    shown = Shown()
    tokens = 0.0
    for second in range(200):
        tokens += 100.0 if second < 100 else 10.0
        shown.tokens = tokens
        shown.tick(float(second), gpu(energy_joules=500.0 * second))
    assert value(shown.show(), "vllm_slo_gpu_output_tokens_per_second") == "10"
    assert DERIVED_SECONDS == 60.0


def test_an_unchanged_reading_changes_nothing_on_the_page() -> None:
    shown = Shown()
    reading = gpu(utilization_ratio=0.5, throttle_reasons=1, processes=())
    shown.tick(0.0, reading)
    shown.show()
    version = shown.block.version
    shown.tick(0.5, reading)
    shown.show()
    assert shown.block.version == version


def test_every_family_is_declared_once_and_explained() -> None:
    names = [family.name for family in families.FAMILIES]
    assert len(names) == len(set(names))
    assert all(family.help.endswith(".") for family in families.FAMILIES)
    assert set(families.DCGM.values()) <= set(names)


def test_a_prometheus_client_reads_the_page_in_both_formats(install: Install) -> None:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
    from prometheus_client.parser import text_string_to_metric_families as parse_text

    install("mig")
    shown = Shown()
    shown.tick(0.0, *Sampling(NvmlPort()).step(0.0).readings)
    shown.publisher.count(XidEvent(GpuIdentity(0, "GPU-a", "H100"), 79))
    shown.show()
    text = {one.name for one in parse_text(shown.block.render(openmetrics=False).decode())}
    openmetrics = {
        one.name for one in parse_openmetrics(shown.block.render(openmetrics=True).decode() + "# EOF\n")
    }
    assert {name.removesuffix("_info") for name in text} == openmetrics


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("name", ["h100", "laptop", "wsl", "mig"])
def test_promtool_has_no_remark(install: Install, name: str) -> None:
    install(name)
    port = NvmlPort()
    sampling = Sampling(port)
    sampling.step(0.0)
    port.read_slow(0.1)
    shown = Shown()
    shown.pids = frozenset({4711})
    for second in range(10):
        shown.tokens = 100.0 * second
        shown.snapshot = sampling.step(0.5 + second)
        shown.publisher.accept(shown.snapshot)
    shown.publisher.count(XidEvent(GpuIdentity(0, "GPU-a", "H100"), 79))
    page = shown.show()
    checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
