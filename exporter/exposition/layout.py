"""Reading one source's pages again and again: what stays is remembered, what moved is read.

The layout of a page hardly changes between two scrapes, so the lines are compared with those of the page before, and
of a line that differs only the text after the remembered head is read. Whatever does not fit goes through the complete
parser, which also names the errors.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import compress
from operator import ne
from typing import NamedTuple

from exporter.errors import ExpositionError
from exporter.exposition.convert import Conversion, PassThrough
from exporter.exposition.lines import NUMBER_BYTES, read_number
from exporter.exposition.model import Series
from exporter.exposition.parse import LABEL_LIMIT, SAMPLE_LIMIT, Memory, ParsedPage, parse_lines, split_lines

_NEVER = b"\n"
"""A head that no line begins with."""


class Layout:
    """The series of a page, one per column. A new object each time that the set or the order of series changes."""

    __slots__ = ("series",)

    def __init__(self, series: Sequence[Series]) -> None:
        self.series = series


class Row(NamedTuple):
    """One page's values; `values` is live: neither keep nor change it.

    `changed` are the columns whose value differs from the row before, rising; all of them for a new layout.
    """

    layout: Layout
    values: list[float]
    changed: Sequence[int]


class _Shape:
    """The structure of the last page, line by line: heads, columns (-1: none, or a duplicate), and its conversion."""

    __slots__ = ("columns", "conversion", "duplicates", "heads", "openmetrics")

    def __init__(self, page: ParsedPage, reserved_prefixes: tuple[str, ...]) -> None:
        self.openmetrics = page.openmetrics
        self.heads = [_NEVER] * len(page.lines)
        self.columns = array("i", [-1]) * len(page.lines)
        first: dict[int, int] = {}
        for k, (place, head) in enumerate(zip(page.line_of, page.heads, strict=True)):
            if head.text is not None:
                self.heads[place] = head.text
            if first.setdefault(id(head.series), k) == k:
                self.columns[place] = len(first) - 1
        self.duplicates = len(page.samples) - len(first)
        self.conversion = Conversion(page, list(first.values()), reserved_prefixes)


class PageReader:
    """Reads the pages of one scrape target; `duplicates` and `reserved` count what the last page's copy leaves out.

    A series that a page shows twice counts once, with its first value. After an error the next good page reads as new.
    """

    def __init__(
        self,
        *,
        sample_limit: int = SAMPLE_LIMIT,
        label_limit: int = LABEL_LIMIT,
        reserved_prefixes: tuple[str, ...] = (),
    ) -> None:
        self._sample_limit = sample_limit
        self._label_limit = label_limit
        self._reserved_prefixes = reserved_prefixes
        self._memory = Memory()
        self._lines: list[bytes] = []
        self._shape: _Shape | None = None
        self._layout = Layout(())
        self._values: list[float] = []
        self._passthrough: PassThrough | None = None
        self.duplicates = 0
        self.reserved = 0

    def read(self, body: bytes, *, openmetrics: bool = False) -> Row:
        """Read the next page; ExpositionError names the line that is wrong."""
        try:
            lines = split_lines(body, self._sample_limit)
            shape = self._shape
            if shape is not None and shape.openmetrics == openmetrics and len(lines) == len(self._lines):
                changed = self._follow(shape, lines)
                if changed is not None:
                    return Row(self._layout, self._values, changed)
            return self._read_all(lines, openmetrics=openmetrics)
        except ExpositionError:
            self._forget()
            raise

    def _forget(self) -> None:
        self._shape = self._passthrough = None
        self._layout = Layout(())
        self._lines, self._values = [], []
        self.duplicates = self.reserved = 0

    def passthrough(self) -> PassThrough:
        """The last page, to print; the same object as long as the page is the same. LookupError before a good page."""
        if self._passthrough is None:
            if self._shape is None:
                raise LookupError("no page has been read")
            self._passthrough = PassThrough(self._shape.conversion, self._lines)
        return self._passthrough

    def _follow(self, shape: _Shape, lines: list[bytes]) -> list[int] | None:
        """Take over a page with the last one's structure; None, and nothing is touched, when it has another."""
        moved = list(compress(range(len(lines)), map(ne, lines, self._lines)))
        if not moved:
            return []
        news = [lines[i] for i in moved]
        heads = [shape.heads[i] for i in moved]
        if not all(map(bytes.startswith, news, heads)):
            return None
        texts = list(map(bytes.removeprefix, news, heads))
        read: Callable[[bytes], float] = (
            read_number if b"".join(texts).translate(None, NUMBER_BYTES) else float
        )
        try:
            numbers = list(map(read, texts))
        except ValueError:
            return None
        columns, values = shape.columns, self._values
        changed = []
        for i, number in zip(moved, numbers, strict=True):
            column = columns[i]
            if values[column] != number and column >= 0:
                if number == number or values[column] == values[column]:
                    changed.append(column)
                values[column] = number
        self._lines = lines
        self._passthrough = None
        return changed

    def _read_all(self, lines: list[bytes], *, openmetrics: bool) -> Row:
        page = parse_lines(
            lines,
            self._memory,
            openmetrics=openmetrics,
            sample_limit=self._sample_limit,
            label_limit=self._label_limit,
        )
        shape = _Shape(page, self._reserved_prefixes)
        known = [k for k, place in enumerate(page.line_of) if shape.columns[place] >= 0]
        series = [page.samples[k].series for k in known]
        values = [page.samples[k].value for k in known]
        changed: Sequence[int]
        if self._shape is not None and series == self._layout.series:
            changed = [
                column
                for column, (old, new) in enumerate(zip(self._values, values, strict=True))
                if old != new and (old == old or new == new)
            ]
        else:
            self._layout = Layout(series)
            changed = range(len(series))
        self._lines, self._values, self._shape, self._passthrough = lines, values, shape, None
        self.duplicates, self.reserved = shape.duplicates, shape.conversion.reserved
        return Row(self._layout, values, changed)
