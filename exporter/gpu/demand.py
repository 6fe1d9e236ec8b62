"""Which engine is on which GPU, and so how many requests wait for a GPU's work.

Of one engine the rules find that out by themselves: its series and the GPUs' come from the same instance. Of several they
cannot: an engine's series bear its name as `instance`, the GPUs' the daemon's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from exporter.exposition.block import Block, Slot
from exporter.exposition.model import Family
from exporter.gpu.reading import GpuReading

WAITING = Family(
    "vllm_exporter_gpu_requests_waiting",
    "gauge",
    "Requests that wait at the engines on this GPU, by `gpus` of their settings or by their processes; only with several engines.",
    ("gpu", "uuid"),
)


@dataclass(frozen=True, slots=True)
class Tenant:
    """An engine: its processes, the indices or UUIDs of its GPUs where the settings name them, requests that wait."""

    pids: frozenset[int]
    gpus: tuple[str, ...]
    waiting: float


def is_on(tenant: Tenant, reading: GpuReading) -> bool:
    """Whether an engine uses a GPU: by its settings; without such by its processes, where the driver tells of them."""
    if tenant.gpus:
        uuids = (reading.uuid, *(part.uuid for part in reading.mig))
        return any(
            gpu == str(reading.index) or any(uuid.startswith(gpu) for uuid in uuids) for gpu in tenant.gpus
        )
    parts = (reading.processes, *(part.processes for part in reading.mig))
    return any(process.pid in tenant.pids for processes in parts for process in processes or ())


class GpuDemand:
    """Writes the requests that wait for each GPU into a block; absent where no engine is known to be on it."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._slots: dict[tuple[str, str], Slot] = {}

    def publish(self, readings: Iterable[GpuReading], tenants: Iterable[Tenant]) -> None:
        """The present figures, of the latest readings."""
        tenants = tuple(tenants)
        shown = {}
        for reading in readings:
            on_it = [tenant.waiting for tenant in tenants if is_on(tenant, reading)]
            if on_it:
                shown[str(reading.index), reading.uuid] = sum(on_it)
        for gone in self._slots.keys() - shown.keys():
            self._block.remove(self._slots.pop(gone))
        for labels, waiting in shown.items():
            slot = self._slots.get(labels)
            if slot is None:
                slot = self._slots[labels] = self._block.gauge(WAITING, *labels)
            slot.set(waiting)
