"""Rows into the archive's file, out of it, and their merging there; errors are SQLite's own and ChunkError."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from exporter.storage.archive_catalog import Catalog
from exporter.storage.archive_codec import ChunkError, decode, encode
from exporter.storage.archive_file import checkpoint, transaction
from exporter.storage.archive_plan import LARGEST_CHUNK, Chunk, crowded, expired, merge_rows, merges, within
from exporter.storage.batch import Batch

if TYPE_CHECKING:
    from exporter.storage.model import F64, I64

SERIES_LIMIT = 100_000
"""Series in the file: what it says of them is in memory as well. Far more than live at one time; more come and go."""
WORK_LIMIT = 16 * LARGEST_CHUNK
"""Bytes of values that one compaction goes through, so that it ends soon; the next goes on."""


def write(connection: sqlite3.Connection, catalog: Catalog, flushes: Iterable[Sequence[Batch]]) -> int:
    """Add what was flushed, in order and in one transaction; how many samples were left out over the limit of series."""
    left_out = 0
    with transaction(connection):
        for flush in flushes:
            firsts: dict[int, int] = {}
            for batch in flush:
                stream, first = catalog.stream(batch.stream), int(batch.times[0])
                firsts[stream] = min(firsts.get(stream, first), first)
            for stream, first in firsts.items():
                if first <= catalog.last.get(stream, first - 1):
                    _cut(
                        connection, catalog, first, (stream,)
                    )  # the clock was set back: what came later counts
            for whole in flush:
                batch = catalog.fitting(whole, SERIES_LIMIT)
                left_out += whole.values.size - batch.values.size
                if not len(batch.labels):
                    continue
                stream, layout = catalog.stream(batch.stream), catalog.layout_of(batch)
                _insert(connection, catalog, stream, batch.keep, layout, batch.times, batch.values)
    return left_out


def _insert(
    connection: sqlite3.Connection,
    catalog: Catalog,
    stream: int,
    keep: int,
    layout: int,
    times: I64,
    values: F64,
) -> None:
    first, last = int(times[0]), int(times[-1])
    connection.execute(
        "INSERT INTO chunk (stream, keep, layout, first, last, rows, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (stream, keep, layout, first, last, len(times), encode(times, values)),
    )
    catalog.last[stream] = max(last, catalog.last.get(stream, last))


def _cut(connection: sqlite3.Connection, catalog: Catalog, first: int, streams: Iterable[int]) -> None:
    """Of some streams, what lies at a time or after it no longer counts; inside a transaction."""
    for stream in streams:
        connection.execute("DELETE FROM chunk WHERE stream = ? AND first >= ?", (stream, first))
        connection.execute(
            "UPDATE chunk SET last = ? WHERE stream = ? AND last >= ?", (first - 1, stream, first)
        )
        catalog.last[stream] = min(first - 1, catalog.last.get(stream, first - 1))


def truncate(connection: sqlite3.Connection, catalog: Catalog, t_ms: int) -> None:
    """Of every stream, what lies after a time no longer counts."""
    with transaction(connection):
        _cut(connection, catalog, t_ms + 1, catalog.streams.values())


def read(
    connection: sqlite3.Connection, catalog: Catalog, chunk: Chunk, now_ms: int | None
) -> tuple[I64, F64] | None:
    """The rows of a chunk that count, at `now_ms` if that is given; None when it is gone.

    Raises:
        ChunkError: it is damaged.
    """
    series = catalog.layouts.get(chunk.layout)
    row = connection.execute("SELECT data FROM chunk WHERE id = ?", (chunk.id,)).fetchone()
    if row is None:
        return None
    if series is None:
        raise ChunkError("nothing says whose samples they are")
    times, values = decode(row[0], len(series), chunk.rows)
    if times[0] != chunk.first:
        raise ChunkError("they are of another time")
    if now_ms is None:
        return within(times, values, None, chunk.last)
    return within(times, values, now_ms - chunk.keep, min(chunk.last, now_ms))


def compact(
    connection: sqlite3.Connection,
    catalog: Catalog,
    now_ms: int,
    size_limit: int,
    damaged: Callable[[Chunk, ChunkError], None],
) -> None:
    """Delete what is to go, merge what is small, each merge a transaction, and give space back."""
    chunks = catalog.chunks()
    gone = {chunk.id for chunk in expired(chunks, now_ms, size_limit)}
    streams = set(catalog.streams.values())
    gone |= {
        chunk.id for chunk in chunks if chunk.layout not in catalog.layouts or chunk.stream not in streams
    }
    gone |= {chunk.id for chunk in catalog.misshapen}
    if gone:
        with transaction(connection):
            connection.executemany("DELETE FROM chunk WHERE id = ?", [(number,) for number in gone])
    chunks = [chunk for chunk in chunks if chunk.id not in gone]
    if catalog.series > SERIES_LIMIT:
        crowd = {chunk.id for chunk in crowded(chunks, catalog.layouts, now_ms, SERIES_LIMIT * 4 // 5)}
        with transaction(connection):
            connection.executemany("DELETE FROM chunk WHERE id = ?", [(number,) for number in crowd])
        gone |= crowd
    work = 0
    for merge in merges([chunk for chunk in chunks if chunk.id not in gone], catalog.layouts):
        work += sum(8 * chunk.rows * len(catalog.layouts[chunk.layout]) for chunk in merge)
        with transaction(connection):
            _merge(connection, catalog, merge, damaged)
        if work > WORK_LIMIT:
            break
    if gone or work:
        with transaction(connection):
            catalog.forget_unused()
    checkpoint(connection)


def _merge(
    connection: sqlite3.Connection,
    catalog: Catalog,
    chunks: Sequence[Chunk],
    damaged: Callable[[Chunk, ChunkError], None],
) -> None:
    parts = []
    for chunk in chunks:
        try:
            rows = read(connection, catalog, chunk, None)
        except ChunkError as error:
            damaged(chunk, error)
        else:
            if rows is not None and len(rows[0]):
                parts.append((catalog.layouts[chunk.layout], *rows))
    connection.executemany("DELETE FROM chunk WHERE id = ?", [(chunk.id,) for chunk in chunks])
    if parts:
        series, times, values = merge_rows(parts)
        _insert(connection, catalog, chunks[0].stream, chunks[0].keep, catalog.layout(series), times, values)
