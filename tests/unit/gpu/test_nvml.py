from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

import pynvml
import pytest

from exporter.gpu.nvml import SLOW_SECONDS, SLOW_STALE_SECONDS, STATIC_SECONDS, NvmlPort
from exporter.gpu.port import GpuUnavailableError
from exporter.gpu.reading import GpuReading
from exporter.gpu.replay import ReplayLibrary
from exporter.gpu.sampling import Sampling

Install = Callable[..., ReplayLibrary]


def read(port: NvmlPort | None = None) -> GpuReading:
    port = port or NvmlPort()
    sampling = Sampling(port)
    sampling.step(0.0)
    port.read_slow(0.1)
    (reading,) = sampling.step(0.5).readings
    return reading


def test_every_field_of_a_data_centre_gpu_arrives_in_base_units(install: Install) -> None:
    install("h100")
    reading = read()
    assert reading.name == "NVIDIA H100 80GB HBM3"
    assert reading.pci_bus_id == "00000000:1B:00.0"
    assert reading.memory_used_bytes == 76943044608
    assert reading.memory_reserved_bytes == 577765376
    assert (reading.utilization_ratio, reading.memory_utilization_ratio) == (0.87, 0.41)
    assert (reading.encoder_utilization_ratio, reading.decoder_utilization_ratio) == (0.0, 0.03)
    assert (reading.power_watts, reading.power_limit_watts) == (512.345, 700.0)
    assert reading.energy_joules == 987654.321
    assert (reading.temperature_celsius, reading.memory_temperature_celsius) == (58, 66)
    assert (reading.slowdown_temperature_celsius, reading.shutdown_temperature_celsius) == (89, 92)
    assert (reading.sm_clock_hertz, reading.memory_clock_hertz) == (1965e6, 2619e6)
    assert (reading.pcie_transmit_bytes_per_second, reading.pcie_receive_bytes_per_second) == (125e6, 250e6)
    assert (reading.nvlink_transmit_bytes, reading.nvlink_receive_bytes) == (1 << 30, 2 << 30)
    assert (reading.ecc_corrected_errors, reading.ecc_uncorrected_lifetime_errors) == (5, 1)
    assert reading.to_json()["throttle_reasons"] == ["sw_power_cap"]
    assert reading.fan_speed_ratio is None
    assert "fan_speed_ratio" not in reading.to_json()
    missing = {
        key
        for key in GpuReading.__dataclass_fields__
        if getattr(reading, key) is None and key != "fan_speed_ratio"
    }
    assert missing == set()


def test_a_tick_of_a_data_centre_gpu_is_seven_calls(install: Install) -> None:
    library = install("h100")
    sampling = Sampling(NvmlPort())
    sampling.step(0.0)
    library.calls.clear()
    sampling.step(0.5)
    assert library.calls.total() == 7
    assert set(library.calls.values()) == {1}


def test_what_a_laptop_does_not_support_is_tried_once_and_costs_nothing_again(install: Install) -> None:
    library = install("laptop")
    port = NvmlPort()
    sampling = Sampling(port)
    sampling.step(0.0)
    port.read_slow(STATIC_SECONDS + 1)
    asked_first = set(library.calls)
    library.calls.clear()
    sampling.step(0.5)
    assert library.calls == {
        "nvmlDeviceGetMemoryInfo": 1,
        "nvmlDeviceGetUtilizationRates": 1,
        "nvmlDeviceGetPowerUsage": 1,
        "nvmlDeviceGetTemperature": 1,
    }
    library.calls.clear()
    port.read_slow(3 * STATIC_SECONDS)
    assert set(library.calls) == {"nvmlDeviceGetPerformanceState"}
    assert {"nvmlDeviceGetFieldValues", "nvmlDeviceGetFanSpeed", "nvmlDeviceGetPcieThroughput"} <= asked_first


def test_a_driver_without_the_newer_functions_is_read_through_the_older_ones(install: Install) -> None:
    library = install("h100")
    library.absent = {
        "nvmlDeviceGetMemoryInfo_v2",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetFieldValues",
    }
    library.capture["devices"][0]["nvmlDeviceGetCurrentClocksThrottleReasons"] = 1
    reading = read()
    assert reading.memory_used_bytes == 77520809984
    assert reading.memory_reserved_bytes is None
    assert reading.to_json()["throttle_reasons"] == ["gpu_idle"]
    assert reading.memory_temperature_celsius is None


@pytest.mark.skipif(not hasattr(pynvml, "nvmlDeviceGetTemperatureV"), reason="an older binding")
def test_a_driver_with_only_the_newer_temperature_function_is_read_too(install: Install) -> None:
    library = install("h100")
    library.absent = {"nvmlDeviceGetTemperature"}
    library.capture["devices"][0]["nvmlDeviceGetTemperatureV"] = {"temperature": 61}
    assert read().temperature_celsius == 61


def test_wsl_hides_process_memory_and_answers_some_fields_with_unknown_errors(install: Install) -> None:
    library = install("wsl")
    reading = read()
    assert reading.memory_total_bytes == 25757220864
    assert reading.sm_clock_hertz is None
    assert reading.processes is not None
    assert reading.processes[0].memory_bytes is None
    assert "nvmlDeviceGetClockInfo" in library.calls


def test_mig_instances_have_readings_of_their_own(install: Install) -> None:
    install("mig")
    reading = read()
    assert reading.utilization_ratio is None
    assert reading.mig_enabled == 1
    assert [(one.profile, one.gpu_instance, one.memory_used_bytes) for one in reading.mig] == [
        ("3g.40gb", 1, 20000000000),
        ("1g.10gb", 9, 68982784),
    ]
    assert [one.pid for one in reading.every_process() or ()] == [4711]


def test_a_gpu_that_is_split_while_it_runs_is_asked_again_what_it_supports(
    install: Install, description: Callable[[str], dict[str, Any]]
) -> None:
    library = install("h100")
    port = NvmlPort()
    sampling = Sampling(port)
    assert sampling.step(0.0).readings[0].utilization_ratio == 0.87
    library.capture["devices"][0] = description("mig")["devices"][0]
    port.read_slow(STATIC_SECONDS + 1)
    reading = sampling.step(STATIC_SECONDS + 2).readings[0]
    assert len(reading.mig) == 2
    assert reading.utilization_ratio is None


def test_mig_instances_come_and_go(install: Install) -> None:
    library = install("mig")
    port = NvmlPort()
    sampling = Sampling(port)
    sampling.step(0.0)
    del library.capture["devices"][0]["mig"][1]
    port.read_slow(STATIC_SECONDS + 1)
    assert [one.profile for one in sampling.step(1.0).readings[0].mig] == ["3g.40gb"]


def test_eight_gpus_are_read_one_by_one(install: Install) -> None:
    library = install("h100", copies=8)
    sampling = Sampling(NvmlPort())
    sampling.step(0.0)
    library.calls.clear()
    snapshot = sampling.step(0.5)
    assert [one.index for one in snapshot.readings] == list(range(8))
    assert len({one.uuid for one in snapshot.readings}) == 8
    assert library.calls.total() == 8 * 7


def test_a_field_that_fails_now_and_then_is_absent_and_asked_again(install: Install) -> None:
    library = install("h100")
    sampling = Sampling(NvmlPort())
    assert sampling.step(0.0).readings[0].power_watts == 512.345
    library.errors["nvmlDeviceGetPowerUsage"] = pynvml.NVML_ERROR_UNKNOWN
    assert sampling.step(0.5).readings[0].power_watts is None
    library.errors.clear()
    assert sampling.step(1.0).readings[0].power_watts == 512.345


def test_slow_fields_that_fail_go_away_and_come_back(install: Install) -> None:
    library = install("h100")
    port = NvmlPort()
    sampling = Sampling(port)
    assert sampling.step(0.0).readings[0].memory_clock_hertz == 2619e6
    library.errors["nvmlDeviceGetClockInfo"] = pynvml.NVML_ERROR_TIMEOUT
    port.read_slow(SLOW_SECONDS)
    assert sampling.step(SLOW_SECONDS).readings[0].memory_clock_hertz is None
    library.errors.clear()
    port.read_slow(2 * SLOW_SECONDS)
    assert sampling.step(2 * SLOW_SECONDS).readings[0].memory_clock_hertz == 2619e6


def test_slow_fields_do_not_freeze_when_the_slow_round_hangs(install: Install) -> None:
    install("h100")
    port = NvmlPort()
    sampling = Sampling(port)
    assert sampling.step(0.0).readings[0].memory_clock_hertz == 2619e6
    late = sampling.step(SLOW_STALE_SECONDS + 1).readings[0]
    assert late.memory_clock_hertz is None
    assert late.power_watts == 512.345
    port.read_slow(SLOW_STALE_SECONDS + 2)
    assert sampling.step(SLOW_STALE_SECONDS + 2).readings[0].memory_clock_hertz == 2619e6


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "driver_not_loaded"),
        (pynvml.NVML_ERROR_NO_PERMISSION, "no_permission"),
        (pynvml.NVML_ERROR_UNKNOWN, "nvml_error"),
    ],
)
def test_a_driver_that_does_not_start_says_why(install: Install, code: int, reason: str) -> None:
    install("h100").init_error = code
    with pytest.raises(GpuUnavailableError, match="NVML does not start") as caught:
        NvmlPort().open(0.0)
    assert caught.value.reason == reason


def test_a_machine_without_the_library_says_so_at_every_try(
    monkeypatch: pytest.MonkeyPatch, install: Install
) -> None:
    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    install("h100")
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", no_library)
    port = NvmlPort()
    for _ in range(2):
        with pytest.raises(GpuUnavailableError) as caught:
            port.open(0.0)
        assert caught.value.reason == "library_not_found"


def test_after_a_driver_upgrade_the_library_that_fits_is_loaded(
    monkeypatch: pytest.MonkeyPatch, install: Install
) -> None:
    """The old library stays mapped in the process and refuses to start for ever; only loading it anew helps."""
    new = install("h100")
    old = install("h100")
    old.init_error = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    monkeypatch.setattr(pynvml, "CDLL", lambda name: new)
    port = NvmlPort()
    with pytest.raises(GpuUnavailableError) as caught:
        port.open(0.0)
    assert caught.value.reason == "driver_library_mismatch"
    port.open(1.0)
    assert new.initialised == 1
    port.close()


def test_a_real_shared_library_is_unloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    import _ctypes

    from exporter.gpu.nvml import _forget_library

    closed: list[int] = []
    library = ctypes.CDLL(None)
    monkeypatch.setattr(_ctypes, "dlclose", closed.append)
    monkeypatch.setattr(pynvml, "nvmlLib", library)
    _forget_library(pynvml)
    assert closed == [library._handle]
    assert pynvml.nvmlLib is None


def test_a_driver_without_gpus_is_not_up(install: Install) -> None:
    library = install("h100")
    library.capture["devices"] = []
    with pytest.raises(GpuUnavailableError) as caught:
        NvmlPort().open(0.0)
    assert caught.value.reason == "no_devices"
    assert library.initialised == 0


def test_gpus_that_the_container_may_not_open_are_left_out(install: Install) -> None:
    library = install("h100", copies=2)
    library.capture["devices"][0]["nvmlDeviceGetHandleByIndex_v2"] = {
        "error": pynvml.NVML_ERROR_NO_PERMISSION
    }
    snapshot = Sampling(NvmlPort()).step(0.0)
    assert snapshot.reason == "ok"
    assert [one.index for one in snapshot.readings] == [1]


def test_a_gpu_that_was_lost_before_the_start_is_missed_by_its_index(install: Install) -> None:
    library = install("h100", copies=2)
    library.lost.add(1)
    snapshot = Sampling(NvmlPort()).step(0.0)
    assert snapshot.reason == "gpu_lost"
    assert [one.identity.labels for one in snapshot.lost] == [("1", "", "")]
    assert [one.index for one in snapshot.readings] == [0]


@pytest.mark.parametrize("caller", ["slow", "events"])
def test_the_library_is_neither_shut_down_nor_unloaded_under_a_call_that_hangs(
    install: Install, monkeypatch: pytest.MonkeyPatch, caller: str
) -> None:
    """Code unmapped under a running thread would crash the daemon, and the engine with it."""
    library = install("h100")
    entered, release = threading.Event(), threading.Event()

    class Hanging(ReplayLibrary):
        def __getattr__(self, name: str) -> Callable[..., int]:
            answer = super().__getattr__(name)
            hangs = {"slow": "nvmlDeviceGetComputeRunningProcesses_v3", "events": "nvmlEventSetWait_v2"}[
                caller
            ]

            def call(*arguments: Any) -> int:
                if name == hangs and threading.current_thread() is not threading.main_thread():
                    entered.set()
                    release.wait(30)
                return answer(*arguments)

            return call

    hanging = Hanging(library.capture)
    monkeypatch.setattr(pynvml, "nvmlLib", hanging)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    port = NvmlPort()
    port.open(0.0)
    work = (lambda: port.read_slow(1.0)) if caller == "slow" else (lambda: port.wait_event(0.0))
    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(30)
    port.close()
    assert hanging.calls["nvmlShutdown"] == 0
    hanging.init_error = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
    with pytest.raises(GpuUnavailableError):
        port.open(1.0)
    assert pynvml.nvmlLib is hanging
    release.set()
    thread.join()
    with pytest.raises(GpuUnavailableError):
        port.open(2.0)
    assert pynvml.nvmlLib is None


def test_no_gpu_that_may_be_opened_is_a_matter_of_permission(install: Install) -> None:
    library = install("h100")
    library.errors["nvmlDeviceGetHandleByIndex_v2"] = pynvml.NVML_ERROR_NO_PERMISSION
    with pytest.raises(GpuUnavailableError) as caught:
        NvmlPort().open(0.0)
    assert caught.value.reason == "no_permission"


def test_a_refused_field_is_not_asked_again(install: Install) -> None:
    library = install("h100")
    library.errors["nvmlDeviceGetPowerUsage"] = pynvml.NVML_ERROR_NO_PERMISSION
    sampling = Sampling(NvmlPort())
    sampling.step(0.0)
    library.calls.clear()
    sampling.step(0.5)
    assert "nvmlDeviceGetPowerUsage" not in library.calls


def test_xid_errors_arrive_with_the_gpu_that_had_them(install: Install) -> None:
    library = install("h100", copies=2)
    port = NvmlPort()
    port.open(0.0)
    assert port.has_events
    assert port.wait_event(0.0) is None
    library.events.append((1, 79))
    event = port.wait_event(0.1)
    assert event is not None
    assert (event.identity.index, event.xid) == (1, 79)
    port.close()


@pytest.mark.parametrize("function", ["nvmlEventSetCreate", "nvmlDeviceRegisterEvents"])
def test_without_event_support_there_is_no_waiting(install: Install, function: str) -> None:
    install("h100").errors[function] = pynvml.NVML_ERROR_NOT_SUPPORTED
    port = NvmlPort()
    port.open(0.0)
    assert not port.has_events
    assert port.wait_event(10.0) is None
    port.close()


def test_an_error_while_waiting_for_events_ends_the_waiting(install: Install) -> None:
    library = install("h100")
    port = NvmlPort()
    port.open(0.0)
    library.errors["nvmlEventSetWait_v2"] = pynvml.NVML_ERROR_UNKNOWN
    assert port.wait_event(10.0) is None
    assert not port.has_events
    port.close()


def test_the_session_is_given_back_once(install: Install) -> None:
    library = install("h100")
    port = NvmlPort()
    port.open(0.0)
    assert library.initialised == 1
    port.close()
    port.close()
    assert library.initialised == 0
