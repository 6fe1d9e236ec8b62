"""The head: what taking in a row costs, what a sample takes, and what a window's length costs.

    python -m bench.ingest [--series 13000] [--rows 1800]

The rows are those of a large engine under load: 30 % of the series move from one row to the next. Memory is what tracemalloc
sees of everything that was made after the start, label sets and index included. Targets are the ones that the project
set itself; the program ends with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from exporter.storage.head import Head, Layout
from exporter.storage.model import Labels, Matcher
from exporter.storage.retention import Retention

MINUTE = 60_000
DAY = 1440 * MINUTE
MOVING = 0.3
START = 1_790_000_000_000


def labels_of(count: int) -> list[Labels]:
    """Label sets as an engine's histograms have them: 20 buckets to a series of other labels."""
    return [
        (
            ("__name__", f"vllm:family_{i // 400}_bucket"),
            ("engine", str(i // 20 % 20)),
            ("instance", "localhost:9108"),
            ("job", "vllm-exporter"),
            ("le", str(float(i % 20))),
            ("model_name", "meta-llama/Llama-3.3-70B-Instruct"),
        )
        for i in range(count)
    ]


def fill(series: int, rows: int, share: float) -> dict[str, float]:
    """Append rows a second apart, of which a share of the values moves; CPU per row and bytes per sample."""
    random = np.random.default_rng(0)
    moving = np.flatnonzero(random.random(series) < share)
    values = np.floor(random.random(series) * 1000)
    labels = labels_of(series)
    gc.collect()
    tracemalloc.start()
    head = Head(retention=Retention(3600_000), memory_limit=4 << 30)
    stream = head.stream("engine")
    layout = Layout(labels, True)
    for i in range(rows):
        values[moving] += np.floor(random.random(len(moving)) * 10)
        row = values.tolist()
        stream.append(START + 1000 * i, layout, row)
        if i % 5 == 4:
            head.expire(START + 1000 * i)
    gc.collect()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    stats = head.stats()
    timed = append_cpu(head, series, layout, values, moving)
    return {
        **timed,
        "bytes_per_sample": taken / stats.samples,
        "counted_bytes_per_sample": stats.bytes / stats.samples,
        "samples": stats.samples,
    }


def append_cpu(
    head: Head, series: int, layout: Layout, values: np.ndarray, moving: np.ndarray
) -> dict[str, float]:
    """CPU of single appends, without tracemalloc, from a list of floats."""
    stream = head.stream("timed")
    took = []
    for i in range(400):
        values[moving] += 1.0
        row = values.tolist()
        begun = time.process_time()
        stream.append(START + 1000 * i, layout, row)
        took.append(time.process_time() - begun)
    return {
        "first_append_ms": took[0] * 1e3,
        "append_ms": statistics.mean(took[1:]) * 1e3,
        "append_median_ms": statistics.median(took[1:]) * 1e3,
        "append_worst_ms": max(took[1:]) * 1e3,
    }


def windows(series: int = 500, interval_ms: int = 5000) -> dict[str, float]:
    """The cost of `edges`, `latest` over three days of counters, some of which were reset by restarts."""
    head = Head(retention=Retention(3 * DAY), memory_limit=4 << 30)
    stream = head.stream("engine")
    layout = Layout(labels_of(series), True)
    rows = 3 * DAY // interval_ms
    random = np.random.default_rng(1)
    values = np.zeros(series)
    for i in range(rows):
        if i % (rows // 5) == rows // 10:
            stream.end(START + interval_ms * i)
            values[:] = 0
            continue
        values[: series // 3] += random.random(series // 3)
        stream.append(START + interval_ms * i, layout, values)
    now = START + interval_ms * rows
    some = head.select([Matcher("__name__", "=~", "vllm:family_.*")])
    at = np.array([now])
    out = {"series": float(len(some.labels)), "rows": float(rows)}
    for name, back in (("5m", 5 * MINUTE), ("1h", 60 * MINUTE), ("1d", DAY), ("3d", 3 * DAY)):
        out[f"edges_{name}_us"] = timed(lambda back=back: some.edges(at - back, at)) * 1e6
    out["latest_us"] = timed(lambda: some.latest(at, 5 * MINUTE)) * 1e6
    steps = now - MINUTE * np.arange(1000)[::-1]
    out["edges_1000_steps_us"] = timed(lambda: some.edges(steps - 5 * MINUTE, steps), 5) * 1e6
    out["samples_1h_us"] = timed(lambda: some.samples(now - 60 * MINUTE, now), 20) * 1e6
    few = head.select([Matcher("__name__", "=", "vllm:family_0_bucket"), Matcher("engine", "=", "3")])
    for name, back in (("5m", 5 * MINUTE), ("3d", 3 * DAY)):
        out[f"edges_of_20_{name}_us"] = timed(lambda back=back: few.edges(at - back, at)) * 1e6
    return out


def timed(work: Callable[[], object], rounds: int = 200) -> float:
    """Median CPU seconds of one call."""
    took = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        took.append(time.process_time() - begun)
    return statistics.median(took)


def main() -> int:
    """Measure, print; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, default=13_000)
    parser.add_argument("--rows", type=int, default=1800)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    filled = fill(options.series, options.rows, MOVING)
    filled["bytes_per_sample_all_moving"] = fill(options.series, options.rows // 3, 1.0)["bytes_per_sample"]
    read = windows()
    ratio = read["edges_3d_us"] / read["edges_5m_us"]
    targets = [
        ("CPU of one append, mean", filled["append_ms"], 5.0, "ms"),
        ("memory of a sample", filled["bytes_per_sample"], 20.0, "bytes"),
        ("the same, if all series moved", filled["bytes_per_sample_all_moving"], 20.0, "bytes"),
        ("edges over 3 d against 5 m", ratio, 2.0, "x"),
    ]
    if options.json:
        print(
            json.dumps(
                {"python": platform.python_version(), "ingest": filled, "windows": read, "ratio": ratio}
            )
        )
    else:
        print(
            f"Python {platform.python_version()}, NumPy {np.__version__}; {options.series} series, {options.rows} rows"
        )
        for key, figure in {**filled, **read}.items():
            print(f"  {key:28} {figure:12.2f}")
        for what, figure, target, unit in targets:
            verdict = "met" if figure <= target else "MISSED"
            print(f"{what:32} {figure:8.2f} {unit}, target {target:g}: {verdict}")
    return int(any(figure > target for _, figure, target, _ in targets))


if __name__ == "__main__":
    sys.exit(main())
