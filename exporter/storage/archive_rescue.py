"""What can still be read of a damaged file, brought into the one that replaces it."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporter.storage.archive_catalog import is_number
from exporter.storage.archive_codec import ChunkError, decode_labels
from exporter.storage.archive_file import connect_reading, transaction
from exporter.storage.archive_plan import Chunk, is_sound

_COLUMNS = "id, stream, keep, layout, first, last, rows, data"


def rescue(damaged: Path, connection: sqlite3.Connection) -> int:
    """Copy every chunk that can be read, with what says whose it is, into a new and empty file; how many they were.

    Raises:
        FileError, sqlite3.Error: nothing can be read, or the new file cannot be written.
    """
    source = connect_reading(damaged, damaged=True)
    try:
        tables = {
            "stream": [row for row in _readable(source, "stream", "id, name") if isinstance(row[1], str)],
            "series": [row for row in _readable(source, "series", "id, labels, counter") if _is_series(row)],
            "layout": [row for row in _readable(source, "layout", "id, series") if isinstance(row[1], bytes)],
        }
        layouts = {row[0] for row in tables["layout"]}
        saved = 0
        with transaction(connection):
            for name, rows in tables.items():
                marks = ", ".join("?" * len(rows[0])) if rows else ""
                connection.executemany(f"INSERT OR IGNORE INTO {name} VALUES ({marks})", rows)  # noqa: S608 - our own names
            for row in _readable(source, "chunk", _COLUMNS):
                if row[3] in layouts and is_sound(Chunk._make((*row[:7], 0))) and _is_whole(row[7]):
                    connection.execute(
                        f"INSERT OR IGNORE INTO chunk ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                        row,
                    )
                    saved += 1
        return saved
    finally:
        source.close()


def _readable(source: sqlite3.Connection, table: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """Rows from the oldest up to the first damage, and from the newest down to it."""
    reached = None
    try:
        for row in source.execute(f"SELECT {columns} FROM {table} ORDER BY id"):  # noqa: S608
            reached = row[0]
            yield row
    except sqlite3.DatabaseError:
        pass
    else:
        return
    try:
        for row in source.execute(f"SELECT {columns} FROM {table} ORDER BY id DESC"):  # noqa: S608
            if reached is not None and row[0] <= reached:
                return
            yield row
    except sqlite3.DatabaseError:
        return


def _is_series(row: tuple[Any, ...]) -> bool:
    try:
        decode_labels([row[1]])
    except ChunkError:
        return False
    return is_number(row[0]) and row[2] is not None


def _is_whole(data: bytes) -> bool:
    try:
        zlib.decompress(data)
    except (zlib.error, TypeError, MemoryError):
        return False
    return True
