"""The archive on a disk that works."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from exporter.storage.archive import Archive
from exporter.storage.batch import Batch
from exporter.storage.bits import ABSENT_BITS
from exporter.storage.model import STALE_BITS, Labels

NOW = 1_790_000_000_000
HOUR = 3_600_000
DAY = 24 * HOUR

Samples = dict[tuple[str, Labels], dict[int, int]]


def series(count: int, name: str = "up") -> list[Labels]:
    return [(("__name__", name), ("job", "vllm"), ("number", str(i))) for i in range(count)]


def batch(
    labels: Sequence[Labels],
    times: Iterable[int],
    *,
    stream: str = "engine",
    keep: int = HOUR,
    values: object = None,
    counters: Sequence[bool] | None = None,
) -> Batch:
    at = np.array(list(times), np.int64)
    if values is None:
        values = (at[None, :] % 997) * np.arange(1.0, len(labels) + 1)[:, None]
    return Batch(stream, keep, labels, counters or [False] * len(labels), at, np.asarray(values, np.float64))


def contents(archive: Archive, now_ms: int | None = None) -> Samples:
    """Bits by time by series and stream; fails when a stream and retention is not in time order."""
    found: Samples = {}
    reached: dict[tuple[str, int], int] = {}
    for one in archive.load(now_ms):
        key = one.stream, one.keep
        assert (np.diff(one.times) > 0).all()
        assert one.times[0] > reached.get(key, -1)
        reached[key] = int(one.times[-1])
        assert len(one.labels) == len(one.counters) == len(one.values)
        for labels, row in zip(one.labels, one.values.view(np.uint64), strict=True):
            of_series = found.setdefault((one.stream, labels), {})
            for t, bits in zip(one.times.tolist(), row.tolist(), strict=True):
                if bits != ABSENT_BITS:
                    assert t not in of_series
                    of_series[t] = bits
    return found


def test_what_was_written_is_loaded_after_a_restart(tmp_path: Path) -> None:
    labels = series(3)
    archive = Archive.open(tmp_path / "samples.db")
    assert archive.write([batch(labels, range(NOW, NOW + 5000, 1000), counters=[True, False, True])])
    before = contents(archive)
    archive.close()

    archive = Archive.open(tmp_path / "samples.db")
    assert contents(archive) == before
    (one,) = archive.load()
    assert (one.stream, one.keep, list(one.counters)) == ("engine", HOUR, [True, False, True])
    assert list(one.labels) == labels
    archive.close()
    assert [path.name for path in tmp_path.iterdir()] == ["samples.db"], "a log was left behind"


def test_every_bit_of_a_value_survives(tmp_path: Path) -> None:
    special = np.array(
        [[0, 1 << 63, STALE_BITS, ABSENT_BITS, 0x7FF8000000000000, 0x7FF0000000000000, 1, (1 << 64) - 1]],
        np.uint64,
    )
    archive = Archive.open(tmp_path / "samples.db")
    archive.write([batch(series(1), range(NOW, NOW + 8), values=special.view(np.float64))])
    archive.write([batch(series(1), [NOW + 8], values=special[:, 2:3].view(np.float64))])
    for _ in range(2):
        loaded = np.concatenate([one.values.view(np.uint64) for one in archive.load()], axis=1)
        assert loaded.tolist() == [[*special[0].tolist(), STALE_BITS]]
        archive.compact(NOW + 8)
    archive.close()


def test_labels_of_every_kind_survive(tmp_path: Path) -> None:
    strange: list[Labels] = [
        (("__name__", "a"), ("model", "通义千问")),
        (("__name__", "b"), ("quote", '"\\\n\x00')),
        (("__name__", "c"), ("lone", "\ud800")),
        (("__name__", "d"), ("with.dot", "x")),
    ]
    archive = Archive.open(tmp_path / "samples.db")
    archive.write([batch(strange, [NOW])])
    archive.close()
    archive = Archive.open(tmp_path / "samples.db")
    assert {labels for _, labels in contents(archive)} == set(strange)
    archive.close()


def test_compaction_leaves_few_chunks_and_every_sample(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    page, gpu, recorded = series(5), series(2, "gpu"), series(4, "rule:x")
    for at in range(NOW, NOW + 600_000, 5000):
        archive.write(
            [
                batch(page, range(at + 1000, at + 6000, 1000)),
                batch(gpu, range(at + 500, at + 5500, 500), stream="gpu"),
                batch(recorded, [at], stream="rules", keep=30 * DAY),
            ]
        )
        if at % 60_000 == 0:
            archive.compact(at)
    before = contents(archive)
    assert archive.compact(NOW + 600_000)
    assert contents(archive) == before
    assert sum(map(len, before.values())) == 600 * 5 + 1200 * 2 + 120 * 4
    assert len(list(archive.load())) < 30
    archive.close()
    archive = Archive.open(tmp_path / "samples.db")
    assert contents(archive) == before
    archive.close()


def test_series_that_come_and_go_are_merged_without_inventing_samples(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    everything = series(12)
    expected: Samples = {}
    for step in range(64):
        labels = everything[step % 3 : 6 + step % 5]
        one = batch(labels, [NOW + step * 1000])
        archive.write([one])
        for label_set, row in zip(labels, one.values.view(np.uint64), strict=True):
            expected.setdefault(("engine", label_set), {})[NOW + step * 1000] = int(row[0])
    archive.compact(NOW + 64_000)
    assert contents(archive) == expected
    assert len(list(archive.load())) < 8
    archive.close()


def test_layouts_that_were_merged_away_do_not_stay(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    everything = series(200)
    for step in range(64):
        archive.write([batch(everything[: 100 + step], [NOW + step * 1000])])
    archive.compact(NOW + 64_000)
    before = contents(archive)
    archive.write([batch(everything[:163], [NOW + 65_000])])
    assert len(contents(archive)) == len(before)
    archive.close()
    with sqlite3.connect(tmp_path / "samples.db") as file:
        assert file.execute("SELECT count(*) FROM layout").fetchone()[0] <= 2
    file.close()


def test_a_series_of_one_row_does_not_blow_up_a_large_chunk(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    for step in range(200):
        archive.write([batch([(("__name__", "short"), ("request", str(step) + "-" + str(i))) for i in range(50)],
                             [NOW + step * 1000])])  # fmt: skip
    archive.compact(NOW + 200_000)
    cells = sum(one.values.size for one in archive.load())
    assert cells < 4 * 200 * 50, f"{cells} cells for 10,000 samples"
    archive.close()


def test_what_is_older_than_its_retention_goes(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    archive.write([batch(series(2), [NOW]), batch(series(2, "rule:x"), [NOW], stream="rules", keep=DAY)])
    archive.compact(NOW + HOUR - 1)
    assert len(contents(archive)) == 4
    archive.compact(NOW + HOUR)
    assert {stream for stream, _ in contents(archive)} == {"rules"}
    archive.compact(NOW + DAY)
    assert contents(archive) == {}
    archive.close()
    with sqlite3.connect(tmp_path / "samples.db") as file:
        assert file.execute("SELECT count(*) FROM series").fetchone() == (0,), "series without samples stay"
        assert file.execute("SELECT count(*) FROM layout").fetchone() == (0,)
    file.close()


def test_series_that_were_forgotten_can_come_back(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    labels = series(3)
    archive.write([batch(labels, [NOW])])
    archive.compact(NOW + 2 * HOUR)
    archive.write([batch(labels, [NOW + 2 * HOUR])])
    assert len(contents(archive)) == 3
    archive.close()
    archive = Archive.open(tmp_path / "samples.db")
    assert len(contents(archive)) == 3
    archive.close()


def test_a_load_at_a_time_leaves_out_what_is_too_old_and_what_is_not_yet(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    archive.write([batch(series(1), range(NOW - 2 * HOUR, NOW + HOUR, 60_000))])
    times = sorted(contents(archive, NOW)[("engine", series(1)[0])])
    assert times[0] == NOW - HOUR + 60_000
    assert times[-1] == NOW
    archive.close()


def test_after_the_clock_was_set_back_the_later_rows_count(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    label = series(1)[0]
    archive.write([batch([label], range(NOW, NOW + 100_000, 1000), values=np.full((1, 100), 1.0))])
    archive.write([batch([label], range(NOW + 100_000, NOW + 110_000, 1000), values=np.full((1, 10), 1.0))])
    archive.write([batch([label], [NOW + 50_500], values=[[2.0]])])
    for _ in range(2):
        times = sorted(contents(archive)["engine", label])
        assert times == [*range(NOW, NOW + 51_000, 1000), NOW + 50_500]
        archive.compact(NOW + 51_000)
    archive.close()
    archive = Archive.open(tmp_path / "samples.db")
    archive.write([batch([label], [NOW + 10_500])])
    assert sorted(contents(archive)["engine", label])[-2:] == [NOW + 10_000, NOW + 10_500]
    archive.close()


def test_a_clock_that_was_set_back_can_be_told_to_all_streams(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    archive.write(
        [batch(series(1), range(NOW, NOW + 10)), batch(series(1), range(NOW + 5, NOW + 9), stream="gpu")]
    )
    assert archive.truncate_after(NOW + 4)
    assert [sorted(times) for times in contents(archive).values()] == [list(range(NOW, NOW + 5))]
    archive.close()


def test_what_was_written_by_a_clock_far_ahead_does_not_stay_for_ever(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    archive.write([batch(series(1), [NOW + 3650 * DAY])])
    archive.compact(NOW)
    assert contents(archive) == {}
    archive.close()


def test_a_series_that_turns_into_a_counter_is_one(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    labels = series(2)
    archive.write([batch(labels, [NOW], counters=[False, False])])
    archive.write([batch(labels, [NOW + 1], counters=[False, True])])
    archive.close()
    archive = Archive.open(tmp_path / "samples.db")
    assert [list(one.counters) for one in archive.load()] == [[False, True]] * 2
    archive.close()


def test_labels_are_the_same_object_in_chunks_of_the_same_series(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    for at in range(3):
        archive.write([batch(series(2), [NOW + at])])
    first, *others = archive.load()
    assert all(other.labels is first.labels and other.counters is first.counters for other in others)
    archive.close()


def test_rows_of_nothing_are_not_written(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    assert archive.write([])
    assert archive.write([batch([], [NOW]), batch(series(1), [])])
    assert list(archive.load()) == []
    archive.close()


def test_the_file_does_not_grow_while_as_much_goes_as_comes(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    labels, random = series(50), np.random.default_rng(1)
    sizes = []
    for minute in range(120):
        for second in range(0, 60, 20):
            at = NOW + minute * 60_000 + second * 1000
            archive.write(
                [
                    batch(
                        labels, range(at, at + 20_000, 1000), keep=10 * 60_000, values=random.random((50, 20))
                    )
                ]
            )
        archive.compact(NOW + minute * 60_000 + 59_000)
        sizes.append(archive.stats().file_bytes)
    assert max(sizes[60:]) < 1.2 * max(sizes[15:40])
    archive.compact(NOW + DAY)
    archive.close()
    assert (tmp_path / "samples.db").stat().st_size < 600_000, (
        "the space of what was deleted is not given back"
    )


def test_over_the_size_limit_what_lived_longest_for_its_retention_goes(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db", size_limit=200_000)
    random = np.random.default_rng(1)
    archive.write([batch(series(2, "rule:x"), [NOW - DAY], stream="rules", keep=30 * DAY)])
    for at in range(NOW - HOUR // 2, NOW, 60_000):
        archive.write([batch(series(50), range(at, at + 60_000, 1000), values=random.random((50, 60)))])
    archive.compact(NOW)
    kept = contents(archive)
    assert ("rules", series(1, "rule:x")[0]) in kept
    times = sorted(kept["engine", series(1)[0]])
    assert times[-1] == NOW - 1000
    assert times[0] > NOW - HOUR // 2
    archive.close()


def test_the_statistics_tell_of_writes(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    assert archive.stats().last_flush is None
    before = time.time()
    archive.write([batch(series(1), [NOW])])
    stats = archive.stats()
    assert stats.flushes == 1
    assert stats.last_flush is not None and stats.last_flush >= before
    assert stats.file_bytes > 4096
    assert (stats.problem, stats.failures, stats.waiting_bytes) == (None, {}, 0)
    archive.close()


@pytest.mark.parametrize("rows", [1, 2, 7, 8, 9])
def test_rows_of_any_number_survive(tmp_path: Path, rows: int) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    archive.write([batch(series(9), range(NOW, NOW + rows))])
    assert [len(times) for times in contents(archive).values()] == [rows] * 9
    archive.close()


def test_series_that_come_and_go_do_not_fill_the_catalog_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.storage.archive_rows.SERIES_LIMIT", 1000)
    stays = (("__name__", "stays"),)
    archive = Archive.open(tmp_path / "samples.db")
    start = 1_790_000_000_000
    for flush in range(40):
        labels = (stays, *((("__name__", "x"), ("id", f"{flush}-{i}")) for i in range(100)))
        times = np.array([start + 10_000 * flush])
        archive.write([Batch("engine", 3_600_000, labels, (False,) * 101, times, np.ones((101, 1)))])
        if flush % 6 == 5:
            archive.compact(start + 10_000 * flush)
    archive.compact(start + 400_000)
    archive.close()
    assert 0 < archive.stats().lost_samples <= 40 * 100
    file = sqlite3.connect(tmp_path / "samples.db")
    assert file.execute("SELECT count(*) FROM series").fetchone()[0] <= 1000
    file.close()
    archive = Archive.open(tmp_path / "samples.db")
    found = {t for one in archive.load() if stays in one.labels for t in one.times.tolist()}
    archive.close()
    assert start + 390_000 in found
