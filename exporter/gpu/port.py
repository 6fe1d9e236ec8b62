"""The port between the sampler and a source of GPU readings: the driver, or made-up values."""

from __future__ import annotations

from typing import Any, Protocol

from exporter.errors import ExporterError
from exporter.gpu.reading import DriverInfo, GpuIdentity, LostGpu, XidEvent

Values = dict[str, Any]
"""Fields of GpuReading by name, without the identity; `energy_joules` as the device counts it."""


class GpuUnavailableError(ExporterError):
    """No GPU can be read at all; `reason` as in `vllm_exporter_gpu_status_info{reason}`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class GpuPort(Protocol):
    """A source of readings. Blocking; `read`, `read_slow` and `wait_event` each belong to one thread.

    Nothing else runs during `open` and `close`.
    """

    def open(self, now: float) -> DriverInfo:
        """Start a session; raises GpuUnavailableError. Whatever was found to be unsupported before is forgotten."""

    def read(self, now: float) -> tuple[list[tuple[GpuIdentity, Values]], tuple[LostGpu, ...]]:
        """The readings of this moment, and who was lost; raises GpuUnavailableError when the session is over.

        `now` is a monotonic time in seconds.
        """

    def read_slow(self, now: float) -> None:
        """Read what blocks or hardly changes; the next `read` shows it. Never raises for a device's sake."""

    def wait_event(self, timeout: float) -> XidEvent | None:
        """Wait for a critical error, at most this long (seconds)."""

    @property
    def has_events(self) -> bool:
        """Whether `wait_event` is worth a thread."""

    def close(self) -> None:
        """End the session; never raises, and does nothing without one."""
