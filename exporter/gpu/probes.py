"""What is asked of NVML, field by field, and what an answer means.

A probe is one call that fills one or more reading fields, with other calls to fall back on where drivers differ.
Fields that NVML answers in batches (nvmlDeviceGetFieldValues) are listed apart: one call brings them all.
Units of NVML: memory bytes, power mW, energy mJ, clocks MHz, utilization and fan percent, PCIe throughput KB/s
(over 20 ms), NVLink throughput KiB. https://docs.nvidia.com/deploy/nvml-api/
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

Call = Callable[[Any, Any], tuple[float | int | None, ...]]
"""(pynvml, device handle) -> values in base units; raises pynvml.NVMLError."""

_NOT_AVAILABLE_64 = (1 << 64) - 1
_NOT_AVAILABLE_32 = (1 << 32) - 1
_ALL_LINKS = 0xFFFFFFFF
_PSTATE_UNKNOWN = 32


class Pace(Enum):
    """How often a field is read."""

    FAST = "fast"
    """Every tick: what moves with the load."""
    SLOW = "slow"
    """Every few seconds, in the slow thread."""
    BLOCKING = "blocking"
    """As often as slow; the call itself takes a measuring time."""
    STATIC = "static"
    """Hardly ever changes; every minute, in the slow thread."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One call, what it fills, and the calls to try when the driver does not know or support it."""

    pace: Pace
    fields: tuple[str, ...]
    calls: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class FieldValue:
    """One value of nvmlDeviceGetFieldValues: its constant in pynvml, scope (a link), and the way to the base unit."""

    pace: Pace
    field: str
    constant: str
    scope: int = 0
    times: int = 1
    per: int = 1


def _bytes(value: int) -> int | None:
    return None if value == _NOT_AVAILABLE_64 else int(value)


def _memory_v2(nvml: Any, handle: Any) -> tuple[int | None, ...]:
    info = nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2)
    return (_bytes(info.used), _bytes(info.free), _bytes(info.total), _bytes(info.reserved))


def _memory_v1(nvml: Any, handle: Any) -> tuple[int | None, ...]:
    info = nvml.nvmlDeviceGetMemoryInfo(handle)
    return (_bytes(info.used), _bytes(info.free), _bytes(info.total), None)


def _utilization(nvml: Any, handle: Any) -> tuple[float, ...]:
    rates = nvml.nvmlDeviceGetUtilizationRates(handle)
    return (rates.gpu / 100, rates.memory / 100)


def _performance_state(nvml: Any, handle: Any) -> tuple[int | None]:
    state = nvml.nvmlDeviceGetPerformanceState(handle)
    return (None if state == _PSTATE_UNKNOWN else state,)


def _number(function: str, *arguments: int, times: int = 1, per: int = 1) -> Call:
    """A call that gives one unsigned number; all ones means not available."""

    def call(nvml: Any, handle: Any) -> tuple[float | None]:
        value = getattr(nvml, function)(handle, *arguments)
        if value in (_NOT_AVAILABLE_32, _NOT_AVAILABLE_64):
            return (None,)
        return (value * times if per == 1 else value / per,)

    return call


def _first(function: str, per: int = 1) -> Call:
    """A call that gives a list, of which the first number counts."""

    def call(nvml: Any, handle: Any) -> tuple[float]:
        value = getattr(nvml, function)(handle)[0]
        return (value if per == 1 else value / per,)

    return call


def _threshold(kind: int) -> Probe:
    field = ("shutdown_temperature_celsius", "slowdown_temperature_celsius")[kind]
    return Probe(Pace.STATIC, (field,), (_number("nvmlDeviceGetTemperatureThreshold", kind),))


def _clock(pace: Pace, field: str, function: str, kind: int) -> Probe:
    return Probe(pace, (field,), (_number(function, kind, times=1_000_000),))


MEMORY_FIELDS = ("memory_used_bytes", "memory_free_bytes", "memory_total_bytes", "memory_reserved_bytes")
MEMORY_CALLS: tuple[Call, ...] = (_memory_v2, _memory_v1)

PROBES: tuple[Probe, ...] = (
    Probe(Pace.FAST, MEMORY_FIELDS, MEMORY_CALLS),
    Probe(Pace.FAST, ("utilization_ratio", "memory_utilization_ratio"), (_utilization,)),
    Probe(Pace.FAST, ("power_watts",), (_number("nvmlDeviceGetPowerUsage", per=1000),)),
    Probe(
        Pace.FAST,
        ("temperature_celsius",),
        (_number("nvmlDeviceGetTemperature", 0), _number("nvmlDeviceGetTemperatureV", 0)),
    ),
    _clock(Pace.FAST, "sm_clock_hertz", "nvmlDeviceGetClockInfo", 1),
    Probe(
        Pace.FAST,
        ("throttle_reasons",),
        (
            _number("nvmlDeviceGetCurrentClocksEventReasons"),
            _number("nvmlDeviceGetCurrentClocksThrottleReasons"),
        ),
    ),
    Probe(Pace.SLOW, ("encoder_utilization_ratio",), (_first("nvmlDeviceGetEncoderUtilization", 100),)),
    Probe(Pace.SLOW, ("decoder_utilization_ratio",), (_first("nvmlDeviceGetDecoderUtilization", 100),)),
    _clock(Pace.SLOW, "memory_clock_hertz", "nvmlDeviceGetClockInfo", 2),
    _clock(Pace.SLOW, "graphics_clock_hertz", "nvmlDeviceGetClockInfo", 0),
    _clock(Pace.SLOW, "video_clock_hertz", "nvmlDeviceGetClockInfo", 3),
    Probe(Pace.SLOW, ("performance_state",), (_performance_state,)),
    Probe(
        Pace.SLOW,
        ("fan_speed_ratio",),
        (_number("nvmlDeviceGetFanSpeed", per=100), _number("nvmlDeviceGetFanSpeed_v2", 0, per=100)),
    ),
    Probe(Pace.SLOW, ("pcie_link_generation",), (_number("nvmlDeviceGetCurrPcieLinkGeneration"),)),
    Probe(Pace.SLOW, ("pcie_link_width",), (_number("nvmlDeviceGetCurrPcieLinkWidth"),)),
    Probe(
        Pace.BLOCKING,
        ("pcie_transmit_bytes_per_second",),
        (_number("nvmlDeviceGetPcieThroughput", 0, times=1000),),
    ),
    Probe(
        Pace.BLOCKING,
        ("pcie_receive_bytes_per_second",),
        (_number("nvmlDeviceGetPcieThroughput", 1, times=1000),),
    ),
    Probe(Pace.STATIC, ("power_limit_watts",), (_number("nvmlDeviceGetEnforcedPowerLimit", per=1000),)),
    _threshold(0),
    _threshold(1),
    _clock(Pace.STATIC, "sm_clock_limit_hertz", "nvmlDeviceGetMaxClockInfo", 1),
    Probe(Pace.STATIC, ("mig_enabled",), (_first("nvmlDeviceGetMigMode"),)),
)

FIELD_VALUES: tuple[FieldValue, ...] = (
    FieldValue(Pace.FAST, "memory_temperature_celsius", "NVML_FI_DEV_MEMORY_TEMP"),
    FieldValue(Pace.FAST, "energy_joules", "NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION", per=1000),
    FieldValue(Pace.SLOW, "pcie_replays", "NVML_FI_DEV_PCIE_REPLAY_COUNTER"),
    FieldValue(Pace.SLOW, "nvlink_links", "NVML_FI_DEV_NVLINK_LINK_COUNT"),
    FieldValue(Pace.SLOW, "nvlink_transmit_bytes", "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX", _ALL_LINKS, 1024),
    FieldValue(Pace.SLOW, "nvlink_receive_bytes", "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX", _ALL_LINKS, 1024),
    FieldValue(Pace.SLOW, "nvlink_crc_flit_errors", "NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL"),
    FieldValue(Pace.SLOW, "nvlink_crc_data_errors", "NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL"),
    FieldValue(Pace.SLOW, "nvlink_replay_errors", "NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL"),
    FieldValue(Pace.SLOW, "nvlink_recovery_errors", "NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL"),
    FieldValue(Pace.SLOW, "ecc_corrected_errors", "NVML_FI_DEV_ECC_SBE_VOL_TOTAL"),
    FieldValue(Pace.SLOW, "ecc_uncorrected_errors", "NVML_FI_DEV_ECC_DBE_VOL_TOTAL"),
    FieldValue(Pace.SLOW, "ecc_corrected_lifetime_errors", "NVML_FI_DEV_ECC_SBE_AGG_TOTAL"),
    FieldValue(Pace.SLOW, "ecc_uncorrected_lifetime_errors", "NVML_FI_DEV_ECC_DBE_AGG_TOTAL"),
    FieldValue(Pace.SLOW, "remapped_rows_corrected", "NVML_FI_DEV_REMAPPED_COR"),
    FieldValue(Pace.SLOW, "remapped_rows_uncorrected", "NVML_FI_DEV_REMAPPED_UNC"),
    FieldValue(Pace.SLOW, "row_remap_pending", "NVML_FI_DEV_REMAPPED_PENDING"),
    FieldValue(Pace.SLOW, "row_remap_failure", "NVML_FI_DEV_REMAPPED_FAILURE"),
)

_VALUE_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


def field_value(answer: Any) -> float | int | None:
    """The value in a c_nvmlFieldValue_t, by its type; None for a type newer than this table, or all ones."""
    kind = answer.valueType
    if not 0 <= kind < len(_VALUE_MEMBERS):
        return None
    value: float | int = getattr(answer.value, _VALUE_MEMBERS[kind])
    unsigned = kind in (1, 2, 3)
    return None if unsigned and value in (_NOT_AVAILABLE_32, _NOT_AVAILABLE_64) else value


class Verdict(Enum):
    """What an NVML error says about asking again."""

    UNSUPPORTED = "unsupported"
    """Never, until the driver is initialised anew."""
    LATER = "later"
    """Absent now; worth another try."""
    DEVICE_LOST = "device_lost"
    """This GPU is gone."""
    SESSION_LOST = "session_lost"
    """The driver is gone, or is another one by now."""


_SESSION = frozenset((1, 9, 18))  # UNINITIALIZED, DRIVER_NOT_LOADED, LIB_RM_VERSION_MISMATCH
_DEVICE = frozenset((15, 16))  # GPU_IS_LOST, RESET_REQUIRED
_PASSING = frozenset(
    (10, 19, 20, 21, 23, 27)
)  # TIMEOUT, IN_USE, MEMORY, NO_DATA, INSUFFICIENT_RESOURCES, NOT_READY


def judge(code: int, *, worked: bool) -> Verdict:
    """The verdict on an NVML return code; `worked`: the same call has succeeded in this session.

    What worked before and fails for an unclear reason is tried again; what never did is not.
    """
    if code in _SESSION:
        return Verdict.SESSION_LOST
    if code in _DEVICE:
        return Verdict.DEVICE_LOST
    if code in _PASSING:
        return Verdict.LATER
    if code == 3 or not worked:
        return Verdict.UNSUPPORTED
    return Verdict.LATER


REASONS = {
    1: "driver_unloaded",
    4: "no_permission",
    9: "driver_not_loaded",
    12: "library_not_found",
    13: "library_too_old",
    15: "gpu_lost",
    16: "reset_required",
    18: "driver_library_mismatch",
}
"""NVML return code -> reason in `vllm_exporter_gpu_status_info`."""


def reason_of(code: int) -> str:
    """The reason word for an error code."""
    return REASONS.get(code, "nvml_error")
