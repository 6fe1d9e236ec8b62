from __future__ import annotations

import pytest

from exporter.exposition.block import Block
from exporter.gpu.demand import GpuDemand, Tenant, is_on
from exporter.gpu.reading import GpuReading, MigReading, ProcessMemory

NOBODY = frozenset[int]()


def gpu(index: int, *pids: int) -> GpuReading:
    processes = tuple(ProcessMemory(pid, None) for pid in pids)
    return GpuReading(index, f"GPU-{index}abc", "H100", processes=processes)


@pytest.mark.parametrize(
    ("gpus", "pids", "expected"),
    [
        (("0",), NOBODY, True),
        (("1",), NOBODY, False),
        (("GPU-0a",), NOBODY, True),  # CUDA takes the beginning of a UUID
        (("1",), frozenset({7}), False),  # what the settings say goes before what runs there
        ((), frozenset({7}), True),
        ((), frozenset({8}), False),
    ],
)
def test_an_engine_is_on_the_gpus_of_its_settings_or_else_where_its_processes_are(
    gpus: tuple[str, ...], pids: frozenset[int], expected: bool
):
    assert is_on(Tenant(pids, gpus, 0.0), gpu(0, 7)) is expected


def test_an_engine_may_be_on_a_part_of_a_gpu():
    part = MigReading(1, 0, "MIG-77", "1g.10gb", processes=(ProcessMemory(5, None),))
    reading = GpuReading(0, "GPU-0", "H100", mig=(part,))
    assert is_on(Tenant(NOBODY, ("MIG-77",), 0.0), reading)
    assert is_on(Tenant(frozenset({5}), (), 0.0), reading)
    assert not is_on(Tenant(frozenset({5}), ("MIG-78",), 0.0), reading)


def test_requests_wait_for_the_gpus_of_their_engines_and_nobody_for_the_others():
    block = Block()
    demand = GpuDemand(block)
    tenants = [Tenant(frozenset({1}), (), 3.0), Tenant(NOBODY, ("0", "1"), 2.0)]

    def shown() -> dict[str, float | None]:
        series, values = block.columns()
        return {one.label("gpu"): value for one, value in zip(series, values, strict=True)}

    demand.publish([gpu(0, 1), gpu(1), gpu(2)], tenants)
    assert shown() == {"0": 5.0, "1": 2.0}
    demand.publish([gpu(0)], tenants[:1])
    assert shown() == {}
