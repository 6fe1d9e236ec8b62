"""A store that was restarted answers as the one that was not."""

from __future__ import annotations

from pathlib import Path

import parity_data
import pytest
from parity import difference, ours
from parity_data import END, OFF, START
from parity_expressions import mixtures, systematic

from exporter.storage.archive import Archive
from exporter.storage.head import Head
from exporter.storage.retention import Retention

RETENTION = Retention(24 * 3_600_000)
RANGE = START - 60_000 + OFF, END + 400_000 + OFF, 35_000


def restarted(folder: Path, at: int, *, segment_rows: tuple[int, int]) -> Head:
    """A store that was saved every 35 seconds until a moment, loaded again, and then went on."""
    path = folder / "samples.db"
    archive = Archive.open(path)
    before = Head(retention=RETENTION, memory_limit=1 << 30, segment_rows=segment_rows)
    for number, begin in enumerate(range(START, at, 35_000)):
        parity_data.fill(before, begin, min(at, begin + 35_000))
        assert archive.write(before.unsaved())
        if number % 5 == 0:
            assert archive.compact(begin)
    archive.close()
    archive = Archive.open(path)
    after = Head(retention=RETENTION, memory_limit=1 << 30, segment_rows=segment_rows)
    for batch in archive.load(at):
        after.load(batch)
    archive.close()
    parity_data.fill(after, at, END + 1)
    return after


@pytest.mark.parametrize(("minute", "segment_rows"), [(24, (4, 16)), (41, (64, 4096)), (74, (16, 64))])
def test_a_store_that_was_restarted_answers_as_the_one_that_was_not(
    tmp_path: Path, minute: int, segment_rows: tuple[int, int]
) -> None:
    steady = parity_data.head()
    at = START + minute * 60_000 + OFF
    other = restarted(tmp_path, at, segment_rows=segment_rows)
    expressions = [
        *(one for topic in systematic().values() for one in topic[::5]),
        *mixtures(80, seed=minute),
    ]
    found = []
    for expression in expressions:
        for times in ((at,), (at + 120_000,), RANGE):
            apart = difference(ours(other, expression, *times), ours(steady, expression, *times))
            if apart is not None:
                found.append(f"{expression}   at {times}: {apart}")
                break
    assert not found, f"{len(found)} differ:\n" + "\n".join(found[:20])
