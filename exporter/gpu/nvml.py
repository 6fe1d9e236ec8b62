"""The driver's readings, through nvidia-ml-py."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from exporter.gpu.device import Device, DeviceLost, SessionLost
from exporter.gpu.port import GpuUnavailableError, Values
from exporter.gpu.probes import Pace, reason_of
from exporter.gpu.reading import DriverInfo, GpuIdentity, LostGpu, XidEvent

SLOW_SECONDS = 5.0
"""Time between two readings of slow fields (clocks of memory and video, ECC, NVLink, PCIe)."""
STATIC_SECONDS = 60.0
"""Time between two readings of limits, thresholds and the MIG layout."""
SLOW_STALE_SECONDS = 30.0
"""Time without a finished slow round after which slow fields are absent: a call that hangs must not freeze them."""


@dataclass(slots=True)
class _Schedule:
    slow: float
    static: float


class NvmlPort:
    """GpuPort over NVML. The binding is imported in `open`: it takes 20 ms, and most machines without GPU never need it."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._devices: list[Device] = []
        self._seen: dict[str, GpuIdentity] = {}
        self._missing: tuple[LostGpu, ...] = ()
        self._schedule = _Schedule(0.0, 0.0)
        self._slow_done = 0.0
        self._events: Any = None
        self._by_handle: dict[int | None, GpuIdentity] = {}
        self._ended: int | None = None
        self._inside: set[str] = set()
        """Which other threads are in a call. One that never returns must not lose the library under its feet."""

    def open(self, now: float) -> DriverInfo:
        """Initialise NVML and find the GPUs; raises GpuUnavailableError with NVML's reason."""
        import pynvml

        self._nvml = nvml = pynvml
        try:
            nvml.nvmlInit()
        except nvml.NVMLError as error:
            self._nvml = None
            if error.value == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH and not self._inside:
                _forget_library(nvml)
            raise GpuUnavailableError(reason_of(error.value), f"NVML does not start: {error}") from error
        try:
            self._ended = None
            self._find_devices()
            self._schedule = _Schedule(slow=now, static=now + STATIC_SECONDS)
            self._slow_done = now
            for device in self._devices:
                self._refresh(device, (Pace.STATIC, Pace.SLOW))
            self._create_events()
            return DriverInfo(self._system("nvmlSystemGetDriverVersion"), self._cuda_version())
        except nvml.NVMLError as error:
            self.close()
            raise GpuUnavailableError(reason_of(error.value), f"NVML finds no GPU: {error}") from error
        except GpuUnavailableError:
            self.close()
            raise

    def read(self, now: float) -> tuple[list[tuple[GpuIdentity, Values]], tuple[LostGpu, ...]]:
        """The fast fields, together with the latest slow ones."""
        if self._ended is not None:
            raise GpuUnavailableError(reason_of(self._ended), _message(self._ended))
        readings: list[tuple[GpuIdentity, Values]] = []
        lost = list(self._missing)
        stale = now - self._slow_done > SLOW_STALE_SECONDS
        for device in self._devices:
            if device.lost is None:
                try:
                    slow = {} if stale else device.slow
                    readings.append((device.identity, slow | device.read(Pace.FAST)))
                    continue
                except DeviceLost as error:
                    device.lost = error.code
                except SessionLost as error:
                    raise GpuUnavailableError(reason_of(error.code), _message(error.code)) from error
            lost.append(LostGpu(device.identity, _device_reason(device.lost)))
        return readings, tuple(lost)

    def read_slow(self, now: float) -> None:
        """Process lists each time, slow and static fields when their time has come."""
        self._inside.add("slow")
        try:
            self._read_slow(now)
        finally:
            self._inside.discard("slow")

    def _read_slow(self, now: float) -> None:
        paces: list[Pace] = []
        if now >= self._schedule.static:
            paces.append(Pace.STATIC)
            self._schedule.static = now + STATIC_SECONDS
        if now >= self._schedule.slow:
            paces += (Pace.SLOW, Pace.BLOCKING)
            self._schedule.slow = now + SLOW_SECONDS
        for place, device in enumerate(self._devices):
            if device.lost is not None:
                continue
            before = device.slow.get("mig_enabled")
            self._refresh(device, paces)
            if Pace.STATIC in paces and device.slow.get("mig_enabled") != before:
                # Another set of fields is supported from now on: start again with an open mind.
                fresh = Device(self._nvml, device.handle, device.identity)
                self._refresh(fresh, (Pace.STATIC, Pace.SLOW))
                self._devices[place] = fresh
        self._slow_done = now

    @property
    def has_events(self) -> bool:
        """Whether at least one GPU reports XID errors."""
        return self._events is not None

    def wait_event(self, timeout: float) -> XidEvent | None:
        """Wait for the next XID error; without events, or when waiting fails, there is none and never will be."""
        nvml = self._nvml
        if self._events is None or nvml is None:
            return None
        self._inside.add("events")
        try:
            data = nvml.nvmlEventSetWait(self._events, int(timeout * 1000))
        except nvml.NVMLError as error:
            if error.value != nvml.NVML_ERROR_TIMEOUT:
                self._free_events()
            return None
        finally:
            self._inside.discard("events")
        identity = self._by_handle.get(_address(data.device))
        if identity is None or data.eventType != nvml.nvmlEventTypeXidCriticalError:
            return None
        return XidEvent(identity, int(data.eventData))

    def close(self) -> None:
        """Give the session back; errors on the way out do not matter."""
        nvml = self._nvml
        if nvml is None:
            return
        if "events" not in self._inside:
            self._free_events()
        self._events = None
        self._nvml = None
        self._devices = []
        self._by_handle = {}
        if self._inside:
            return
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()

    def _find_devices(self) -> None:
        nvml = self._nvml
        count = nvml.nvmlDeviceGetCount()
        devices: list[Device] = []
        refused: int | None = None
        nameless: list[LostGpu] = []
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                identity = GpuIdentity(
                    index, nvml.nvmlDeviceGetUUID(handle), nvml.nvmlDeviceGetName(handle), self._bus(handle)
                )
            except nvml.NVMLError as error:
                # One that the container may not open is none of ours; one that was lost before we came is.
                refused = error.value
                if refused in _LOST and all(one.index != index for one in self._seen.values()):
                    nameless.append(LostGpu(GpuIdentity(index, "", ""), _device_reason(refused)))
                continue
            devices.append(Device(nvml, handle, identity))
        if not devices:
            if refused is not None:
                raise GpuUnavailableError(
                    reason_of(refused), f"none of {count} GPUs can be opened: NVML error {refused}"
                )
            raise GpuUnavailableError("no_devices", "the driver runs and has no GPU")
        present = {device.identity.uuid for device in devices}
        missing = [
            LostGpu(identity, "gpu_lost") for uuid, identity in self._seen.items() if uuid not in present
        ]
        self._missing = (*missing, *nameless)
        self._seen.update((device.identity.uuid, device.identity) for device in devices)
        self._by_handle = {_address(device.handle): device.identity for device in devices}
        self._devices = devices

    def _refresh(self, device: Device, paces: Iterable[Pace]) -> None:
        try:
            device.refresh(paces)
        except DeviceLost as error:
            device.lost = error.code
        except SessionLost as error:
            self._ended = error.code

    def _bus(self, handle: Any) -> str:
        nvml = self._nvml
        try:
            bus = nvml.nvmlDeviceGetPciInfo(handle).busId
        except nvml.NVMLError:
            return ""
        return bus.decode() if isinstance(bus, bytes) else str(bus)

    def _create_events(self) -> None:
        nvml = self._nvml
        self._events = None
        try:
            events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:
            return
        registered = False
        for device in self._devices:
            with contextlib.suppress(nvml.NVMLError):
                nvml.nvmlDeviceRegisterEvents(device.handle, nvml.nvmlEventTypeXidCriticalError, events)
                registered = True
        self._events = events
        if not registered:
            self._free_events()

    def _free_events(self) -> None:
        nvml, events, self._events = self._nvml, self._events, None
        if nvml is not None and events is not None:
            with contextlib.suppress(nvml.NVMLError):
                nvml.nvmlEventSetFree(events)

    def _system(self, function: str) -> str:
        try:
            return str(getattr(self._nvml, function)())
        except self._nvml.NVMLError:
            return ""

    def _cuda_version(self) -> str:
        try:
            version: int = self._nvml.nvmlSystemGetCudaDriverVersion_v2()
        except self._nvml.NVMLError:
            return ""
        return f"{version // 1000}.{version % 1000 // 10}"


_LOST = {15: "gpu_lost", 16: "reset_required"}


def _device_reason(code: int) -> str:
    return _LOST.get(code, "not_answering")


def _message(code: int) -> str:
    return f"the driver stopped answering (NVML error {code})"


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def _forget_library(nvml: Any) -> None:
    """Unload the NVML library, so that the next start loads the one that fits the driver by then.

    After a driver upgrade the old library stays mapped in this process, and the dynamic loader would hand it out for
    ever. Nothing of it is in use here: it has refused to start.
    """
    import _ctypes

    library, nvml.nvmlLib = nvml.nvmlLib, None
    nvml._nvmlGetFunctionPointer_cache.clear()
    if isinstance(library, ctypes.CDLL):
        _ctypes.dlclose(library._handle)
