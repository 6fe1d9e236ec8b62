"""The daemon about itself: CPU, memory, descriptors, garbage collection, build, and how late its event loop runs.

Read from the kernel directly, because `prometheus_client`'s collectors parse `/proc/self/stat` and list the open files
on every collection; here one publication costs a few tens of microseconds.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import sys
import threading
import time
from collections.abc import Callable

from exporter import __version__, logs
from exporter.exposition.block import Block
from exporter.exposition.model import Family
from exporter.ticks import next_tick

BUILD = Family(
    "vllm_exporter_build_info",
    "info",
    "The daemon's version, and what it runs on.",
    ("version", "python", "implementation", "system", "machine"),
)
CPU = Family(
    "vllm_exporter_process_cpu_seconds_total",
    "counter",
    "CPU time of the daemon itself, user and system, without the engine's.",
)
RESIDENT = Family(
    "vllm_exporter_process_resident_memory_bytes", "gauge", "Resident memory of the daemon.", unit="bytes"
)
VIRTUAL = Family(
    "vllm_exporter_process_virtual_memory_bytes", "gauge", "Virtual memory of the daemon.", unit="bytes"
)
OPEN_FDS = Family("vllm_exporter_process_open_fds", "gauge", "Open file descriptors of the daemon.")
MAX_FDS = Family("vllm_exporter_process_max_fds", "gauge", "Most file descriptors that the daemon may open.")
THREADS = Family("vllm_exporter_process_threads", "gauge", "Python threads of the daemon.")
START_TIME = Family(
    "vllm_exporter_process_start_time_seconds",
    "gauge",
    "Start of the daemon in seconds since the Unix epoch.",
    unit="seconds",
)
GC_RUNS = Family(
    "vllm_exporter_python_gc_collections_total",
    "counter",
    "Runs of Python's garbage collector, by generation.",
    ("generation",),
)
GC_COLLECTED = Family(
    "vllm_exporter_python_gc_objects_collected_total",
    "counter",
    "Objects that Python's garbage collector freed, by generation.",
    ("generation",),
)
LAG = Family(
    "vllm_exporter_event_loop_lag_seconds",
    "gauge",
    "How late the event loop's last heartbeat was.",
    unit="seconds",
)
LAG_MAX = Family(
    "vllm_exporter_event_loop_lag_max_seconds",
    "gauge",
    "Latest heartbeat of the event loop in the last minute or so.",
    unit="seconds",
)
LOG_LOST = Family(
    "vllm_exporter_log_lines_lost_total",
    "counter",
    "Lines of the daemon's own log that could not be written: nobody reads standard error, or its disk is full.",
)
FAMILIES = (
    BUILD, CPU, RESIDENT, VIRTUAL, OPEN_FDS, MAX_FDS, THREADS, START_TIME, GC_RUNS, GC_COLLECTED, LAG, LAG_MAX, LOG_LOST,
)  # fmt: skip

HEARTBEAT_SECONDS = 1.0
"""Time between two heartbeats: often enough for a watchdog, and to see most stalls that last for a second."""

LAG_WINDOW_SECONDS = 60.0
"""The maximum covers this long at least, and twice as long at most: a scrape interval of a minute misses no stall."""


class Lag:
    """The last and the largest recent lateness, in seconds; time is passed in, monotonic."""

    def __init__(self, now: float) -> None:
        self.last = 0.0
        self._window_began = now
        self._current = 0.0
        self._before = 0.0

    def note(self, lateness: float, *, now: float) -> None:
        """One heartbeat came this late."""
        if now - self._window_began >= LAG_WINDOW_SECONDS:
            self._before, self._current, self._window_began = self._current, 0.0, now
        self.last = max(0.0, lateness)
        self._current = max(self._current, self.last)

    @property
    def largest(self) -> float:
        """The largest of this window and the one before."""
        return max(self._current, self._before)


class Heartbeat:
    """Beats in the event loop, and measures how late each beat is; a loop that stalls does not beat.

    `on_beat` are called at each beat with monotonic seconds: systemd's watchdog hangs on it, and what else must be
    looked at now and then.
    """

    def __init__(self, *on_beat: Callable[[float], object], interval: float = HEARTBEAT_SECONDS) -> None:
        self._on_beat = on_beat
        self._interval = interval
        self.lag = Lag(time.monotonic())

    async def run(self) -> None:
        """Beat until cancelled."""
        now = due = time.monotonic()
        while True:
            due = next_tick(max(now, due), self._interval)
            await asyncio.sleep(due - now)
            now = time.monotonic()
            self.lag.note(now - due, now=now)
            for listener in self._on_beat:
                listener(now)


class ProcessMetrics:
    """Publishes the daemon's own series; one for the life of the process."""

    def __init__(self, block: Block, *, lag: Lag | None = None) -> None:
        uname = os.uname()
        block.info(
            BUILD,
            __version__,
            "{}.{}.{}".format(*sys.version_info[:3]),
            sys.implementation.name,
            uname.sysname,
            uname.machine,
        )
        block.gauge(START_TIME).set(_start_time())
        self._cpu = block.counter(CPU)
        self._resident = block.gauge(RESIDENT)
        self._virtual = block.gauge(VIRTUAL)
        self._open_fds = block.gauge(OPEN_FDS)
        self._max_fds = block.gauge(MAX_FDS)
        self._threads = block.gauge(THREADS)
        generations = [str(generation) for generation in range(len(gc.get_stats()))]
        self._gc = [(block.counter(GC_RUNS, g), block.counter(GC_COLLECTED, g)) for g in generations]
        self._log_lost = block.counter(LOG_LOST)
        self._lag = lag
        self._lag_last = block.gauge(LAG)
        self._lag_max = block.gauge(LAG_MAX)
        self._page_size = resource.getpagesize()

    def publish(self, *, now: float) -> None:
        """Write the present values; what cannot be read is absent. `now`: as every publisher takes it, unused."""
        self._cpu.set(time.process_time())
        pages = _memory_pages()
        self._virtual.set(pages and pages[0] * self._page_size)
        self._resident.set(pages and pages[1] * self._page_size)
        self._open_fds.set(_open_fds())
        self._max_fds.set(_max_fds())
        self._threads.set(threading.active_count())
        for (runs, collected), stats in zip(self._gc, gc.get_stats(), strict=True):
            runs.set(stats["collections"])
            collected.set(stats["collected"])
        self._log_lost.set(logs.lost_lines())
        if self._lag is not None:
            self._lag_last.set(self._lag.last)
            self._lag_max.set(self._lag.largest)


def _memory_pages() -> tuple[int, int] | None:
    """Virtual and resident size in pages, from /proc/self/statm (proc_pid_statm(5))."""
    try:
        descriptor = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            virtual, resident, _ = os.read(descriptor, 256).split(b" ", 2)
        finally:
            os.close(descriptor)
        return int(virtual), int(resident)
    except (OSError, ValueError):
        return None


def _open_fds() -> int | None:
    """Open descriptors: since Linux 6.2 the size of /proc/self/fd is their number; before, they are listed."""
    try:
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH116, PTH208
    except OSError:
        return None


def _max_fds() -> float | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _start_time() -> float:
    """Unix seconds, from this process's age: field 22 of /proc/self/stat counts ticks since boot (proc_pid_stat(5))."""
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return time.time()
