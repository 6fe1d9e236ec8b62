"""What can still be read of a damaged file, brought into the one that replaces it."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporter.storage.archive_codec import ChunkError, decode_labels
from exporter.storage.archive_file import connect_reading, transaction

_COLUMNS = "id, stream, keep, layout, first, last, rows, data"


def rescue(damaged: Path, connection: sqlite3.Connection) -> int:
    """Copy every chunk that can be read, with what says whose it is, into a new and empty file; how many they were.

    Raises:
        FileError, sqlite3.Error: nothing can be read, or the new file cannot be written.
    """
    source = connect_reading(damaged, damaged=True)
    try:
        tables = {
            "stream": list(source.execute("SELECT id, name FROM stream")),
            "series": [
                row for row in source.execute("SELECT id, labels, counter FROM series") if _is_labels(row[1])
            ],
            "layout": list(source.execute("SELECT id, series FROM layout")),
        }
        layouts = {row[0] for row in tables["layout"]}
        saved = 0
        with transaction(connection):
            for name, rows in tables.items():
                marks = ", ".join("?" * len(rows[0])) if rows else ""
                connection.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)  # noqa: S608 - our own names
            for row in _readable(source):
                if row[3] in layouts and _is_whole(row[7]):
                    connection.execute(f"INSERT INTO chunk ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608
                    saved += 1
        return saved
    finally:
        source.close()


def _readable(source: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Chunks from the oldest up to the first damage, and from the newest down to it."""
    reached = None
    try:
        for row in source.execute(f"SELECT {_COLUMNS} FROM chunk ORDER BY id"):  # noqa: S608
            reached = row[0]
            yield row
    except sqlite3.DatabaseError:
        pass
    else:
        return
    try:
        for row in source.execute(f"SELECT {_COLUMNS} FROM chunk ORDER BY id DESC"):  # noqa: S608
            if reached is not None and row[0] <= reached:
                return
            yield row
    except sqlite3.DatabaseError:
        return


def _is_labels(text: str) -> bool:
    try:
        decode_labels([text])
    except ChunkError:
        return False
    return True


def _is_whole(data: bytes) -> bool:
    try:
        zlib.decompress(data)
    except zlib.error:
        return False
    return True
