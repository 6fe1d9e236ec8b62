"""A process that is killed while it writes samples: everything that it was told is written can be read, whole."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from exporter.storage.archive import Archive

NOW = 1_790_000_000_000
ROWS = 5
SERIES = 40

WRITER = """
import sys
from pathlib import Path
import numpy as np
from exporter.storage.archive import Archive
from exporter.storage.batch import Batch

path, first, now, rows, series = Path(sys.argv[1]), *map(int, sys.argv[2:])
archive = Archive.open(path)
assert archive.stats().set_aside == {}, archive.stats()
layouts = [[(("__name__", "up"), ("number", str(i))) for i in range(n)] for n in (series, series - 7)]
print("ready", flush=True)
flush = first
while True:
    times = now + (flush * rows + np.arange(rows)) * 1000
    batches = []
    for stream, labels in zip(("engine", "gpu"), layouts if flush % 50 < 40 else layouts[::-1]):
        values = times[None, :] * 1.0 + np.arange(len(labels))[:, None] / 1024
        batches.append(Batch(stream, 10**12, labels, [False] * len(labels), times, values))
    assert archive.write(batches), archive.stats()
    print(flush, flush=True)
    flush += 1
    if flush % 7 == 0:
        assert archive.compact(int(times[-1])), archive.stats()
"""


def killed_after(path: Path, first: int, seconds: float) -> int:
    """Let a process write from flush `first` on, kill it; the last flush that it said was written."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(first), str(NOW), str(ROWS), str(SERIES)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None and writer.stderr is not None
        try:
            assert writer.stdout.readline() == "ready\n", writer.stderr.read()
            killer = threading.Timer(seconds, writer.kill)
            killer.start()
            said = writer.stdout.read().split("\n")
            killer.join()
        finally:
            writer.kill()
        errors = writer.stderr.read()
        assert not errors, errors
    whole = said[:-1]  # what follows the last newline was cut off by the kill
    return int(whole[-1]) if whole else first - 1


@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_writer_leaves_everything_that_it_committed(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "samples.db"
    dice = random.Random(seed)
    first = 0
    for _ in range(8):
        committed = killed_after(path, first, dice.uniform(0.0, 0.15))
        archive = Archive.open(path)
        rows = {"engine": 0, "gpu": 0}
        for batch in archive.load():
            number = rows[batch.stream]
            times = NOW + (number + np.arange(len(batch.times))) * 1000
            assert batch.times.tolist() == times.tolist(), "a row is missing, or there twice"
            offsets = np.array([int(dict(labels)["number"]) / 1024 for labels in batch.labels])
            present = ~np.isnan(batch.values)
            assert present.sum(axis=0).min() >= SERIES - 7, "a row is torn"
            assert (batch.values == times[None, :] + offsets[:, None])[present].all()
            rows[batch.stream] += len(batch.times)
        assert archive.stats().damaged_chunks == 0
        assert archive.stats().set_aside == {}
        archive.close()
        assert rows["engine"] == rows["gpu"], "half of a flush is there"
        flushes, rest = divmod(rows["engine"], ROWS)
        assert rest == 0
        assert flushes in (committed + 1, committed + 2), (
            "at most the one that was being written may be there too"
        )
        first = flushes
    assert first > 0
