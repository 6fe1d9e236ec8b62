"""What is known of the GPUs at one moment: values only, in base units; a field that a device lacks is None."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """Who a GPU is; the same for as long as the driver is not re-initialised."""

    index: int
    uuid: str
    name: str
    pci_bus_id: str = ""

    @property
    def labels(self) -> tuple[str, str, str]:
        """The values of the labels gpu, uuid and name."""
        return (str(self.index), self.uuid, self.name)


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """GPU memory of one process on one GPU; `memory_bytes` is None where the driver hides it (WSL, some vGPUs)."""

    pid: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class MigReading:
    """One MIG instance. Utilization does not exist per instance in NVML; memory does."""

    gpu_instance: int
    compute_instance: int
    uuid: str
    profile: str
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    memory_total_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    processes: tuple[ProcessMemory, ...] | None = None


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one moment: bytes, joules, watts, celsius, hertz, ratios 0..1, counts since the driver was loaded."""

    index: int
    uuid: str
    name: str
    pci_bus_id: str = ""
    simulated: bool = False

    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    memory_total_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    utilization_ratio: float | None = None
    memory_utilization_ratio: float | None = None
    encoder_utilization_ratio: float | None = None
    decoder_utilization_ratio: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    energy_joules: float | None = None
    temperature_celsius: float | None = None
    memory_temperature_celsius: float | None = None
    slowdown_temperature_celsius: float | None = None
    shutdown_temperature_celsius: float | None = None
    sm_clock_hertz: float | None = None
    memory_clock_hertz: float | None = None
    graphics_clock_hertz: float | None = None
    video_clock_hertz: float | None = None
    sm_clock_limit_hertz: float | None = None
    pcie_transmit_bytes_per_second: float | None = None
    pcie_receive_bytes_per_second: float | None = None
    pcie_replays: int | None = None
    pcie_link_generation: int | None = None
    pcie_link_width: int | None = None
    nvlink_transmit_bytes: int | None = None
    nvlink_receive_bytes: int | None = None
    nvlink_links: int | None = None
    nvlink_crc_flit_errors: int | None = None
    nvlink_crc_data_errors: int | None = None
    nvlink_replay_errors: int | None = None
    nvlink_recovery_errors: int | None = None
    ecc_corrected_errors: int | None = None
    ecc_uncorrected_errors: int | None = None
    ecc_corrected_lifetime_errors: int | None = None
    ecc_uncorrected_lifetime_errors: int | None = None
    remapped_rows_corrected: int | None = None
    remapped_rows_uncorrected: int | None = None
    row_remap_pending: int | None = None
    row_remap_failure: int | None = None
    throttle_reasons: int | None = None
    """NVML's bit mask; names in `families.THROTTLE_REASONS`."""
    performance_state: int | None = None
    fan_speed_ratio: float | None = None
    mig_enabled: int | None = None
    processes: tuple[ProcessMemory, ...] | None = None
    mig: tuple[MigReading, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object of what is known: absent fields are left out, throttle reasons are names."""
        from exporter.gpu.families import throttle_names

        known: dict[str, Any] = {key: value for key, value in asdict(self).items() if value is not None}
        if self.throttle_reasons is not None:
            known["throttle_reasons"] = throttle_names(self.throttle_reasons)
        return known

    def every_process(self) -> tuple[ProcessMemory, ...] | None:
        """Processes of the GPU and of its MIG instances; None when no list could be had."""
        lists = [
            known for known in (self.processes, *(one.processes for one in self.mig)) if known is not None
        ]
        return tuple(one for known in lists for one in known) if lists else None


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """The driver behind the readings."""

    driver_version: str = ""
    cuda_version: str = ""
    simulated: bool = False


@dataclass(frozen=True, slots=True)
class LostGpu:
    """A GPU that was there and does not answer any more."""

    identity: GpuIdentity
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One tick: either readings, or the reason why there are none; `reason` is `ok` when every GPU answers."""

    time: float
    reason: str
    message: str = ""
    driver: DriverInfo | None = None
    readings: tuple[GpuReading, ...] = ()
    lost: tuple[LostGpu, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class XidEvent:
    """A critical error that the driver reported; https://docs.nvidia.com/deploy/xid-errors/ explains the codes."""

    identity: GpuIdentity
    xid: int
