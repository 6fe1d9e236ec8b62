"""From what a scrape brought, and what the daemon shows of itself, to rows of the store.

The series get the labels `job` and `instance`, and names are written as a Prometheus 3 that scrapes this daemon would
store them, so that a rule or a dashboard sees the same series here and there. With several engines that is one with
`honor_labels: true`: what is an engine's has the engine's name as its `instance`.
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
from exporter.storage.stream import Stream

ENGINE, OWN = "engine", "exporter"
"""Streams: the engine's own page (of several, `engine/NAME`); and the daemon's series, with what a scrape of the daemon
would add by itself. `up` is among these: it is about the target, which is the daemon."""

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

    `reserved`: beginnings of names that are the daemon's, and left out of the engines' pages. `engines`: names of several
    engines; an empty one is the only engine, whose series are the daemon's in all but name.
    """

    def __init__(
        self,
        head: Head,
        *,
        job: str,
        instance: str,
        reserved: tuple[str, ...] = (),
        engines: Sequence[str] = ("",),
    ) -> None:
        self._head = head
        self._target = (("instance", instance), ("job", job))
        self._reserved = reserved
        self._pages = {
            name: _Page(
                head.stream(f"{ENGINE}/{name}" if name else ENGINE),
                (("instance", name or instance), ("job", job)),
            )
            for name in engines
        }
        self._own = head.stream(OWN)
        self._own_columns = _Columns((), Layout([]), [], 0)
        self._recorded: frozenset[str] = frozenset()

    def reserve(self, recorded: Iterable[str]) -> None:
        """Names that rules record from now on: the engines' pages have no say in them."""
        self._recorded = frozenset(recorded)
        for page in self._pages.values():
            page.columns = _Columns((), Layout([]), [], 0)

    def page(self, row: Row | None, t_ms: int, engine: str = "") -> None:
        """An engine's page; None: there is none, and its series end here."""
        page = self._pages[engine]
        if row is None:
            page.stream.end(t_ms)
            page.samples = 0
            return
        columns = page.columns
        grew = columns.sources != (row.layout,)
        if grew:
            columns = page.columns = self._compile((row.layout,), row.layout.series, page.target)
        values = columns.pick(row.values)
        page.stream.append(t_ms, columns.layout, values)
        page.samples = len(values)
        if grew:
            self._head.relieve(t_ms)

    def blocks(self, blocks: Iterable[Block], t_ms: int) -> None:
        """The present values of our own series, all in one row."""
        found = [block.columns() for block in blocks]
        sources = tuple([series for series, _ in found])
        values: list[float | None] = []
        for _, part in found:
            values += part
        values += (1.0, sum([page.samples for page in self._pages.values()]) + len(values))
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
        self, sources: tuple[object, ...], series: Sequence[Series], engine: _Target | None = None
    ) -> _Columns:
        """Which series are stored; `engine`: they are those of its page."""
        places: dict[Labels, int] = {}
        names: dict[str, tuple[str, str]] = {}
        foreign = engine is not None
        left_out = _created(series) | (_NOT_THE_ENGINES | self._recorded if foreign else set())
        for place, one in enumerate(series):
            if one.name not in left_out and not (foreign and one.name.startswith(self._reserved)):
                name = names.setdefault(one.name, (NAME, one.name))
                places.setdefault(self._labels(name, _canonical(one), engine), place)
        counters = [_is_counter(series[place]) for place in places.values()]
        return _Columns(sources, Layout(list(places), counters), list(places.values()), len(series))

    def _labels(
        self, name: tuple[str, str], labels: Iterable[tuple[str, str]], engine: _Target | None
    ) -> Labels:
        """The label set as it is stored. A label of an engine's page that clashes moves aside; our own are honoured."""
        pairs = [pair for pair in labels if pair[1]]
        target = self._target if engine is None else engine
        if engine is None and (own := next((pair for pair in pairs if pair[0] == "instance"), None)):
            target = (own, *[pair for pair in target if pair[0] != "instance"])
            pairs.remove(own)
        if not _TAKEN.isdisjoint([key for key, _ in pairs]):
            moved = {f"exported_{key}" if key in _TARGET else key: value for key, value in pairs}
            pairs = [pair for pair in moved.items() if pair[0] != NAME]
        pairs += (*target, name)
        pairs.sort()
        return tuple(pairs)


_Target = tuple[tuple[str, str], ...]
"""The labels that say where a series comes from."""


class _Page:
    """What is stored of one engine's page, and where."""

    __slots__ = ("columns", "samples", "stream", "target")

    def __init__(self, stream: Stream, target: _Target) -> None:
        self.stream = stream
        self.target = target
        self.columns = _Columns((), Layout([]), [], 0)
        self.samples = 0


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
    bases = {
        one.family.removesuffix("_total") if one.type == "counter" else one.family
        for one in series
        if one.type in _COUNTERS
    }
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
