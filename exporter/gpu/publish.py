"""Snapshots into metric series: the latest readings, their peaks, and what follows from them and the tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from exporter.exposition.block import Block, Slot
from exporter.exposition.model import Family
from exporter.gpu import families
from exporter.gpu.peaks import MaskPeak, Peak
from exporter.gpu.reading import DriverInfo, GpuReading, LostGpu, MigReading, Snapshot, XidEvent

DERIVED_SECONDS = 60.0
"""Window of energy per token and tokens per GPU: longer than a pause between requests, shorter than a shift of load."""
DERIVED_SECONDS_MIN = 5.0
"""Shortest span that gives a rate: tokens are seen at the scrape interval, energy at the sampling interval."""


class Publisher:
    """Writes snapshots into a block; event loop only. An outage takes every reading away, XID counts stay."""

    def __init__(
        self,
        block: Block,
        *,
        peak_window: float,
        engine_pids: Callable[[], frozenset[int]],
        tokens_total: Callable[[], float | None],
    ) -> None:
        self._block = block
        self._window = peak_window
        self._engine_pids = engine_pids
        self._tokens_total = tokens_total
        self._gpus: dict[tuple[str, str, str], _GpuSeries] = {}
        self._lost: dict[tuple[str, str, str], Slot] = {}
        self._status: Slot | None = None
        self._reason = ""
        self._derived = _Derived(block)

    def accept(self, snapshot: Snapshot) -> None:
        """Take note of a tick: peaks and windows; nothing is shown yet."""
        for reading in snapshot.readings:
            self._series(reading, snapshot.driver).watch(snapshot.time, reading)
        self._derived.watch(snapshot, self._engine_pids(), self._tokens_total())

    def show(self, snapshot: Snapshot, *, scraped: bool = True) -> None:
        """Write a tick into the block; for a scrape, the time of the peaks starts anew."""
        self._show_status(snapshot.reason)
        pids = self._engine_pids()
        present = set()
        for reading in snapshot.readings:
            series = self._series(reading, snapshot.driver)
            present.add(series.labels)
            series.show(snapshot.time, reading, pids, scraped=scraped)
        for labels in self._gpus.keys() - present:
            self._gpus.pop(labels).remove()
        self._show_lost(snapshot.lost)
        self._derived.show()

    def count(self, event: XidEvent) -> None:
        """Count a critical error of the driver."""
        labels = event.identity.labels
        self._block.counter(families.XID_ERRORS, *labels, str(event.xid)).inc()
        self._block.gauge(families.LAST_XID, *labels).set(event.xid)

    def _series(self, reading: GpuReading, driver: DriverInfo | None) -> _GpuSeries:
        labels = (str(reading.index), reading.uuid, reading.name)
        series = self._gpus.get(labels)
        if series is None:
            series = self._gpus[labels] = _GpuSeries(self._block, labels, self._window)
        if driver is not None and driver is not series.driver:
            series.introduce(reading, driver)
        return series

    def _show_status(self, reason: str) -> None:
        self._block.gauge(families.UP).set(1 if reason == "ok" else 0)
        if reason != self._reason:
            if self._status is not None:
                self._block.remove(self._status)
            self._status = self._block.info(families.STATUS, reason)
            self._reason = reason

    def _show_lost(self, lost: tuple[LostGpu, ...]) -> None:
        now_lost = {one.identity.labels for one in lost}
        for labels in self._lost.keys() - now_lost:
            if labels not in self._gpus:
                self._block.remove(self._lost[labels])
            del self._lost[labels]
        for labels in now_lost:
            slot = self._lost[labels] = self._block.gauge(families.DEVICE_UP, *labels)
            slot.set(0)


class _GpuSeries:
    """The slots of one GPU: made once, so that showing a reading is a row of comparisons."""

    def __init__(self, block: Block, labels: tuple[str, str, str], window: float) -> None:
        self.labels = labels
        self.driver: DriverInfo | None = None
        self._block = block
        self._slots: list[Slot] = []
        self._device_up = self._slot(families.DEVICE_UP)
        self._info: Slot | None = None
        self._plain: list[tuple[str, Slot]] = []
        for key, family in (*families.GAUGES.items(), *families.COUNTERS.items()):
            self._plain.append((key, self._slot(family)))
        for key, (family, kind) in families.LABELLED.items():
            self._plain.append((key, self._slot(family, kind)))
        self._peaks = [(key, self._slot(family), Peak(window)) for key, family in families.PEAKS.items()]
        self._throttle = [
            (bit, self._slot(families.THROTTLE, reason), self._slot(families.THROTTLE_MAX, reason))
            for bit, reason in enumerate(families.THROTTLE_REASONS)
        ]
        self._throttle_peak = MaskPeak(window)
        self._masks: tuple[int, int] | None = None
        self._processes: dict[str, Slot] = {}
        self._mig: dict[tuple[str, ...], list[Slot]] = {}

    def introduce(self, reading: GpuReading, driver: DriverInfo) -> None:
        """Show who this is; another driver, after a reload, takes the place of the one before."""
        self.driver = driver
        self._device_up.set(1)
        if self._info is not None:
            self._block.remove(self._info)
        self._info = self._block.info(
            families.INFO,
            *self.labels,
            driver.driver_version,
            driver.cuda_version,
            reading.pci_bus_id,
            "true" if reading.simulated else "false",
        )

    def watch(self, now: float, reading: GpuReading) -> None:
        """Keep the peaks."""
        for key, _, peak in self._peaks:
            value = getattr(reading, key)
            if value is not None:
                peak.add(now, value)
        if reading.throttle_reasons is not None:
            self._throttle_peak.add(now, reading.throttle_reasons)

    def show(self, now: float, reading: GpuReading, engine_pids: frozenset[int], *, scraped: bool) -> None:
        """Write one reading."""
        for key, slot in self._plain:
            slot.set(getattr(reading, key))
        for key, slot, peak in self._peaks:
            slot.set(None if getattr(reading, key) is None else peak.scrape(now, counts=scraped))
        self._show_throttle(now, reading.throttle_reasons, scraped=scraped)
        self._show_processes(reading, engine_pids)
        if reading.mig or self._mig:
            self._show_mig(reading.mig)

    def remove(self) -> None:
        """Take every series of this GPU away."""
        for slots in (self._slots, self._processes.values(), *self._mig.values()):
            for slot in slots:
                self._block.remove(slot)
        if self._info is not None:
            self._block.remove(self._info)

    def _slot(self, family: Family, *more: str) -> Slot:
        make = self._block.counter if family.type == "counter" else self._block.gauge
        slot = make(family, *self.labels, *more)
        self._slots.append(slot)
        return slot

    def _show_throttle(self, now: float, mask: int | None, *, scraped: bool) -> None:
        masks = None if mask is None else (mask, self._throttle_peak.scrape(now, counts=scraped))
        if masks == self._masks:
            return
        self._masks = masks
        for bit, slot, peak in self._throttle:
            slot.set(None if masks is None else masks[0] >> bit & 1)
            peak.set(None if masks is None else masks[1] >> bit & 1)

    def _show_processes(self, reading: GpuReading, engine_pids: frozenset[int]) -> None:
        used: dict[str, int] = {}
        for one in reading.every_process() or ():
            if one.pid in engine_pids and one.memory_bytes is not None:
                used[str(one.pid)] = used.get(str(one.pid), 0) + one.memory_bytes
        for pid in self._processes.keys() - used.keys():
            self._block.remove(self._processes.pop(pid))
        for pid, memory in used.items():
            slot = self._processes.get(pid)
            if slot is None:
                slot = self._processes[pid] = self._block.gauge(families.PROCESS_MEMORY, *self.labels, pid)
            slot.set(memory)

    def _show_mig(self, instances: tuple[MigReading, ...]) -> None:
        shown = {
            (*self.labels, str(one.gpu_instance), str(one.compute_instance), one.uuid, one.profile): one
            for one in instances
        }
        for labels in self._mig.keys() - shown.keys():
            for slot in self._mig.pop(labels):
                self._block.remove(slot)
        for labels, one in shown.items():
            slots = self._mig.get(labels)
            if slots is None:
                slots = [self._block.gauge(family, *labels) for family in families.MIG_GAUGES.values()]
                slots.append(self._block.info(families.MIG_INFO, *labels))
                self._mig[labels] = slots
            for key, slot in zip(families.MIG_GAUGES, slots, strict=False):
                slot.set(getattr(one, key))


class _Derived:
    """Energy per output token and tokens per GPU, from the ends of a sliding window."""

    def __init__(self, block: Block) -> None:
        self._per_token = block.gauge(families.ENERGY_PER_TOKEN)
        self._per_gpu = block.gauge(families.TOKENS_PER_GPU)
        self._gpus: frozenset[str] = frozenset()
        self._points: deque[tuple[float, float | None, float]] = deque()  # time, joules, tokens

    def watch(self, snapshot: Snapshot, engine_pids: frozenset[int], tokens: float | None) -> None:
        """Take one tick; other GPUs than before, or tokens that went back, start the window anew."""
        points = self._points
        used = _engine_gpus(snapshot.readings, engine_pids)
        gpus = frozenset(one.uuid for one in used)
        if gpus != self._gpus or tokens is None or (points and tokens < points[-1][2]):
            points.clear()
            self._gpus = gpus
        if tokens is None or not gpus:
            return
        joules = [one.energy_joules for one in used]
        known = None if None in joules else sum(one for one in joules if one is not None)
        points.append((snapshot.time, known, tokens))
        while points[0][0] < snapshot.time - DERIVED_SECONDS:
            points.popleft()

    def show(self) -> None:
        """Write both, or take them away."""
        per_token = per_gpu = None
        if self._points:
            (start, joules, tokens), (end, joules_now, tokens_now) = self._points[0], self._points[-1]
            if end - start >= DERIVED_SECONDS_MIN:
                per_gpu = (tokens_now - tokens) / (end - start) / len(self._gpus)
                if tokens_now > tokens and joules is not None and joules_now is not None:
                    per_token = (joules_now - joules) / (tokens_now - tokens)
        self._per_token.set(per_token)
        self._per_gpu.set(per_gpu)


def _engine_gpus(readings: tuple[GpuReading, ...], engine_pids: frozenset[int]) -> list[GpuReading]:
    """The GPUs on which the engine holds memory; all of them when nobody can tell."""
    used = [
        one for one in readings if any(process.pid in engine_pids for process in one.every_process() or ())
    ]
    return used or list(readings)
