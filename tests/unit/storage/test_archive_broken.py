"""The archive on a disk, or with a file, that does not work: it is reported, and nothing is raised."""

from __future__ import annotations

import os
import random
import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from exporter.storage import archive as archive_module
from exporter.storage import archive_file
from exporter.storage.archive import Archive
from exporter.storage.archive_file import REASONS
from exporter.storage.batch import Batch
from exporter.storage.model import Labels

NOW = 1_790_000_000_000
HOUR = 3_600_000


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_file, "LOCK_TIMEOUT_SECONDS", 0.05)


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """What a test sets as RLIMIT_FSIZE goes back."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


LABELS: list[Labels] = [(("__name__", "up"), ("number", str(i))) for i in range(20)]
COUNTERS = [False] * 20


def rows(first: int, count: int = 5, *, noise: int | None = None) -> Batch:
    times = np.arange(first, first + count, dtype=np.int64)
    values = np.broadcast_to(times.astype(np.float64), (20, count))
    if noise is not None:
        values = np.random.default_rng(noise).random((20, count))
    return Batch("engine", HOUR, LABELS, COUNTERS, times, values)


def times(archive: Archive) -> list[int]:
    return [t for one in archive.load() for t in one.times.tolist()]


def filled(path: Path, flushes: int = 40, *, compact: bool = False) -> None:
    archive = Archive.open(path)
    for flush in range(flushes):
        archive.write([rows(NOW + 5 * flush, noise=flush)])
    if compact:
        archive.compact(NOW + 5 * flushes)
    archive.close()


def broken_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if ".broken-" in path.name)


def writes_again(archive: Archive) -> bool:
    return archive.write([rows(NOW + 10**6)]) and times(archive)[-5:] == list(
        range(NOW + 10**6, NOW + 10**6 + 5)
    )


@pytest.mark.parametrize(
    "garbage", [b"SQLite format 3\x00" + b"\xff" * 4096, os.urandom(50_000), b"{}" * 900]
)
def test_a_file_of_garbage_is_set_aside_and_begun_anew(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "samples.db"
    path.write_bytes(garbage)
    archive = Archive.open(path)
    assert archive.stats().set_aside == {"corrupt": 1}
    assert archive.stats().problem is None
    assert (tmp_path / "samples.db.broken-1").read_bytes() == garbage
    assert times(archive) == []
    assert writes_again(archive)
    archive.close()


@pytest.mark.parametrize("content", [b"", b"x"])
def test_a_file_of_nothing_is_begun(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "samples.db").write_bytes(content)
    archive = Archive.open(tmp_path / "samples.db")
    assert writes_again(archive)
    assert broken_files(tmp_path) == []
    archive.close()


@pytest.mark.parametrize("statement", ["PRAGMA user_version = 99", "PRAGMA application_id = 7"])
def test_a_file_of_another_version_is_set_aside_unchanged(tmp_path: Path, statement: str) -> None:
    path = tmp_path / "samples.db"
    filled(path, 2)
    with sqlite3.connect(path) as file:
        file.execute(statement)
    file.close()
    before = path.read_bytes()
    archive = Archive.open(path)
    assert archive.stats().set_aside == {"version": 1}
    assert writes_again(archive)
    archive.close()
    assert (tmp_path / "samples.db.broken-1").read_bytes() == before


def test_the_newest_three_broken_files_stay(tmp_path: Path) -> None:
    for attempt in range(5):
        (tmp_path / "samples.db").write_bytes(b"garbage %d" % attempt)
        Archive.open(tmp_path / "samples.db").close()
    assert broken_files(tmp_path) == [f"samples.db.broken-{n}" for n in (3, 4, 5)]
    assert (tmp_path / "samples.db.broken-5").read_bytes() == b"garbage 4"


@pytest.mark.parametrize("part", [0.0001, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file_is_set_aside_and_what_can_be_read_of_it_is_kept(
    tmp_path: Path, part: float
) -> None:
    path = tmp_path / "samples.db"
    filled(path, 300)
    size = path.stat().st_size
    os.truncate(path, int(size * part))
    archive = Archive.open(path)
    found = times(archive)
    assert found == sorted(set(found))
    assert set(found) <= set(range(NOW, NOW + 1500))
    assert archive.stats().problem is None
    if part == 0.9:
        assert broken_files(tmp_path)[0] == "samples.db.broken-1"
        assert len(found) > 900, "most of it can be read"
    assert writes_again(archive)
    archive.close()
    archive = Archive.open(path)
    assert times(archive) == [*found, *range(NOW + 10**6, NOW + 10**6 + 5)]
    assert archive.stats().set_aside == {}
    archive.close()


@pytest.mark.parametrize("seed", range(25))
def test_random_damage_raises_nothing_and_invents_nothing(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "samples.db"
    filled(path, 120, compact=seed % 2 == 0)
    dice = random.Random(seed)
    content = bytearray(path.read_bytes())
    for _ in range(dice.choice((1, 3, 20))):
        at, length = dice.randrange(len(content)), dice.choice((1, 64, 4096, 9000))
        content[at : at + length] = dice.randbytes(len(content[at : at + length]))
    path.write_bytes(content)
    archive = Archive.open(path)
    found = set(times(archive))
    archive.compact(NOW + 1000)
    archive.write([rows(NOW + 10**6)])
    archive.compact(NOW + 10**6)
    assert set(range(NOW + 10**6, NOW + 10**6 + 5)) <= set(times(archive))
    assert len(found) <= 600 + 120
    archive.close()
    assert set(archive.stats().failures) <= set(REASONS)


def test_a_damaged_chunk_costs_that_chunk_alone(tmp_path: Path) -> None:
    path = tmp_path / "samples.db"
    filled(path, 10)
    with sqlite3.connect(path) as file:
        file.execute("UPDATE chunk SET data = substr(data, 1, length(data) / 2) WHERE id = 3")
        file.execute("UPDATE chunk SET rows = 7 WHERE id = 5")
        file.execute("UPDATE chunk SET layout = 77 WHERE id = 6")
    file.close()
    archive = Archive.open(path)
    left = [t for t in range(NOW, NOW + 50) if (t - NOW) // 5 not in (2, 4, 5)]
    assert times(archive) == left
    assert archive.stats().damaged_chunks == 3
    archive.compact(NOW + 50)
    assert times(archive) == left
    archive.close()


def test_labels_that_are_none_cost_the_chunks_of_their_series_alone(tmp_path: Path) -> None:
    path = tmp_path / "samples.db"
    archive = Archive.open(path)
    other = Batch("gpu", HOUR, [(("__name__", "gpu"),)], [False], np.array([NOW]), np.ones((1, 1)))
    archive.write([rows(NOW), other])
    archive.close()
    with sqlite3.connect(path) as file:
        file.execute("UPDATE series SET labels = '[1' WHERE id = 3")
    file.close()
    archive = Archive.open(path)
    assert [one.stream for one in archive.load()] == ["gpu"]
    assert archive.stats().set_aside == {"corrupt": 1}
    archive.write([rows(NOW + 5)])
    assert times(archive) == [*range(NOW + 5, NOW + 10), NOW]
    archive.close()


def test_damage_met_while_running_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "samples.db"
    archive = Archive.open(path)
    for flush in range(100):
        archive.write([rows(NOW + 100 * flush, 100, noise=flush)])
    archive.close()
    archive = Archive.open(path)
    with path.open("r+b") as file:
        file.seek(4096 * 100)
        file.write(os.urandom(4096 * 8))
    archive.compact(NOW + 10_000)
    assert writes_again(archive)
    assert archive.stats().set_aside == {"corrupt": 1}
    assert len(times(archive)) > 5000
    archive.close()


def test_a_file_that_is_removed_while_it_is_open_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "samples.db"
    archive = Archive.open(path)
    archive.write([rows(NOW)])
    for one in tmp_path.iterdir():
        one.unlink()
    assert archive.write([rows(NOW + 5)])
    archive.close()
    archive = Archive.open(path)
    assert times(archive) == list(range(NOW + 5, NOW + 10))
    archive.close()


def test_a_folder_that_is_missing_is_reported_and_samples_wait_for_it(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "later" / "samples.db")
    assert archive.stats().failures == {"cannot_open": 1}
    assert not archive.write([rows(NOW)])
    assert times(archive) == []
    assert archive.stats().waiting_bytes > 0
    (tmp_path / "later").mkdir()
    assert archive.write([rows(NOW + 5)])
    assert times(archive) == list(range(NOW, NOW + 10))
    assert (archive.stats().waiting_bytes, archive.stats().problem) == (0, None)
    archive.close()


def test_a_folder_in_the_place_of_the_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "samples.db").mkdir()
    archive = Archive.open(tmp_path / "samples.db")
    assert not archive.write([rows(NOW)])
    assert archive.stats().problem == "cannot_open"
    archive.close()
    assert archive.stats().lost_samples == 100


def test_another_process_that_holds_the_file_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "samples.db"
    archive = Archive.open(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert not archive.write([rows(NOW)])
    assert not archive.compact(NOW)
    assert archive.stats().failures == {"locked": 2}
    late = Archive.open(path)
    assert late.stats().problem == "locked"
    assert broken_files(tmp_path) == [], "a file that is only busy is not broken"
    late.close()
    other.execute("ROLLBACK")
    other.close()
    assert archive.write([rows(NOW + 5)])
    assert times(archive) == list(range(NOW, NOW + 10))
    archive.close()


def test_a_reader_that_does_not_end_does_not_let_the_log_grow_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_file, "LOG_LIMIT", 1 << 20)
    path = tmp_path / "samples.db"
    archive = Archive.open(path)
    archive.write([rows(NOW)])
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM chunk").fetchone()
    written = [archive.write([rows(NOW + 5 + 500 * i, 500, noise=i)]) for i in range(20)]
    assert written[0] and not written[-1]
    assert archive.stats().problem == "locked"
    assert (tmp_path / "samples.db-wal").stat().st_size < 1.2 * (1 << 20)
    other.execute("ROLLBACK")
    other.close()
    assert archive.write([])
    assert times(archive) == list(range(NOW, NOW + 10_005))
    archive.close()


def test_a_full_disk_loses_nothing_when_room_comes_back(tmp_path: Path, file_size_limit: None) -> None:
    path = tmp_path / "samples.db"
    archive = Archive.open(path)
    archive.write([rows(NOW, 100, noise=1)])
    archive.compact(NOW)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    failed = sum(not archive.write([rows(NOW + 100 + 100 * i, 100, noise=i)]) for i in range(20))
    assert failed >= 10
    assert not archive.compact(NOW + HOUR // 2) or archive.stats().problem is None
    assert set(archive.stats().failures) <= {"full", "io"}
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert archive.write([])
    assert times(archive) == list(range(NOW, NOW + 2100))
    assert archive.stats().lost_samples == 0
    assert archive.stats().problem is None
    archive.close()


def test_a_file_system_that_is_full_is_called_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = archive_file.connect

    def small(path: Path) -> sqlite3.Connection:
        connection = really(path)
        connection.execute("PRAGMA max_page_count = 20")
        return connection

    monkeypatch.setattr("exporter.storage.archive_link.connect", small)
    archive = Archive.open(tmp_path / "samples.db")
    written = [archive.write([rows(NOW + 100 * i, 100, noise=i)]) for i in range(10)]
    assert written[0] and not written[-1]
    assert set(archive.stats().failures) == {"full"}
    kept = written.count(True) * 100
    assert times(archive) == list(range(NOW, NOW + kept)), "what was written before can be read"
    monkeypatch.setattr("exporter.storage.archive_link.connect", really)
    assert archive.write([]) or archive.write([])
    assert times(archive) == list(range(NOW, NOW + 1000))
    archive.close()


def test_what_a_killed_process_left_can_be_read_where_nothing_can_be_made(tmp_path: Path) -> None:
    """As on a full disk: there is a log, and no room for the shared memory that it needs."""
    path = tmp_path / "samples.db"
    alive = Archive.open(path)
    for flush in range(10):
        alive.write([rows(NOW + 5 * flush)])
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("samples.db", "samples.db-wal"):
        (copy / name).write_bytes((tmp_path / name).read_bytes())
    alive.close()
    (copy / "samples.db-shm").mkdir()
    archive = Archive.open(copy / "samples.db")
    assert archive.stats().problem in ("cannot_open", "read_only")
    assert times(archive) == list(range(NOW, NOW + 50))
    assert not archive.write([rows(NOW + 50)])
    (copy / "samples.db-shm").rmdir()
    assert archive.write([rows(NOW + 55)])
    assert times(archive) == list(range(NOW, NOW + 60))
    archive.close()


def test_only_its_user_may_read_the_file(tmp_path: Path) -> None:
    archive = Archive.open(tmp_path / "samples.db")
    archive.write([rows(NOW)])
    assert {one.stat().st_mode & 0o777 for one in tmp_path.iterdir()} == {0o600}
    archive.close()


def test_what_waits_is_bounded_and_the_oldest_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_module, "WAITING_LIMIT", 50_000)
    archive = Archive.open(tmp_path / "later" / "samples.db")
    for flush in range(100):
        archive.write([rows(NOW + 5 * flush)])
        assert archive.stats().waiting_bytes <= 50_000
    (tmp_path / "later").mkdir()
    assert archive.write([])
    found = times(archive)
    assert found == list(range(found[0], NOW + 500))
    assert archive.stats().lost_samples == (500 - len(found)) * 20
    archive.close()


UNPRIVILEGED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
if os.geteuid() == 0:
    import exporter.storage.archive
    os.setgid(65534)
    os.setuid(65534)
from exporter.storage.archive import Archive
import numpy as np
from exporter.storage.batch import Batch
archive = Archive.open(Path(sys.argv[1]))
rows = sum(len(one.times) for one in archive.load())
written = archive.write([Batch("x", 1000, [(("__name__", "x"),)], [False], np.array([1]), np.ones((1, 1)))])
archive.compact(1)
print(rows, written, archive.stats().problem)
archive.close()
"""


def as_nobody(path: Path) -> list[str]:
    """What a process that may only do what the file's mode lets it finds there: rows, written, problem."""
    answer = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, str(path), os.getcwd()],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.splitlines()[-1].split()


def opened_up(folder: Path) -> None:
    """Let everybody through the folders that pytest keeps to itself: as root, the test runs a process as nobody."""
    for one in (folder, *folder.parents):
        if os.geteuid() == 0 and not one.stat().st_mode & 1:
            one.chmod(one.stat().st_mode | 0o011)


@pytest.mark.parametrize(("file_mode", "folder_mode"), [(0o444, 0o777), (0o444, 0o555), (0o666, 0o555)])
def test_a_file_or_folder_that_cannot_be_written_is_read_and_reported(
    tmp_path: Path, file_mode: int, folder_mode: int
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    filled(folder / "samples.db", 10)
    opened_up(folder)
    (folder / "samples.db").chmod(file_mode)
    folder.chmod(folder_mode)
    try:
        rows_read, written, problem = as_nobody(folder / "samples.db")
    finally:
        folder.chmod(0o755)
    assert rows_read == "50"
    assert written == "False"
    assert problem in ("read_only", "cannot_open")
    assert broken_files(folder) == []


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    filled(folder / "samples.db", 10)
    opened_up(folder)
    (folder / "samples.db").chmod(0o000)
    folder.chmod(0o777)
    assert as_nobody(folder / "samples.db") == ["0", "False", "cannot_open"]
    assert broken_files(folder) == []
