from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pynvml
import pytest

from exporter.exposition.block import Block
from exporter.gpu import sampler as module
from exporter.gpu.nvml import NvmlPort
from exporter.gpu.replay import ReplayLibrary
from exporter.gpu.sampler import GpuSampler
from exporter.settings import GpuSettings

Install = Callable[..., ReplayLibrary]
FAST = GpuSettings(interval=0.1)


@asynccontextmanager
async def running(sampler: GpuSampler) -> AsyncIterator[GpuSampler]:
    task = asyncio.create_task(sampler.run())
    try:
        yield sampler
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


def page(sampler: GpuSampler, block: Block, now: float = 0.0) -> str:
    sampler.publish(now=now)
    return block.render(openmetrics=False).decode()


async def test_readings_arrive_from_the_thread_and_it_ends_with_the_daemon(install: Install) -> None:
    library = install("h100")
    block = Block()
    async with running(GpuSampler(FAST, block, engine_pids=lambda: frozenset({4711}))) as sampler:
        await until(lambda: bool(sampler.readings()))
        await until(lambda: sampler.memory_of(frozenset({4711, 1})) == 70_000_000_000)
        assert 'nvidia_gpu_utilization_ratio{gpu="0"' in page(sampler, block)
        assert 'pid="4711"' in page(sampler, block)
        assert (
            json.loads(json.dumps([one.to_json() for one in sampler.readings()]))[0]["power_watts"] == 512.345
        )
    assert not [one for one in threading.enumerate() if one.name.startswith("gpu-")]
    assert library.initialised == 0


async def test_xid_errors_are_counted_as_they_come(install: Install) -> None:
    library = install("h100")
    block = Block()
    async with running(GpuSampler(FAST, block)) as sampler:
        await until(lambda: bool(sampler.readings()))
        library.events.append((0, 79))
        await until(lambda: 'xid="79"} 1' in page(sampler, block))


async def test_a_driver_reload_is_survived(install: Install) -> None:
    library = install("h100")
    block = Block()
    async with running(GpuSampler(FAST, block)) as sampler:
        await until(lambda: bool(sampler.readings()))
        library.reload()
        await until(lambda: "\nvllm_exporter_gpu_up 0\n" in page(sampler, block))
        assert sampler.memory_of(frozenset({4711})) is None
        await until(lambda: "\nvllm_exporter_gpu_up 1\n" in page(sampler, block))


async def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch, install: Install) -> None:
    def no_library(name: str) -> None:
        raise OSError

    install("h100")
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", no_library)
    block = Block()
    async with running(GpuSampler(FAST, block)) as sampler:
        await until(lambda: 'reason="library_not_found"' in page(sampler, block))
        assert "\nvllm_exporter_gpu_up 0\n" in page(sampler, block)
        assert sampler.readings() == ()
        assert sampler.memory_of(frozenset({1})) is None


async def test_slow_calls_do_not_delay_the_fast_ones(install: Install) -> None:
    """PCIe throughput takes 20 ms a call, here for ever: the other readings do not wait for it."""
    install("h100", copies=4)
    released = threading.Event()

    class Slow(NvmlPort):
        def read_slow(self, now: float) -> None:
            released.wait(30)

    block = Block()
    ticks: list[float] = []
    sampler = GpuSampler(FAST, block, port=Slow(), tokens_total=lambda: ticks.append(time.monotonic()))
    async with running(sampler):
        await until(lambda: sampler.take_in() or len(ticks) >= 10)
        released.set()


async def test_a_crash_of_the_slow_readings_is_an_outage_and_is_tried_again(install: Install) -> None:
    install("h100")

    class Crashing(NvmlPort):
        crashes = True

        def read_slow(self, now: float) -> None:
            if self.crashes:
                self.crashes = False
                raise ValueError("nobody expects this")

    block = Block()
    async with running(GpuSampler(FAST, block, port=Crashing())) as sampler:
        await until(lambda: 'reason="internal_error"' in page(sampler, block))
        await until(lambda: "\nvllm_exporter_gpu_up 1\n" in page(sampler, block))


async def test_a_call_that_never_returns_shows_as_not_answering(install: Install) -> None:
    install("h100")
    hold = threading.Event()
    blocked = threading.Event()

    class Hanging(NvmlPort):
        def read(self, now: float):  # type: ignore[no-untyped-def]
            if hold.is_set():
                blocked.set()
                hold_released.wait(30)
            return super().read(now)

    hold_released = threading.Event()
    block = Block()
    async with running(GpuSampler(FAST, block, port=Hanging())) as sampler:
        await until(lambda: bool(sampler.readings()))
        hold.set()
        await until(blocked.is_set)
        await asyncio.sleep(0)
        assert "\nvllm_exporter_gpu_up 1\n" in page(sampler, block, now=100.0)
        assert 'reason="not_answering"' in page(sampler, block, now=100.0 + module.STUCK_SECONDS + 1)
        assert sampler.readings() == ()
        hold.clear()
        hold_released.set()
        await until(lambda: "\nvllm_exporter_gpu_up 1\n" in page(sampler, block, now=200.0))


async def test_a_driver_that_never_finishes_its_start_shows_as_not_answering(install: Install) -> None:
    install("h100")
    release = threading.Event()

    class Hanging(NvmlPort):
        def open(self, now: float):  # type: ignore[no-untyped-def]
            release.wait(30)
            return super().open(now)

    block = Block()
    async with running(GpuSampler(FAST, block, port=Hanging())) as sampler:
        assert page(sampler, block, now=0.0) == ""
        assert 'reason="not_answering"' in page(sampler, block, now=module.STUCK_SECONDS + 1)
        release.set()
        await until(lambda: "\nvllm_exporter_gpu_up 1\n" in page(sampler, block, now=100.0))


@pytest.mark.parametrize(("pids", "expected"), [({4711, 999}, 71_000_000_000), ({999}, 1_000_000_000)])
async def test_memory_is_summed_over_processes(install: Install, pids: set[int], expected: int) -> None:
    install("h100")
    async with running(GpuSampler(FAST, Block())) as sampler:
        await until(lambda: sampler.memory_of(frozenset(pids)) == expected)


async def test_memory_of_strangers_is_nothing_or_unknown_in_a_container(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("h100")
    async with running(GpuSampler(FAST, Block())) as sampler:
        await until(lambda: sampler.memory_of(frozenset({4711})) is not None)
        monkeypatch.setattr(module, "_sees_host_pids", lambda: True)
        assert sampler.memory_of(frozenset({1})) == 0
        monkeypatch.setattr(module, "_sees_host_pids", lambda: False)
        assert sampler.memory_of(frozenset({1})) is None
        assert sampler.memory_of(frozenset({4711})) == 70_000_000_000


async def test_hidden_process_memory_is_unknown(install: Install) -> None:
    install("wsl")
    async with running(GpuSampler(FAST, Block())) as sampler:
        await until(lambda: bool(sampler.readings()))
        assert sampler.memory_of(frozenset({4711})) is None


async def test_simulated_readings_need_no_driver() -> None:
    block = Block()
    settings = GpuSettings(source="simulated", interval=0.1)
    async with running(GpuSampler(settings, block, simulated_load=lambda: 0.8)) as sampler:
        await until(lambda: bool(sampler.readings()))
        assert 'simulated="true"' in page(sampler, block)


async def test_off_means_off() -> None:
    block = Block()
    sampler = GpuSampler(GpuSettings(source="off"), block)
    await asyncio.wait_for(sampler.run(), 5)
    assert page(sampler, block) == ""
    assert sampler.memory_of(frozenset({1})) is None


def test_the_binding_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, exporter.gpu; exporter.gpu.GpuSampler; exporter.gpu.FAMILIES; sys.exit('pynvml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
