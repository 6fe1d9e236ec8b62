"""When to open, read, give up and try again: the sampler's decisions, without its threads."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from exporter.gpu.energy import EnergyCounter
from exporter.gpu.port import GpuPort, GpuUnavailableError, Values
from exporter.gpu.reading import DriverInfo, GpuIdentity, GpuReading, LostGpu, Snapshot

log = structlog.get_logger(__name__)

RETRY_SECONDS = 1.0
"""First delay before the driver is initialised again; it doubles with each try."""
RETRY_SECONDS_MAX = 60.0
OUTAGE_SECONDS = 5.0
"""Longest time between two steps of an outage: it is told again before anybody takes the thread for stuck."""
STABLE_SECONDS = 120.0
"""Time of good readings after which the delay starts small again."""


class Sampling:
    """Makes one Snapshot per `step`; never raises for the GPU's sake, so that GPU trouble stays GPU trouble.

    A lost GPU does not end the readings of the others: the session goes on, and is opened anew after a delay that
    doubles. `on_open` and `on_close` are called around each session; everything else that uses the port runs between
    them.
    """

    def __init__(
        self,
        port: GpuPort,
        *,
        on_open: Callable[[], None] = lambda: None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._port = port
        self._on_open = on_open
        self._on_close = on_close
        self._driver: DriverInfo | None = None
        self._retry = RETRY_SECONDS
        self._retry_at: float | None = None
        self._good_since = 0.0
        self._outage = ("starting", "")
        self._energy: dict[str, EnergyCounter] = {}
        self._interruption: str | None = None

    def step(self, now: float) -> Snapshot:
        """What there is to know at `now`, a monotonic time in seconds."""
        if self._interruption is not None:
            message, self._interruption = self._interruption, None
            self.close()
            self._fail(now, "internal_error", message)
        if self._driver is not None and self._retry_at is not None and now >= self._retry_at:
            self._close()
        if self._driver is None:
            if self._retry_at is not None and now < self._retry_at:
                return Snapshot(now, *self._outage)
            if not self._open(now):
                return Snapshot(now, *self._outage)
        return self._read(now)

    def pause(self, now: float) -> float:
        """Seconds until there may be news although the driver does not answer; 0 where it does."""
        if self._driver is not None or self._retry_at is None:
            return 0.0
        return min(OUTAGE_SECONDS, self._retry_at - now)

    def interrupt(self, message: str) -> None:
        """Let the next step end the session: something beside it broke. May be called from any thread."""
        self._interruption = message

    def close(self) -> None:
        """End the session, if there is one."""
        if self._driver is not None:
            self._close()

    def _open(self, now: float) -> bool:
        try:
            self._driver = self._port.open(now)
        except GpuUnavailableError as error:
            self._fail(now, error.reason, str(error))
            return False
        except Exception as error:
            log.exception("gpu_open_crashed", error=repr(error))
            self._fail(now, "internal_error", repr(error))
            return False
        self._retry_at = None
        self._good_since = now
        self._on_open()
        return True

    def _read(self, now: float) -> Snapshot:
        try:
            found, lost = self._port.read(now)
            readings = tuple(self._reading(now, *one) for one in found)
        except GpuUnavailableError as error:
            self._close()
            self._fail(now, error.reason, str(error))
            return Snapshot(now, *self._outage)
        except Exception as error:
            log.exception("gpu_read_crashed", error=repr(error))
            self._close()
            self._fail(now, "internal_error", repr(error))
            return Snapshot(now, *self._outage)
        if lost:
            if self._retry_at is None:
                self._fail(now, lost[0].reason, _describe(lost))
            return Snapshot(now, lost[0].reason, _describe(lost), self._driver, readings, lost)
        if now - self._good_since >= STABLE_SECONDS:
            self._retry = RETRY_SECONDS
        return Snapshot(now, "ok", "", self._driver, readings)

    def _reading(self, now: float, identity: GpuIdentity, values: Values) -> GpuReading:
        counter = self._energy.get(identity.uuid)
        if counter is None:
            counter = self._energy[identity.uuid] = EnergyCounter()
        values["energy_joules"] = counter.update(
            now, joules=values.get("energy_joules"), watts=values.get("power_watts")
        )
        assert self._driver is not None
        return GpuReading(
            identity.index,
            identity.uuid,
            identity.name,
            identity.pci_bus_id,
            self._driver.simulated,
            **values,
        )

    def _close(self) -> None:
        self._driver = None
        self._retry_at = None
        self._on_close()
        self._port.close()

    def _fail(self, now: float, reason: str, message: str) -> None:
        self._outage = (reason, message)
        self._retry_at = now + self._retry
        self._retry = min(self._retry * 2, RETRY_SECONDS_MAX)


def _describe(lost: tuple[LostGpu, ...]) -> str:
    return ", ".join(f"GPU {one.identity.index} ({one.identity.name}): {one.reason}" for one in lost)
