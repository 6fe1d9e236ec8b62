from __future__ import annotations

from collections.abc import Callable

from exporter.gpu.nvml import NvmlPort
from exporter.gpu.reading import GpuReading
from exporter.gpu.replay import ReplayLibrary
from exporter.gpu.sampling import Sampling
from exporter.gpu.simulated import SimulatedGpu


def series(load: Callable[[], float], *, seed: int = 1, seconds: int = 120) -> list[GpuReading]:
    sampling = Sampling(SimulatedGpu(load, seed=seed))
    return [sampling.step(tick / 2).readings[0] for tick in range(2 * seconds)]


def test_the_same_seed_gives_the_same_readings() -> None:
    assert series(lambda: 0.6) == series(lambda: 0.6)
    assert series(lambda: 0.6) != series(lambda: 0.6, seed=2)


def test_readings_follow_the_load() -> None:
    idle, busy = series(lambda: 0.0)[-1], series(lambda: 0.9)[-1]
    assert idle.utilization_ratio is not None
    assert busy.utilization_ratio is not None
    assert idle.utilization_ratio < 0.1 < 0.8 < busy.utilization_ratio <= 1
    assert 50 < (idle.power_watts or 0) < 110
    assert 500 < (busy.power_watts or 0) < 720
    assert (idle.temperature_celsius or 0) < 45 < (busy.temperature_celsius or 0) < 80
    assert idle.throttle_reasons == 1


def test_energy_is_the_sum_of_power_and_memory_adds_up() -> None:
    readings = series(lambda: 1.0)
    joules = (readings[-1].energy_joules or 0) - (readings[0].energy_joules or 0)
    mean = sum(one.power_watts or 0 for one in readings) / len(readings)
    assert abs(joules / (119.5 * mean) - 1) < 0.02
    last = readings[-1]
    assert last.memory_total_bytes == sum(
        one or 0 for one in (last.memory_used_bytes, last.memory_free_bytes, last.memory_reserved_bytes)
    )


def test_loads_out_of_range_are_taken_as_the_nearest() -> None:
    assert all(0 <= (one.utilization_ratio or 0) <= 1 for one in series(lambda: 7.0) + series(lambda: -1.0))


def test_everything_is_marked_as_simulated() -> None:
    assert all(one.simulated for one in series(lambda: 0.5, seconds=2))


def test_the_engine_holds_the_memory() -> None:
    sampling = Sampling(SimulatedGpu(lambda: 0.5, engine_pids=lambda: frozenset({12})))
    reading = sampling.step(0.0).readings[0]
    assert [one.pid for one in reading.processes or ()] == [12]


def test_simulated_fields_are_fields_of_a_real_gpu(install: Callable[..., ReplayLibrary]) -> None:
    install("h100")
    port = NvmlPort()
    real = Sampling(port)
    real.step(0.0)
    port.read_slow(0.1)
    known = real.step(0.5).readings[0].to_json().keys()
    assert series(lambda: 0.5, seconds=2)[-1].to_json().keys() <= known
