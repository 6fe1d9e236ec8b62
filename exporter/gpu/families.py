"""The metric families of the GPUs, and which reading fills which."""

from __future__ import annotations

from exporter.exposition.model import Family

GPU = ("gpu", "uuid", "name")
MIG = ("gpu", "uuid", "name", "gpu_instance", "compute_instance", "mig_uuid", "profile")
PEAK = "the highest reading since the previous scrape, or in gpu.peak_window if that is longer"

THROTTLE_REASONS = (
    "gpu_idle",
    "applications_clocks_setting",
    "sw_power_cap",
    "hw_slowdown",
    "sync_boost",
    "sw_thermal_slowdown",
    "hw_thermal_slowdown",
    "hw_power_brake_slowdown",
    "display_clock_setting",
)
"""Bit n of NVML's mask (nvmlClocksEventReasons) is reason n."""


def throttle_names(mask: int) -> list[str]:
    """The names of the bits that are set; bits without a name are left out."""
    return [name for bit, name in enumerate(THROTTLE_REASONS) if mask >> bit & 1]


def _gauge(name: str, help_: str, *labels: str) -> Family:
    return Family(f"nvidia_gpu_{name}", "gauge", help_, GPU + labels)


def _counter(name: str, help_: str, *labels: str) -> Family:
    return Family(f"nvidia_gpu_{name}_total", "counter", help_, GPU + labels)


UP = Family(
    "vllm_exporter_gpu_up",
    "gauge",
    "1 when the driver answers and every GPU that was seen can be read; the reason stands in vllm_exporter_gpu_status_info.",
)
STATUS = Family(
    "vllm_exporter_gpu_status_info",
    "info",
    "Why vllm_exporter_gpu_up is what it is: ok, library_not_found, driver_not_loaded, driver_library_mismatch, no_devices, no_permission, gpu_lost, reset_required, not_answering, and a few more.",
    ("reason",),
)
DEVICE_UP = _gauge("up", "1 when this GPU can be read, 0 when it was there and is lost.")
INFO = Family(
    "nvidia_gpu_info",
    "info",
    "A GPU and its driver; simulated is true for made-up readings.",
    (*GPU, "driver_version", "cuda_version", "pci_bus_id", "simulated"),
)

GAUGES: dict[str, Family] = {
    "memory_used_bytes": _gauge("memory_used_bytes", "Framebuffer memory in use."),
    "memory_free_bytes": _gauge("memory_free_bytes", "Framebuffer memory that is free."),
    "memory_total_bytes": _gauge("memory_total_bytes", "Framebuffer memory in all."),
    "memory_reserved_bytes": _gauge(
        "memory_reserved_bytes", "Framebuffer memory that driver and firmware keep."
    ),
    "utilization_ratio": _gauge(
        "utilization_ratio", "Share of the last sample period in which a kernel ran on the SMs."
    ),
    "memory_utilization_ratio": _gauge(
        "memory_utilization_ratio",
        "Share of the last sample period in which the memory controller read or wrote.",
    ),
    "encoder_utilization_ratio": _gauge("encoder_utilization_ratio", "Use of the video encoder."),
    "decoder_utilization_ratio": _gauge("decoder_utilization_ratio", "Use of the video decoder."),
    "power_watts": _gauge(
        "power_usage_watts", "Power draw of the board; a mean over a second on newer GPUs."
    ),
    "power_limit_watts": _gauge("power_limit_watts", "Power limit that is enforced."),
    "temperature_celsius": _gauge("temperature_celsius", "Temperature of the GPU core."),
    "memory_temperature_celsius": _gauge("memory_temperature_celsius", "Temperature of the memory."),
    "slowdown_temperature_celsius": _gauge(
        "slowdown_temperature_celsius", "Core temperature at which the hardware slows the clocks down."
    ),
    "shutdown_temperature_celsius": _gauge(
        "shutdown_temperature_celsius", "Core temperature at which the GPU switches itself off."
    ),
    "sm_clock_hertz": _gauge("sm_clock_hertz", "Clock of the SMs."),
    "memory_clock_hertz": _gauge("memory_clock_hertz", "Clock of the memory."),
    "graphics_clock_hertz": _gauge("graphics_clock_hertz", "Clock of the graphics engine."),
    "video_clock_hertz": _gauge("video_clock_hertz", "Clock of the video engines."),
    "sm_clock_limit_hertz": _gauge("sm_clock_limit_hertz", "Highest clock of the SMs."),
    "pcie_transmit_bytes_per_second": _gauge(
        "pcie_transmit_bytes_per_second", "Bytes a second that the GPU sends over PCIe."
    ),
    "pcie_receive_bytes_per_second": _gauge(
        "pcie_receive_bytes_per_second", "Bytes a second that the GPU receives over PCIe."
    ),
    "pcie_link_generation": _gauge(
        "pcie_link_generation", "Present PCIe generation; it falls when the GPU idles."
    ),
    "pcie_link_width": _gauge("pcie_link_width", "Present number of PCIe lanes."),
    "nvlink_links": _gauge("nvlink_links", "NVLinks of this GPU."),
    "row_remap_pending": _gauge("row_remap_pending", "1 when a row remap waits for a reset of the GPU."),
    "row_remap_failure": _gauge("row_remap_failure", "1 when a row could not be remapped."),
    "performance_state": _gauge("performance_state", "Performance state: 0 is the fastest, 15 the slowest."),
    "fan_speed_ratio": _gauge("fan_speed_ratio", "Intended fan speed, as a share of the highest."),
    "mig_enabled": _gauge("mig_enabled", "1 when the GPU is split into MIG instances."),
}
"""Reading field -> gauge with the labels gpu, uuid, name."""

COUNTERS: dict[str, Family] = {
    "energy_joules": _counter(
        "energy_joules",
        "Energy used; goes on over a reload of the driver. From the GPU's own counter, else integrated from power.",
    ),
    "pcie_replays": _counter("pcie_replays", "PCIe packets that had to be sent again."),
    "nvlink_transmit_bytes": _counter("nvlink_transmit_bytes", "Payload bytes sent over all NVLinks."),
    "nvlink_receive_bytes": _counter("nvlink_receive_bytes", "Payload bytes received over all NVLinks."),
}
"""Reading field -> counter with the labels gpu, uuid, name."""

NVLINK_ERRORS = _counter("nvlink_errors", "NVLink errors of all links, by kind.", "kind")
ECC_ERRORS = _counter("ecc_errors", "ECC errors since the driver was loaded, by kind.", "kind")
ECC_LIFETIME_ERRORS = _counter("ecc_lifetime_errors", "ECC errors in the life of the GPU, by kind.", "kind")
REMAPPED_ROWS = _gauge("remapped_rows", "Memory rows remapped because of errors, by kind of error.", "kind")

LABELLED: dict[str, tuple[Family, str]] = {
    "nvlink_crc_flit_errors": (NVLINK_ERRORS, "crc_flit"),
    "nvlink_crc_data_errors": (NVLINK_ERRORS, "crc_data"),
    "nvlink_replay_errors": (NVLINK_ERRORS, "replay"),
    "nvlink_recovery_errors": (NVLINK_ERRORS, "recovery"),
    "ecc_corrected_errors": (ECC_ERRORS, "corrected"),
    "ecc_uncorrected_errors": (ECC_ERRORS, "uncorrected"),
    "ecc_corrected_lifetime_errors": (ECC_LIFETIME_ERRORS, "corrected"),
    "ecc_uncorrected_lifetime_errors": (ECC_LIFETIME_ERRORS, "uncorrected"),
    "remapped_rows_corrected": (REMAPPED_ROWS, "corrected"),
    "remapped_rows_uncorrected": (REMAPPED_ROWS, "uncorrected"),
}
"""Reading field -> family and the value of its fourth label."""

_PEAKING = (
    "memory_used_bytes",
    "utilization_ratio",
    "memory_utilization_ratio",
    "power_watts",
    "temperature_celsius",
    "memory_temperature_celsius",
    "pcie_transmit_bytes_per_second",
    "pcie_receive_bytes_per_second",
)
PEAKS: dict[str, Family] = {
    key: Family(f"{GAUGES[key].name}_max", "gauge", f"{GAUGES[key].help.rstrip('.')}: {PEAK}.", GPU)
    for key in _PEAKING
}
"""Reading field -> the gauge of its peak."""

THROTTLE = _gauge(
    "throttle_reason",
    "1 while the clocks are held down for this reason (or because the GPU idles).",
    "reason",
)
THROTTLE_MAX = Family(
    "nvidia_gpu_throttle_reason_max",
    "gauge",
    f"1 when the clocks were held down for this reason at any reading: {PEAK}.",
    THROTTLE.labels,
)
XID_ERRORS = _counter("xid_errors", "Critical errors that the driver reported (XID), by code.", "xid")
LAST_XID = _gauge("last_xid", "Code of the latest XID error; absent before the first one.")
PROCESS_MEMORY = _gauge(
    "process_memory_used_bytes", "GPU memory of one process of the engine, MIG instances included.", "pid"
)

MIG_INFO = Family("nvidia_gpu_mig_info", "info", "A MIG instance.", MIG)
MIG_GAUGES: dict[str, Family] = {
    f"memory_{kind}_bytes": Family(
        f"nvidia_gpu_mig_memory_{kind}_bytes", "gauge", f"Memory of a MIG instance: {kind}.", MIG
    )
    for kind in ("used", "free", "total", "reserved")
}
"""MIG reading field -> gauge. Families of their own, so that a sum over nvidia_gpu_ counts no byte twice."""

ENERGY_PER_TOKEN = Family(
    "vllm_slo_energy_per_output_token_joules",
    "gauge",
    "Energy of the engine's GPUs for each output token, over the last minute; absent while no token comes out.",
)
TOKENS_PER_GPU = Family(
    "vllm_slo_gpu_output_tokens_per_second",
    "gauge",
    "Output tokens a second for each GPU of the engine, over the last minute.",
)

FAMILIES: tuple[Family, ...] = (
    UP,
    STATUS,
    DEVICE_UP,
    INFO,
    *GAUGES.values(),
    REMAPPED_ROWS,
    *PEAKS.values(),
    *COUNTERS.values(),
    NVLINK_ERRORS,
    ECC_ERRORS,
    ECC_LIFETIME_ERRORS,
    THROTTLE,
    THROTTLE_MAX,
    XID_ERRORS,
    LAST_XID,
    PROCESS_MEMORY,
    MIG_INFO,
    *MIG_GAUGES.values(),
    ENERGY_PER_TOKEN,
    TOKENS_PER_GPU,
)
"""Every family that the GPU part can show."""

DCGM: dict[str, str] = {
    "DCGM_FI_DEV_FB_USED": "nvidia_gpu_memory_used_bytes",
    "DCGM_FI_DEV_FB_FREE": "nvidia_gpu_memory_free_bytes",
    "DCGM_FI_DEV_FB_TOTAL": "nvidia_gpu_memory_total_bytes",
    "DCGM_FI_DEV_FB_RESERVED": "nvidia_gpu_memory_reserved_bytes",
    "DCGM_FI_DEV_GPU_UTIL": "nvidia_gpu_utilization_ratio",
    "DCGM_FI_DEV_MEM_COPY_UTIL": "nvidia_gpu_memory_utilization_ratio",
    "DCGM_FI_DEV_ENC_UTIL": "nvidia_gpu_encoder_utilization_ratio",
    "DCGM_FI_DEV_DEC_UTIL": "nvidia_gpu_decoder_utilization_ratio",
    "DCGM_FI_DEV_POWER_USAGE": "nvidia_gpu_power_usage_watts",
    "DCGM_FI_DEV_ENFORCED_POWER_LIMIT": "nvidia_gpu_power_limit_watts",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": "nvidia_gpu_energy_joules_total",
    "DCGM_FI_DEV_GPU_TEMP": "nvidia_gpu_temperature_celsius",
    "DCGM_FI_DEV_MEMORY_TEMP": "nvidia_gpu_memory_temperature_celsius",
    "DCGM_FI_DEV_SLOWDOWN_TEMP": "nvidia_gpu_slowdown_temperature_celsius",
    "DCGM_FI_DEV_SHUTDOWN_TEMP": "nvidia_gpu_shutdown_temperature_celsius",
    "DCGM_FI_DEV_SM_CLOCK": "nvidia_gpu_sm_clock_hertz",
    "DCGM_FI_DEV_MEM_CLOCK": "nvidia_gpu_memory_clock_hertz",
    "DCGM_FI_DEV_VIDEO_CLOCK": "nvidia_gpu_video_clock_hertz",
    "DCGM_FI_DEV_PCIE_TX_THROUGHPUT": "nvidia_gpu_pcie_transmit_bytes_per_second",
    "DCGM_FI_DEV_PCIE_RX_THROUGHPUT": "nvidia_gpu_pcie_receive_bytes_per_second",
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": "nvidia_gpu_pcie_replays_total",
    "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL": "nvidia_gpu_nvlink_errors_total",
    "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": "nvidia_gpu_ecc_errors_total",
    "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL": "nvidia_gpu_ecc_lifetime_errors_total",
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": "nvidia_gpu_remapped_rows",
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": "nvidia_gpu_row_remap_failure",
    "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS": "nvidia_gpu_throttle_reason",
    "DCGM_FI_DEV_PSTATE": "nvidia_gpu_performance_state",
    "DCGM_FI_DEV_FAN_SPEED": "nvidia_gpu_fan_speed_ratio",
    "DCGM_FI_DEV_XID_ERRORS": "nvidia_gpu_last_xid",
}
"""For those who come from dcgm-exporter: its field -> our family (ours in base units, kinds as a label)."""
