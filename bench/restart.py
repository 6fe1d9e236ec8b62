"""A start over a full sample file: 30 days of recorded series and an hour of everything, until rules are evaluated.

    python -m bench.restart [--rounds 3]

The file is written by the archive itself: 105 series every two minutes for 30 days in streams of their own, as rules
record them, and 1,000 series every second for the last hour. Time counts from the command to the first evaluation of
a rule group, as `/metrics` shows it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.daemon import exporter, free_port, running, wait_for
from exporter.storage.archive import Archive
from exporter.storage.batch import Batch

DAY = 86_400_000
TARGET_SECONDS = 2.0


def fill(path: Path, now: int) -> int:
    """Write the file; gives the number of samples."""
    rng = np.random.default_rng(1)
    archive = Archive.open(path)
    samples = 0
    times = np.arange(now - 30 * DAY, now, 120_000, dtype=np.int64)
    for number in range(105):
        labels = ((("__name__", "bench:ratio"), ("job", "bench"), ("slo", str(number))),)
        for part in np.array_split(times, 20):
            values = rng.random((1, len(part)))
            archive.write([Batch(f"rule:bench:{number}", 31 * DAY, labels, (False,), part, values)])
            samples += values.size
    series = tuple(
        (("__name__", f"bench_{number % 40}_total"), ("i", str(number)), ("job", "bench"))
        for number in range(1000)
    )
    hour = np.arange(now - 3_600_000, now, 1000, dtype=np.int64)
    for part in np.array_split(hour, 8):
        values = np.cumsum(rng.integers(0, 2, (len(series), len(part))).astype(float), axis=1)
        archive.write([Batch("bench", 3_600_000 * 2, series, (True,) * len(series), part, values)])
        samples += values.size
    archive.compact(now)
    archive.close()
    return samples


def measure(folder: Path) -> float:
    """Seconds from the command to the first evaluation."""
    port = free_port()
    command = exporter(
        "run", "--engine-url", "http://127.0.0.1:9", "--listen", f"127.0.0.1:{port}", "--data-dir", str(folder),
        "--log-level", "error",
    )  # fmt: skip
    with running(*command):
        return wait_for(port, b"vllm_exporter_rule_group_last_evaluation_timestamp_seconds{")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.restart", description="A start over a full sample file."
    )
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        empty = [measure(folder / "empty") for _ in range(rounds)]
        full = folder / "full"
        full.mkdir(mode=0o700)
        samples = fill(full / "samples.db", int(time.time() * 1000))
        size = (full / "samples.db").stat().st_size / 1e6
        loaded = [measure(full) for _ in range(rounds)]
    took = statistics.median(loaded)
    print(f"from the command to the first evaluation, median of {rounds}")
    print(f"  nothing on disk     {statistics.median(empty):6.2f} s")
    print(
        f"  {samples / 1e6:.1f} M samples       {took:6.2f} s   ({size:.0f} MB; target {TARGET_SECONDS:g} s)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
