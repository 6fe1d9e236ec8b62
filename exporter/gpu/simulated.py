"""Made-up readings of an H100 that follow a load, for the demo and for tests; marked as simulated everywhere."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from exporter.gpu.port import Values
from exporter.gpu.reading import DriverInfo, GpuIdentity, LostGpu, ProcessMemory, XidEvent

GIB = 1 << 30
NAME = "NVIDIA H100 80GB HBM3"


class SimulatedGpu:
    """GpuPort whose GPUs are busy as `load` says: 0 idle, 1 all they can.

    The same seed, loads and times give the same readings. Magnitudes are those of an H100 SXM: 80 GiB, 700 W, idle at
    about 70 W, 1980 MHz, core temperature with a time constant of half a minute.
    """

    def __init__(
        self,
        load: Callable[[], float],
        *,
        count: int = 1,
        seed: int = 0,
        engine_pids: Callable[[], frozenset[int]] = frozenset,
        memory_share: float = 0.9,
    ) -> None:
        self._load = load
        self._engine_pids = engine_pids
        self._memory_share = memory_share
        self._gpus = [
            _Simulated(
                GpuIdentity(
                    index,
                    f"GPU-51a01a7e-0000-4000-8000-{seed & 0xFFFFFFFF:08x}{index:04x}",
                    NAME,
                    f"00000000:{0x1B + 0x10 * index:02X}:00.0",
                ),
                random.Random(seed * 1000 + index),  # noqa: S311 - noise, not secrets
            )
            for index in range(count)
        ]

    def open(self, now: float) -> DriverInfo:
        """Always succeeds."""
        for gpu in self._gpus:
            gpu.time = now
        return DriverInfo("simulated", "simulated", simulated=True)

    def read(self, now: float) -> tuple[list[tuple[GpuIdentity, Values]], tuple[LostGpu, ...]]:
        """The readings at `now`, under the load of this moment."""
        load = min(1.0, max(0.0, self._load()))
        pids = sorted(self._engine_pids())[:1]
        return [(gpu.identity, gpu.read(now, load, pids, self._memory_share)) for gpu in self._gpus], ()

    def read_slow(self, now: float) -> None:
        """Nothing is slow here."""

    @property
    def has_events(self) -> bool:
        """No XID errors."""
        return False

    def wait_event(self, timeout: float) -> XidEvent | None:
        """Never an event."""
        return None

    def close(self) -> None:
        """Nothing to give back."""


class _Simulated:
    def __init__(self, identity: GpuIdentity, noise: random.Random) -> None:
        self.identity = identity
        self.time = 0.0
        self._noise = noise
        self._temperature = 34.0
        self._energy = 1.5e6
        self._busy = 0.0

    def read(self, now: float, load: float, pids: list[int], memory_share: float) -> Values:
        passed = max(0.0, now - self.time)
        self.time = now
        self._busy += (load - self._busy) * (1 - math.exp(-passed / 0.4)) if passed else 0.0
        busy = min(1.0, max(0.0, self._busy + self._noise.gauss(0, 0.015) * (self._busy > 0.02)))
        power = 71 + 585 * busy**0.8 + self._noise.gauss(0, 2)
        self._energy += power * passed
        goal = 31 + 0.055 * power
        self._temperature += (goal - self._temperature) * (1 - math.exp(-passed / 30))
        used = int(80 * GIB * memory_share) if pids or self._busy > 0.02 else 0
        reserved = 551 << 20
        capped = power > 640
        clock = (1980 if busy > 0.02 else 345) - (int(90 * (power - 640) / 60) if capped else 0)
        return {
            "memory_used_bytes": used,
            "memory_free_bytes": 80 * GIB - used - reserved,
            "memory_total_bytes": 80 * GIB,
            "memory_reserved_bytes": reserved,
            "utilization_ratio": round(busy, 2),
            "memory_utilization_ratio": round(busy * 0.55, 2),
            "encoder_utilization_ratio": 0.0,
            "decoder_utilization_ratio": 0.0,
            "power_watts": round(power, 3),
            "power_limit_watts": 700.0,
            "energy_joules": round(self._energy, 3),
            "temperature_celsius": round(self._temperature),
            "memory_temperature_celsius": round(self._temperature + 6 + 4 * busy),
            "slowdown_temperature_celsius": 89,
            "shutdown_temperature_celsius": 92,
            "sm_clock_hertz": clock * 1_000_000,
            "memory_clock_hertz": 2_619_000_000,
            "graphics_clock_hertz": clock * 1_000_000,
            "video_clock_hertz": 1_545_000_000,
            "sm_clock_limit_hertz": 1_980_000_000,
            "pcie_transmit_bytes_per_second": round(2e6 + 180e6 * busy),
            "pcie_receive_bytes_per_second": round(3e6 + 420e6 * busy),
            "pcie_replays": 0,
            "pcie_link_generation": 5,
            "pcie_link_width": 16,
            "ecc_corrected_errors": 0,
            "ecc_uncorrected_errors": 0,
            "ecc_corrected_lifetime_errors": 0,
            "ecc_uncorrected_lifetime_errors": 0,
            "throttle_reasons": 4 if capped else (0 if busy > 0.02 else 1),
            "performance_state": 0,
            "mig_enabled": 0,
            "processes": tuple(ProcessMemory(pid, used) for pid in pids),
        }
