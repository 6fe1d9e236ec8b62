"""From what a scrape brought, and what the daemon shows of itself, to rows of the store.

The series get the labels `job` and `instance`, and names are written as a Prometheus 3 that scrapes this daemon would
store them, so that a rule or a dashboard sees the same series here and there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import is_, itemgetter
from typing import Any

import numpy as np

from exporter.exposition.block import Block
from exporter.exposition.layout import Row
from exporter.exposition.model import Series
from exporter.exposition.text import format_bound
from exporter.storage.head import Head, Layout
from exporter.storage.model import NAME, Labels

ENGINE, OWN = "engine", "exporter"
"""Streams: the engine's own page; and the daemon's series, with what a scrape of the daemon would add by itself."""

_NOT_THE_ENGINES = frozenset({"up", "scrape_samples_scraped", "ALERTS", "ALERTS_FOR_STATE"})
"""What a server says of its targets and rules, not a target of itself."""
_COUNTERS = frozenset({"counter", "histogram", "summary"})
_TARGET = ("instance", "job")
_TAKEN = frozenset((*_TARGET, NAME))
_BOUNDS = {"histogram": "le", "gaugehistogram": "le", "summary": "quantile"}
_SCRAPED = (
    Series("up", (), "up", "gauge"),
    Series("scrape_samples_scraped", (), "scrape_samples_scraped", "gauge"),
)


class Ingest:
    """Writes into the head; event loop only. Times are int milliseconds.

    `reserved`: beginnings of names that are the daemon's, and left out of the engine's page.
    """

    def __init__(self, head: Head, *, job: str, instance: str, reserved: tuple[str, ...] = ()) -> None:
        self._head = head
        self._target = (("instance", instance), ("job", job))
        self._reserved = reserved
        self._engine = head.stream(ENGINE)
        self._own = head.stream(OWN)
        self._engine_columns = self._own_columns = _Columns((), Layout([]), [], 0)
        self._samples = 0
        self._recorded: frozenset[str] = frozenset()

    def reserve(self, recorded: Iterable[str]) -> None:
        """Names that rules record from now on: the engine's page has no say in them."""
        self._recorded = frozenset(recorded)
        self._engine_columns = _Columns((), Layout([]), [], 0)

    def page(self, row: Row | None, t_ms: int) -> None:
        """The engine's page; None: there is none, and its series end here."""
        if row is None:
            self._engine.end(t_ms)
            self._samples = 0
            return
        columns = self._engine_columns
        grew = columns.sources != (row.layout,)
        if grew:
            columns = self._engine_columns = self._compile((row.layout,), row.layout.series, foreign=True)
        values = columns.pick(row.values)
        self._engine.append(t_ms, columns.layout, values)
        self._samples = len(values)
        if grew:
            self._head.relieve(t_ms)

    def blocks(self, blocks: Iterable[Block], t_ms: int) -> None:
        """The present values of our own series, all in one row."""
        found = [block.columns() for block in blocks]
        sources = tuple([series for series, _ in found])
        values: list[float | None] = []
        for _, part in found:
            values += part
        values += (1.0, self._samples + len(values))
        columns = self._own_columns
        if len(columns.sources) != len(sources) or not all(map(is_, columns.sources, sources)):
            series = [one for part in sources for one in part]
            columns = self._own_columns = self._compile(sources, [*series, *_SCRAPED])
        picked = columns.pick(values)
        row = np.array(picked, dtype=np.float64)  # None becomes NaN
        present = ~np.isnan(row)
        if len(row) - np.count_nonzero(present) != picked.count(None):
            present = np.array([value is not None for value in picked])  # a NaN that is a value
        self._own.append(t_ms, columns.layout, row, present)

    def _compile(
        self, sources: tuple[object, ...], series: Sequence[Series], *, foreign: bool = False
    ) -> _Columns:
        places: dict[Labels, int] = {}
        names: dict[str, tuple[str, str]] = {}
        left_out = _created(series) | (_NOT_THE_ENGINES | self._recorded if foreign else set())
        for place, one in enumerate(series):
            if one.name not in left_out and not (foreign and one.name.startswith(self._reserved)):
                name = names.setdefault(one.name, (NAME, one.name))
                places.setdefault(self._labels(name, _canonical(one)), place)
        counters = [_is_counter(series[place]) for place in places.values()]
        return _Columns(sources, Layout(list(places), counters), list(places.values()), len(series))

    def _labels(self, name: tuple[str, str], labels: Iterable[tuple[str, str]]) -> Labels:
        """The label set as it is stored; a label of the source that clashes moves aside, as `honor_labels: false` does."""
        pairs = [pair for pair in labels if pair[1]]
        if not _TAKEN.isdisjoint([key for key, _ in pairs]):
            moved = {f"exported_{key}" if key in _TARGET else key: value for key, value in pairs}
            pairs = [pair for pair in moved.items() if pair[0] != NAME]
        pairs += (*self._target, name)
        pairs.sort()
        return tuple(pairs)


class _Columns:
    """Which columns of a source are stored, and as what."""

    def __init__(self, sources: tuple[object, ...], layout: Layout, places: list[int], width: int) -> None:
        self.sources = sources
        self.layout = layout
        self._all = places == list(range(width))
        picks = not self._all and len(places) > 1
        self._getter: Any = itemgetter(*places) if picks else None
        self._places = [] if picks or self._all else places

    def pick(self, values: Sequence[Any]) -> Sequence[Any]:
        """The stored ones of a row's values."""
        if self._all:
            return values
        if self._getter is None:
            return [values[place] for place in self._places]
        picked: tuple[Any, ...] = self._getter(values)
        return picked


def _created(series: Iterable[Series]) -> set[str]:
    """Names of the series that only tell when a counter, histogram or summary began: our page leaves them out, too."""
    bases = {one.family.removesuffix("_total") for one in series if one.type in _COUNTERS}
    return {f"{base}_created" for base in bases}


def _canonical(series: Series) -> Sequence[tuple[str, str]]:
    """Labels with `le` and `quantile` as Prometheus 3 writes them: `1` becomes `1.0`."""
    bound = _BOUNDS.get(series.type)
    if bound is None:
        return series.labels
    labels = []
    for key, value in series.labels:
        if key == bound:
            try:
                labels.append((key, format_bound(float(value))))
                continue
            except ValueError:
                pass
        labels.append((key, value))
    return labels


def _is_counter(series: Series) -> bool:
    if series.type == "summary":
        return series.name != series.family
    return series.type in _COUNTERS
