"""The GPU sampler: threads that read, and the event loop's side of them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import structlog

from exporter.exposition.block import Block
from exporter.gpu.port import GpuPort
from exporter.gpu.publish import Publisher
from exporter.gpu.reading import GpuReading, Snapshot, XidEvent
from exporter.gpu.sampling import Sampling
from exporter.settings import GpuSettings

log = structlog.get_logger(__name__)

PROCESS_SECONDS = 1.0
"""Time between two rounds of the slow thread: how fresh `memory_of` is."""
EVENT_WAIT_SECONDS = 0.5
"""Longest wait for an XID event: how soon its thread notices that it should end."""
JOIN_SECONDS = 2.0
"""Longest wait for a thread at the end; NVML calls on a dying GPU may never return."""
STUCK_SECONDS = 10.0
"""Age of the last reading, at least twenty intervals, from which the driver counts as not answering."""
_NO_DRIVER = ("library_not_found", "driver_not_loaded", "no_devices")
_ROOT_PID_NAMESPACE = "pid:[4026531836]"


class GpuSampler:
    """Samples the GPUs every `settings.interval` in a thread of its own; everything shown is written in the loop.

    A second thread reads what blocks (PCIe throughput, 20 ms a call) or hardly changes, a third waits for XID errors;
    both live as long as a session with the driver. No GPU trouble ends `run`.
    """

    def __init__(
        self,
        settings: GpuSettings,
        block: Block,
        *,
        port: GpuPort | None = None,
        engine_pids: Callable[[], frozenset[int]] = frozenset,
        simulated_load: Callable[[], float] | None = None,
        tokens_total: Callable[[], float | None] = lambda: None,
    ) -> None:
        """`tokens_total` tells the output tokens so far, for energy per token; the callables run in the event loop,
        but `simulated_load` and, with simulated readings, `engine_pids` in the sampling thread too.
        """
        self._settings = settings
        self._port = port or _make_port(settings, simulated_load, engine_pids)
        self._publisher = Publisher(
            block, peak_window=settings.peak_window, engine_pids=engine_pids, tokens_total=tokens_total
        )
        self._arrived: deque[Snapshot] = deque()
        """From the sampling thread. It wakes nobody: whoever looks takes them in."""
        self._latest: Snapshot | None = None
        self._shown: tuple[Snapshot | None, float] | None = None
        self._stuck = False
        self._reason = ""

    async def run(self) -> None:
        """Sample until cancelled; returns at once when GPU readings are off."""
        if self._port is None:
            return
        loop = asyncio.get_running_loop()
        interval = self._settings.interval
        worker = _Worker(self._port, interval, self._arrived.append, loop, self._publisher.count)
        worker.start()
        try:
            await loop.create_future()
        finally:
            worker.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.to_thread(worker.join)

    def publish(self, *, now: float, scraped: bool = True) -> None:
        """Write the latest reading and the peaks into the block; call it right before `/metrics` is rendered anew.

        `scraped` false: for the daemon's own use; the peaks still wait for the next scrape.
        `now`: seconds, any clock that does not jump; it only tells how long the thread has been silent.
        """
        if self._port is None:
            return
        self.take_in()
        snapshot = self._latest
        if self._shown is None or self._shown[0] is not snapshot:
            self._shown = (snapshot, now)
            self._stuck = False
        elif now - self._shown[1] > max(STUCK_SECONDS, 20 * self._settings.interval):
            self._stuck = True
            snapshot = Snapshot(0.0, "not_answering", "a call to the driver does not return")
        if snapshot is not None:
            self._publisher.show(snapshot, scraped=scraped)
            self._log(snapshot)

    def memory_of(self, pids: frozenset[int]) -> int | None:
        """GPU bytes that these processes hold on all GPUs, at most a second or two old.

        None when it is unknown: no driver, a driver that hides process memory, or process ids of another namespace (in
        a container NVML may tell the host's, which match nothing here).
        """
        self.take_in()
        snapshot = self._latest
        if snapshot is None or self._stuck or not snapshot.readings or snapshot.lost:
            return None
        total, known, matched = 0, False, False
        for reading in snapshot.readings:
            processes = reading.every_process()
            if processes is None:
                continue
            known = True
            for one in processes:
                if one.pid in pids:
                    if one.memory_bytes is None:
                        return None
                    matched = True
                    total += one.memory_bytes
        same_pids = matched or snapshot.readings[0].simulated or _sees_host_pids()
        return total if known and same_pids else None

    def readings(self) -> tuple[GpuReading, ...]:
        """The latest readings; empty while no GPU can be read."""
        self.take_in()
        return () if self._latest is None or self._stuck else self._latest.readings

    def snapshot(self) -> Snapshot | None:
        """The latest tick with its status; None before the first."""
        self.take_in()
        return self._latest

    def take_in(self) -> None:
        """Take note of each tick, for its peaks."""
        while self._arrived:
            snapshot = self._latest = self._arrived.popleft()
            self._stuck = False
            self._publisher.accept(snapshot)
            self._log(snapshot)

    def _log(self, snapshot: Snapshot) -> None:
        if snapshot.reason == self._reason:
            return
        first, self._reason = not self._reason, snapshot.reason
        if snapshot.reason == "ok":
            names = sorted({reading.name for reading in snapshot.readings})
            log.info("gpu_available", gpus=len(snapshot.readings), names=names)
        elif first and snapshot.reason in _NO_DRIVER:
            log.info("gpu_absent", reason=snapshot.reason)
        else:
            log.warning("gpu_unavailable", reason=snapshot.reason, error=snapshot.message)


class _Worker:
    """The threads. `deliver` is called in one of them, `count` in the event loop."""

    def __init__(
        self,
        port: GpuPort,
        interval: float,
        deliver: Callable[[Snapshot], None],
        loop: asyncio.AbstractEventLoop,
        count: Callable[[XidEvent], None],
    ) -> None:
        self._port = port
        self._interval = interval
        self._loop = loop
        self._deliver = deliver
        self._count = count
        self._running = threading.Lock()  # an Event's wait costs more than the rest of a tick
        self._running.acquire()
        self._session_over = threading.Event()
        self._side: list[threading.Thread] = []
        self._sampling = Sampling(port, on_open=self._start_side, on_close=self._end_side)
        # Daemon threads: a call into a dead driver must not keep the process alive.
        self._thread = threading.Thread(target=self._sample, name="gpu-sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let the threads end; call it once."""
        self._running.release()
        self._session_over.set()

    def join(self) -> None:
        self._thread.join(JOIN_SECONDS)

    def _sample(self) -> None:
        due = time.monotonic()
        while True:
            self._deliver(self._sampling.step(time.monotonic()))
            # Ticks keep their grid; those that were missed are not made up for.
            late = time.monotonic() - due + self._sampling.pause(time.monotonic())
            due += self._interval * max(1, math.ceil(late / self._interval))
            if self._running.acquire(timeout=max(0.0, due - time.monotonic())):
                break
        self._sampling.close()

    def _start_side(self) -> None:
        self._session_over = threading.Event()
        self._side = [threading.Thread(target=self._read_slow, name="gpu-slow", daemon=True)]
        if self._port.has_events:
            self._side.append(threading.Thread(target=self._wait_events, name="gpu-events", daemon=True))
        for thread in self._side:
            thread.start()

    def _end_side(self) -> None:
        self._session_over.set()
        for thread in self._side:
            thread.join(JOIN_SECONDS)
        self._side = []

    def _read_slow(self) -> None:
        over = self._session_over
        while not over.is_set():
            try:
                self._port.read_slow(time.monotonic())
            except Exception as error:
                log.exception("gpu_slow_crashed", error=repr(error))
                self._sampling.interrupt(repr(error))
                return
            over.wait(PROCESS_SECONDS)

    def _wait_events(self) -> None:
        over = self._session_over
        while not over.is_set() and self._port.has_events:
            event = self._port.wait_event(EVENT_WAIT_SECONDS)
            if event is not None:
                self._post(self._count, event)

    def _post(self, callback: Callable[..., None], value: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
            self._loop.call_soon_threadsafe(callback, value)


def _make_port(
    settings: GpuSettings, load: Callable[[], float] | None, engine_pids: Callable[[], frozenset[int]]
) -> GpuPort | None:
    if settings.source == "off":
        return None
    if settings.source == "simulated":
        from exporter.gpu.simulated import SimulatedGpu

        return SimulatedGpu(load or (lambda: 0.3), engine_pids=engine_pids)
    from exporter.gpu.nvml import NvmlPort

    return NvmlPort()


def _sees_host_pids() -> bool:
    """Whether our process ids are the host's, as NVML's are; the root namespace has a fixed inode in Linux."""
    try:
        return str(Path("/proc/self/ns/pid").readlink()) == _ROOT_PID_NAMESPACE
    except OSError:
        return False
