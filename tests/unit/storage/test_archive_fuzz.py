"""Whatever stands in the archive's file: nothing is raised, the file is reported, and samples are written again."""

from __future__ import annotations

import random
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from exporter.storage.archive import Archive
from exporter.storage.archive_file import REASONS
from exporter.storage.batch import Batch
from exporter.storage.head import Head
from exporter.storage.model import Labels, Matcher
from exporter.storage.retention import Retention

NOW = 1_790_000_000_000
HOUR = 3_600_000
LABELS: list[Labels] = [(("__name__", "up"), ("number", str(i))) for i in range(6)]

COLUMNS = [
    ("stream", "id"), ("stream", "name"), ("series", "id"), ("series", "labels"), ("series", "counter"),
    ("layout", "id"), ("layout", "series"), ("chunk", "id"), ("chunk", "stream"), ("chunk", "keep"),
    ("chunk", "layout"), ("chunk", "first"), ("chunk", "last"), ("chunk", "rows"), ("chunk", "data"),
]  # fmt: skip
VALUES = [
    "NULL", "0", "-1", "1", "2", "9223372036854775807", "-9223372036854775808", "1e300", "0.5", "'text'", "''",
    "x''", "x'00'", "x'ff00ff00ff00ff00'", "CAST(x'c3282d' AS TEXT)", "'{}'", "'{},{}'", "'[1]'", "'{\"a\": 1}'",
    "'{\"a\": [\"b\"]}'", "'{\"a\": \"\\ud800\"}'", "'{\"__name__\":\"up\",\"number\":\"1\"}'", "zeroblob(8)",
    "zeroblob(16)", "randomblob(24)", "zeroblob(4096)",
]  # fmt: skip
SCHEMAS = [
    "DROP TABLE chunk", "DROP TABLE series", "DROP TABLE layout", "ALTER TABLE chunk RENAME COLUMN data TO other",
    "DROP TABLE stream; CREATE TABLE stream (id TEXT, name BLOB); INSERT INTO stream VALUES (NULL, NULL)",
    "DELETE FROM stream", "DELETE FROM layout", "DELETE FROM series", "DROP TABLE series; CREATE VIEW series AS SELECT 1",
    "DROP TABLE series; CREATE TABLE series (id, labels, counter); INSERT INTO series VALUES ('x', 7, 'y'), (NULL, x'ff', 1)",
    "CREATE TRIGGER no BEFORE INSERT ON chunk BEGIN SELECT RAISE(ABORT, 'no'); END",
]  # fmt: skip


def batch(first: int, name: str = "engine") -> Batch:
    times = np.arange(first, first + 4, dtype=np.int64)
    return Batch(name, HOUR, LABELS, [True] * 6, times, np.random.default_rng(first).random((6, 4)))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "samples.db"
    archive = Archive.open(path)
    for flush in range(24):
        archive.write([batch(NOW + 4 * flush), batch(NOW + 4 * flush, "exporter")])
        if flush == 15:
            archive.compact(NOW + 64)
    archive.close()
    return path


def lives_with(path: Path) -> None:
    """Open, load into a head, write, compact and load again; samples written now are there afterwards."""
    archive = Archive.open(path)
    head = Head(retention=Retention(HOUR), memory_limit=1 << 24)
    for one in archive.load(NOW + 1000):
        head.load(one)
    head.stats()
    head.select([Matcher("__name__", "=", "up")]).samples(NOW - HOUR, NOW + HOUR)
    archive.write([batch(NOW + 2000)])
    archive.compact(NOW + 2100)
    archive.truncate_after(NOW + 2300)
    archive.write([batch(NOW + 2400, "fresh")])
    archive.write([])
    archive.compact(NOW + 2500)
    found = [t for one in archive.load(NOW + 3000) if one.stream == "fresh" for t in one.times.tolist()]
    archive.close()
    assert found == [NOW + 2400, NOW + 2401, NOW + 2402, NOW + 2403], archive.stats()
    assert set(archive.stats().failures) <= set(REASONS)


@pytest.mark.parametrize("column", COLUMNS, ids=".".join)
def test_a_column_with_values_that_none_of_ours_has_stops_nothing(
    tmp_path: Path, sound: Path, column: tuple[str, str]
) -> None:
    for number, value in enumerate(VALUES):
        for rows in ("1", f"id = (SELECT max(id) FROM {column[0]})"):
            path = tmp_path / f"{number}{rows[:2]}" / "samples.db"
            path.parent.mkdir()
            shutil.copy(sound, path)
            file = sqlite3.connect(path)
            with file:
                if _fits(file, column, value):
                    file.execute("UPDATE OR IGNORE {} SET {} = {} WHERE {}".format(*column, value, rows))
            file.close()
            lives_with(path)


def _fits(file: sqlite3.Connection, column: tuple[str, str], value: str) -> bool:
    """NOT NULL and integer keys hold in what SQLite itself lets through; all else is possible."""
    if column[1] == "id":
        return bool(file.execute(f"SELECT typeof({value}) = 'integer'").fetchone()[0])
    return value != "NULL"


@pytest.mark.parametrize("statement", SCHEMAS)
def test_tables_that_are_not_ours_stop_nothing(tmp_path: Path, sound: Path, statement: str) -> None:
    path = tmp_path / "samples.db"
    shutil.copy(sound, path)
    file = sqlite3.connect(path)
    file.executescript(statement)
    file.close()
    lives_with(path)


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_to_bytes_stops_nothing(tmp_path: Path, sound: Path, seed: int) -> None:
    dice = random.Random(seed)
    whole = sound.read_bytes()
    for attempt in range(10):
        content = bytearray(whole)
        for _ in range(dice.choice((1, 2, 8, 40))):
            at, length = dice.randrange(100, len(content)), dice.choice((1, 1, 2, 16, 300))
            content[at : at + length] = dice.randbytes(len(content[at : at + length]))
        path = tmp_path / str(attempt) / "samples.db"
        path.parent.mkdir()
        path.write_bytes(content[: dice.choice((len(content), len(content), dice.randrange(len(content))))])
        lives_with(path)
