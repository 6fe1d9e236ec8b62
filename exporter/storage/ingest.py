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

_COUNTERS = frozenset({"counter", "histogram", "summary"})
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
        self._target = (("instance", instance), ("job", job))
        self._reserved = reserved
        self._engine = head.stream(ENGINE)
        self._own = head.stream(OWN)
        self._engine_columns = self._own_columns = _Columns((), Layout([]), [], 0)
        self._samples = 0

    def page(self, row: Row | None, t_ms: int) -> None:
        """The engine's page; None: there is none, and its series end here."""
        if row is None:
            self._engine.end(t_ms)
            self._samples = 0
            return
        columns = self._engine_columns
        if columns.sources != (row.layout,):
            columns = self._engine_columns = self._compile(
                (row.layout,), row.layout.series, reserved=self._reserved
            )
        values = columns.pick(row.values)
        self._engine.append(t_ms, columns.layout, values)
        self._samples = len(values)

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
        self, sources: tuple[object, ...], series: Sequence[Series], *, reserved: tuple[str, ...] = ()
    ) -> _Columns:
        places: dict[Labels, int] = {}
        left_out = _created(series)
        for place, one in enumerate(series):
            if one.name not in left_out and not one.name.startswith(reserved):
                places.setdefault(self._labels(one.name, _canonical(one)), place)
        counters = [_is_counter(series[place]) for place in places.values()]
        return _Columns(sources, Layout(list(places), counters), list(places.values()), len(series))

    def _labels(self, name: str, labels: Iterable[tuple[str, str]]) -> Labels:
        """The label set as it is stored; a label of the source that clashes moves aside, as `honor_labels: false` does."""
        own = {
            f"exported_{key}" if key in ("instance", "job") else key: value for key, value in labels if value
        }
        return tuple(sorted({**own, **dict(self._target), NAME: name}.items()))


class _Columns:
    """Which columns of a source are stored, and as what."""

    def __init__(self, sources: tuple[object, ...], layout: Layout, places: list[int], width: int) -> None:
        self.sources = sources
        self.layout = layout
        self._all = places == list(range(width))
        self._getter: Any = itemgetter(*places) if len(places) > 1 else None
        self._places = places

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


def _canonical(series: Series) -> list[tuple[str, str]]:
    """Labels with `le` and `quantile` as Prometheus 3 writes them: `1` becomes `1.0`."""
    bound = _BOUNDS.get(series.type)
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
