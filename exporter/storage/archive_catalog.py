"""The numbers by which the archive's file knows streams, series and layouts."""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.storage.archive_codec import ChunkError, decode_labels, encode_labels
from exporter.storage.archive_plan import Chunk, in_order, is_sound
from exporter.storage.batch import Batch
from exporter.storage.model import Labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]


def is_number(number: int) -> bool:
    """Whether a series can have it: they are counted from 1, and one more must fit into 64 bits."""
    return 0 < number < 1 << 62


class Catalog:
    """What a file holds besides samples; what is new is written in the transaction of the samples that need it.

    When that transaction is rolled back, this is out of step with the file and must be read again.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.streams: dict[str, int] = {
            name: number
            for number, name in connection.execute("SELECT id, name FROM stream")
            if isinstance(name, str)
        }
        self.last: dict[int, int] = dict(
            connection.execute(
                "SELECT stream, max(last) FROM chunk"
                " WHERE typeof(stream) = 'integer' AND typeof(last) = 'integer' GROUP BY stream"
            ).fetchall()
        )
        rows = connection.execute("SELECT id, counter, labels FROM series ORDER BY id").fetchall()
        self._numbers: dict[Labels, int] = dict(
            zip(decode_labels([row[2] for row in rows]), [row[0] for row in rows], strict=True)
        )
        self._counters: set[int] = {row[0] for row in rows if row[1]}
        known = {row[0] for row in rows}
        self._next = max(known, default=0) + 1
        if len(self._numbers) < len(known):
            raise ChunkError("series: not one number each")
        self.layouts: dict[int, Numbers] = {
            number: series
            for number, data in connection.execute("SELECT id, series FROM layout")
            if (series := self._series(data, known)) is not None
        }
        # What a chunk or a layout speaks of may be lost: its number must not become another's.
        (stream, layout), (newest_stream,), (newest_layout,) = (
            connection.execute(query).fetchone()
            for query in (
                "SELECT coalesce(max(stream), 0), coalesce(max(layout), 0) FROM chunk"
                " WHERE typeof(stream) = 'integer' AND typeof(layout) = 'integer'",
                "SELECT coalesce(max(id), 0) FROM stream",
                "SELECT coalesce(max(id), 0) FROM layout",
            )
        )
        self._next_stream = max(stream, newest_stream) + 1
        self._next_layout = max(layout, newest_layout) + 1
        taken = (*known, self._next_stream, self._next_layout, self._next)
        if not all(map(is_number, taken)):
            raise ChunkError("numbers that nothing was given")
        self._layouts = {series.tobytes(): number for number, series in self.layouts.items()}
        self.misshapen: list[Chunk] = []
        """Rows of the chunk table, as of its last reading, with values that no chunk has."""
        self._recent: dict[tuple[str, int], tuple[Sequence[Labels], Sequence[bool], int]] = {}
        self._columns: dict[int, tuple[list[Labels], list[bool]]] = {}
        self._labels: dict[int, Labels] = {}
        """By number, while it is read what the file holds."""

    @property
    def series(self) -> int:
        """How many there are."""
        return len(self._numbers)

    def fitting(self, batch: Batch, limit: int) -> Batch:
        """The batch, or of one that brings the file over a limit of series what is of series that it has already."""
        if self._is_recent(batch) is not None:
            return batch
        known = [at for at, labels in enumerate(batch.labels) if labels in self._numbers]
        if len(self._numbers) + len(batch.labels) - len(known) <= limit:
            return batch
        return batch._replace(
            labels=tuple(batch.labels[at] for at in known),
            counters=tuple(batch.counters[at] for at in known),
            values=batch.values[known],
        )

    def stream(self, name: str) -> int:
        """The number of a stream."""
        number = self.streams.get(name)
        if number is None:
            number = self._next_stream
            self._next_stream += 1
            self._connection.execute("INSERT INTO stream (id, name) VALUES (?, ?)", (number, name))
            self.streams[name] = number
        return number

    def layout_of(self, batch: Batch) -> int:
        """The number of a batch's series, in their order."""
        recent = self._is_recent(batch)
        if recent is not None:
            return recent
        numbers = [self._numbers.get(labels, 0) for labels in batch.labels]
        turned = [
            (int(counter), number)
            for number, counter in zip(numbers, batch.counters, strict=True)
            if number and counter != (number in self._counters)
        ]
        self._connection.executemany(
            "INSERT INTO series (id, counter, labels) VALUES (?, ?, ?)", self._numbered(batch, numbers)
        )
        self._connection.executemany("UPDATE series SET counter = ? WHERE id = ?", turned)
        if turned:
            self._counters ^= {number for _, number in turned}
            self._columns.clear()
        layout = self.layout(np.array(numbers, "<i8"))
        self._recent[batch.stream, batch.keep] = batch.labels, batch.counters, layout
        return layout

    def _numbered(self, batch: Batch, numbers: list[int]) -> Iterator[tuple[int, int, str]]:
        """Rows of the series that have no number; each gets one, in `numbers` too, when its row is taken."""
        for at, known in enumerate(numbers):
            if known:
                continue
            number = numbers[at] = self._numbers[batch.labels[at]] = self._next
            self._next += 1
            if batch.counters[at]:
                self._counters.add(number)
            yield number, int(batch.counters[at]), encode_labels(batch.labels[at])

    def _is_recent(self, batch: Batch) -> int | None:
        recent = self._recent.get((batch.stream, batch.keep))
        if recent is not None and recent[0] is batch.labels and recent[1] is batch.counters:
            return recent[2]
        return None

    def layout(self, series: Numbers) -> int:
        """The number of these series, in this order."""
        data = series.astype("<i8", copy=False).tobytes()
        number = self._layouts.get(data)
        if number is None:
            number = self._next_layout
            self._next_layout += 1
            self._connection.execute("INSERT INTO layout (id, series) VALUES (?, ?)", (number, data))
            self._layouts[data] = number
            self.layouts[number] = series
        return number

    def columns(self, layout: int) -> tuple[list[Labels], list[bool]]:
        """Label sets and counter flags of a layout; the same objects each time until `forget_columns`.

        Raises:
            ChunkError: the file does not say what its series are.
        """
        found = self._columns.get(layout)
        if found is None:
            if len(self._labels) != len(self._numbers):
                self._labels = {number: labels for labels, number in self._numbers.items()}
            numbers = self.layouts[layout].tolist() if layout in self.layouts else [0]
            if not all(number in self._labels for number in numbers):
                raise ChunkError("nothing says whose samples they are")
            found = (
                [self._labels[number] for number in numbers],
                [number in self._counters for number in numbers],
            )
            self._columns[layout] = found
        return found

    def forget_columns(self) -> None:
        """Everything that was to be read has been."""
        self._columns, self._labels = {}, {}

    def chunks(self) -> list[Chunk]:
        """Every chunk of the file, in order of stream, retention and time; but for `misshapen`."""
        rows = self._connection.execute(
            "SELECT id, stream, keep, layout, first, last, rows,"
            " CASE typeof(data) WHEN 'blob' THEN length(data) END FROM chunk"
        )
        found = list(map(Chunk._make, rows))
        self.misshapen = [chunk for chunk in found if not is_sound(chunk)]
        return in_order(chunk for chunk in found if is_sound(chunk)) if self.misshapen else in_order(found)

    def _series(self, data: object, known: Container[int]) -> Numbers | None:
        """What a layout's bytes say; None when they say nothing that could be."""
        if not isinstance(data, bytes) or len(data) % 8:
            return None
        series = np.frombuffer(data, "<i8")
        numbers = series.tolist()
        self._next = max(self._next, max(numbers, default=0) + 1)
        sound = len(set(numbers)) == len(numbers) and all(number in known for number in numbers)
        return series if numbers and sound else None

    def forget_unused(self) -> None:
        """Delete layouts without chunks, and series without layouts."""
        used = {int(row[0]) for row in self._connection.execute("SELECT DISTINCT layout FROM chunk")}
        gone = self.layouts.keys() - used
        if not gone:
            return
        self._connection.executemany("DELETE FROM layout WHERE id = ?", [(number,) for number in gone])
        for number in gone:
            self._layouts.pop(self.layouts.pop(number).astype("<i8", copy=False).tobytes(), None)
        self._recent = {key: found for key, found in self._recent.items() if found[2] not in gone}
        self.forget_columns()
        needed = {number for series in self.layouts.values() for number in series.tolist()}
        unneeded = [(labels, number) for labels, number in self._numbers.items() if number not in needed]
        self._connection.executemany("DELETE FROM series WHERE id = ?", [(number,) for _, number in unneeded])
        for labels, number in unneeded:
            del self._numbers[labels]
            self._counters.discard(number)
