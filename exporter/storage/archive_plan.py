"""What becomes of the archive's chunks as they age: which are merged, and which go.

Every flush writes a small chunk for each stream. Small ones are merged with their neighbours in time, so that a load
reads hundreds and not hundreds of thousands. As in a log-structured merge tree, a merge must bring its rows into the
next tier, eight times larger, so that a row is written again three times at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from exporter.storage.bits import ABSENT_BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporter.storage.model import F64, I64

TIERS = (8, 64, 512)
"""Rows with which a chunk enters the next tier; in the last it is left alone."""
LARGEST_CHUNK = 8 << 20
"""Bytes of the values of a chunk before compression: what one step of work may hold in memory."""
CLOCK_TOLERANCE_MS = 600_000
"""A chunk that lies further in the future than this was written while the clock was wrong."""


class Chunk(NamedTuple):
    """What the archive knows of a chunk without reading its samples; times in milliseconds."""

    id: int
    stream: int
    keep: int
    layout: int
    first: int
    last: int
    """Rows after this one do not count: the clock was set back, and they were overtaken."""
    rows: int
    size: int
    """Bytes on disk."""


def is_sound(chunk: Chunk) -> bool:
    """Whether this can be what the file was given; in a damaged one anything may stand."""
    return (
        all(type(value) is int for value in chunk)
        and chunk.keep > 0
        and chunk.rows > 0
        and chunk.first <= chunk.last
    )


def in_order(chunks: Iterable[Chunk]) -> list[Chunk]:
    """By stream and retention, each in time order; those of one stream and retention do not overlap."""
    return sorted(chunks, key=lambda chunk: (chunk.stream, chunk.keep, chunk.first))


def expired(chunks: Iterable[Chunk], now: int, size_limit: int) -> list[Chunk]:
    """The chunks to delete: too old, from a future that was none, and what makes the file larger than its limit.

    Of the last, those go first that have lived the largest part of their time: an hour of everything must not drive
    out a month of the few series that are kept so long.
    """
    gone: list[Chunk] = []
    kept: list[Chunk] = []
    for chunk in chunks:
        outlived = chunk.last <= now - chunk.keep or chunk.first > now + CLOCK_TOLERANCE_MS
        (gone if outlived else kept).append(chunk)
    excess = sum(chunk.size for chunk in kept) - size_limit
    if excess > 0:
        kept.sort(key=lambda chunk: (chunk.last - now) / chunk.keep)
        for chunk in kept:
            if excess <= 0:
                break
            excess -= chunk.size
            gone.append(chunk)
    return gone


def crowded(
    chunks: Iterable[Chunk], series: Mapping[int, NDArray[np.int64]], now: int, limit: int
) -> list[Chunk]:
    """The chunks to delete because all together they have more than `limit` series: those that have lived longest.

    Lived of the time that they are kept, as in `expired`; a chunk whose series others have, too, costs nothing and stays.
    """
    known: set[int] = set()
    seen: set[int] = set()
    gone = []
    for chunk in sorted(chunks, key=lambda chunk: (now - chunk.last) / chunk.keep):
        if chunk.layout in seen:
            continue
        fresh = [number for number in series[chunk.layout].tolist() if number not in known]
        if len(known) + len(fresh) > limit:
            gone.append(chunk)
        else:
            known.update(fresh)
            seen.add(chunk.layout)
    return gone


def merges(chunks: Iterable[Chunk], series: Mapping[int, NDArray[np.int64]]) -> Iterator[tuple[Chunk, ...]]:
    """Neighbours to be made one chunk each; `series` are the layouts' series."""
    taken: set[int] = set()
    for _, run in groupby(in_order(chunks), key=lambda chunk: (chunk.stream, chunk.keep)):
        neighbours = list(run)
        for rows in reversed(TIERS):
            for free, stretch in groupby(neighbours, key=partial(_is_free, rows, taken)):
                for merge in _groups(list(stretch), series) if free else ():
                    if len(merge) > 1 and sum(chunk.rows for chunk in merge) >= rows:
                        taken.update(chunk.id for chunk in merge)
                        yield merge


def _is_free(rows: int, taken: set[int], chunk: Chunk) -> bool:
    return chunk.rows < rows and chunk.id not in taken


def _groups(chunks: Sequence[Chunk], series: Mapping[int, NDArray[np.int64]]) -> Iterator[tuple[Chunk, ...]]:
    """Split so that no group becomes too large, too long for its retention, or mostly holes."""
    group: list[Chunk] = []
    layouts: set[int] = set()
    width = rows = cells = 0
    for chunk in chunks:
        of_chunk = len(series[chunk.layout]) * chunk.rows
        grown = width
        if chunk.layout not in layouts:
            grown = len(
                series[chunk.layout] if not group else _union([series[i] for i in (*layouts, chunk.layout)])
            )
        total = grown * (rows + chunk.rows)
        if group and (
            total * 8 > LARGEST_CHUNK
            or total > 2 * (cells + of_chunk) + 1024
            or chunk.last - group[0].first > chunk.keep // 4
        ):
            yield tuple(group)
            group, layouts, rows, cells = [], set(), 0, 0
            grown = len(series[chunk.layout])
        group.append(chunk)
        layouts.add(chunk.layout)
        width, rows, cells = grown, rows + chunk.rows, cells + of_chunk
    if group:
        yield tuple(group)


def _union(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Every series once, in the order in which they first came."""
    together = np.concatenate(parts)
    found, places = np.unique(together, return_index=True)
    return found[np.argsort(places)]


def merge_rows(
    parts: Sequence[tuple[NDArray[np.int64], I64, F64]],
) -> tuple[NDArray[np.int64], I64, F64]:
    """Series, times and values of chunks that follow each other, as one; a series that a part lacks is absent there."""
    times = np.concatenate([part[1] for part in parts])
    series = parts[0][0]
    if all(np.array_equal(part[0], series) for part in parts[1:]):
        return series, times, np.concatenate([part[2] for part in parts], axis=1)
    series = _union([part[0] for part in parts])
    order = np.argsort(series)
    sorted_series = series[order]
    values = np.full((len(series), len(times)), ABSENT_BITS, np.uint64)
    at = 0
    for ids, its_times, its_values in parts:
        places = order[np.searchsorted(sorted_series, ids)]
        values[places, at : at + len(its_times)] = its_values.view(np.uint64)
        at += len(its_times)
    return series, times, values.view(np.float64)


def within(times: I64, values: F64, lo: int | None, hi: int) -> tuple[I64, F64]:
    """The rows in `(lo, hi]`; without `lo`, all up to `hi`."""
    start = 0 if lo is None else int(np.searchsorted(times, lo, "right"))
    end = int(np.searchsorted(times, hi, "right"))
    return (times, values) if not start and end == len(times) else (times[start:end], values[:, start:end])
