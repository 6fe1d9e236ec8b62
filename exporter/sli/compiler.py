"""From a layout to its routes: sources chosen, models and series within their limits, restarts read from time stamps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from exporter.exposition.model import Series
from exporter.sli import vocabulary as v
from exporter.sli.buckets import BucketMap
from exporter.sli.memory import Key, Memory, Scope, scope_of, without_bound
from exporter.sli.routes import HistogramRoute, Routes, Total

_MOST_STARTS = 1000
"""Most process start times remembered; a page has one."""


@dataclass(slots=True)
class _Found:
    """A tracked column on its way to a route."""

    column: int
    series: Series
    part: v.Part
    scope: Scope


def restarted_scopes(series: Sequence[Series], values: Sequence[float], memory: Memory) -> set[Scope] | None:
    """Scopes whose creation times changed; None when the whole process did, as its start time says."""
    scopes: set[Scope] = set()
    for entry, value in zip(series, values, strict=True):
        if not isfinite(value):
            continue
        if entry.name in v.CREATED:
            scope = scope_of(entry.labels)
            known = memory.scopes.get(scope)
            if known is not None and known.created.get((entry.name, entry.labels), value) != value:
                scopes.add(scope)
        elif entry.name == v.PROCESS_START and memory.starts.get((entry.name, entry.labels), value) != value:
            return None
    return scopes


class Compiler:
    """Compiles one layout; sources and bounds found are noted in `memory`.

    `admit` says whether a model, given all that the page has, may have series of its own. A source once chosen for a
    scope stays until the engine restarts, or until only another one is there: that one then counts from where it
    stands, since both counted the same things.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        bounds: dict[str, tuple[float, ...]],
        admit: Callable[[str, set[str]], bool],
        series_limit: int,
        previous: Routes | None,
    ) -> None:
        self._memory = memory
        self._bounds = bounds
        self._admit = admit
        self._room = series_limit - memory.size()
        self._before = None if previous is None else set(previous.keys.values())

    def compile(self, series: Sequence[Series], values: Sequence[float]) -> Routes:
        """The routes of a page with these series; `values` are needed where a source replaces another."""
        routes = self._routes = Routes([0] * len(series), [0.0] * len(series))
        found: list[_Found] = []
        signs: list[tuple[int, Series]] = []
        http: list[tuple[int, Series, str]] = []
        vllm = False
        for column, entry in enumerate(series):
            name = entry.name
            vllm = vllm or name.startswith("vllm:")
            part = v.PARTS.get(name)
            if part is None:
                if name in v.CREATED or name == v.PROCESS_START:
                    signs.append((column, entry))
                elif name == v.SLEEP_STATE and entry.label("sleep_state") == "awake":
                    routes.awake.append(column)
            elif part.canonical != v.HTTP:
                found.append(_Found(column, entry, part, scope_of(entry.labels)))
            elif total := v.counter_name(part, entry):
                http.append((column, entry, total))

        present = {item.scope[0] for item in found}
        routes.models = sorted(model for model in present if self._admit(model, present))
        self._route_engines(found, set(routes.models), values)
        self._route_http(http, vllm=vllm)
        for column, entry in signs:
            self._note_sign(column, entry, values[column])
        return routes

    def _note_sign(self, column: int, series: Series, value: float) -> None:
        """Remember a creation or start time; no more of them than there are series to tell about."""
        if not isfinite(value):
            return
        key = series.name, series.labels
        if series.name == v.PROCESS_START:
            if key in self._memory.starts or len(self._memory.starts) < _MOST_STARTS:
                self._memory.starts[key] = value
                self._routes.signs.append(column)
            return
        scope = self._memory.scopes.get(scope_of(series.labels))
        if scope is not None and (key in scope.created or len(scope.created) <= len(scope.raw)):
            scope.created[key] = value
            self._routes.signs.append(column)

    def _drop(self, reason: str, series: int) -> None:
        if series:
            self._routes.dropped[reason] = self._routes.dropped.get(reason, 0) + series

    def _route_engines(self, found: list[_Found], admitted: set[str], values: Sequence[float]) -> None:
        """Route what vLLM itself counts."""
        routes = self._routes
        wanted = [item for item in found if item.scope[0] in admitted]
        self._drop("model_limit", len(found) - len(wanted))
        if self._room <= 0:
            known = [item for item in wanted if item.scope in self._memory.scopes]
            self._drop("series_limit", len(wanted) - len(known))
            wanted = known
        switched = _choose(wanted, self._memory)
        histograms: dict[tuple[Scope, Key], list[_Found]] = {}
        for item in wanted:
            part = item.part
            if self._memory.scope(item.scope).chosen[part.canonical] != part.source:
                continue
            routes.sources.add((part.canonical, part.source))
            total = v.counter_name(part, item.series) or part.canonical, item.scope[0]
            if part.kind == "gauge":
                routes.gauges.setdefault(total, []).append(item.column)
            elif part.kind == "counter":
                start = values[item.column] if (item.scope, part.canonical) in switched else 0.0
                self._track(item.column, item.series, item.scope, total, routes.counter(total), start)
            else:
                labels = without_bound(item.series)[1]
                histograms.setdefault((item.scope, (part.source, labels)), []).append(item)
        shared: dict[tuple[Total, tuple[float, ...]], HistogramRoute] = {}
        for (scope, key), items in histograms.items():
            replaces = (scope, items[0].part.canonical) in switched
            self._route_histogram(scope, key, items, shared, values if replaces else None)

    def _route_histogram(
        self,
        scope: Scope,
        key: Key,
        items: list[_Found],
        shared: dict[tuple[Total, tuple[float, ...]], HistogramRoute],
        start: Sequence[float] | None,
    ) -> None:
        """Give one histogram's columns their accumulators, shared with those of the same model and bounds.

        Bounds seen since the engine's start stay part of it while their columns are missing. The `+Inf` bucket is the
        count; `_count` stands in where there has never been one (then `-inf` is noted among the bounds).
        """
        total = items[0].part.canonical, scope[0]
        if self._room <= 0:
            raw = self._memory.scope(scope).raw
            kept = [item for item in items if (item.series.name, item.series.labels) in raw]
            self._drop("series_limit", len(items) - len(kept))
            if not kept:
                return
            items = kept
        buckets: dict[float, _Found] = {}
        whole: dict[str, _Found] = {}
        for item in items:
            if item.part.kind != "bucket":
                whole[item.part.kind] = item
            elif (bound := _bound(item.series.label("le"))) is not None:
                buckets.setdefault(bound, item)
        known = self._memory.scope(scope).bounds.setdefault(key, set())
        known.update(buckets)
        if not buckets and inf not in known and "count" in whole:
            known.add(-inf)
        rising = tuple(sorted(bound for bound in known if isfinite(bound)))
        route = shared.get((total, rising))
        if route is None:
            size = self._routes.size
            mapping = BucketMap(rising, self._bounds[total[0]])
            route = shared[total, rising] = HistogramRoute(total, mapping, size, size + len(rising))
            self._routes.size += len(rising) + 2
            self._routes.histograms.append(route)
        places = {bound: route.start + index for index, bound in enumerate(rising)}
        places[inf] = route.stop
        route.ragged = route.ragged or any(bound not in buckets for bound in rising)
        columns = [
            (item, places[bound]) for bound, item in buckets.items() if bound < inf or -inf not in known
        ]
        if -inf in known and "count" in whole:
            columns.append((whole["count"], route.stop))
        if "sum" in whole:
            columns.append((whole["sum"], route.stop + 1))
            self._routes.sums.add(whole["sum"].column)
        for item, place in columns:
            self._track(item.column, item.series, scope, total, place, start[item.column] if start else 0.0)

    def _route_http(self, http: list[tuple[int, Series, str]], *, vllm: bool) -> None:
        """Requests by handler and status belong to the page's only model, else to the model with the empty name.

        Successes are vLLM's own to count; only a page that never had a series of vLLM (`--disable-log-stats`) lets
        HTTP say.
        """
        routes = self._routes
        model = routes.models[0] if len(routes.models) == 1 else ""
        scope: Scope = ("", "")
        chosen = self._memory.scope(scope).chosen
        if vllm:
            chosen[v.HTTP] = v.REQUESTS
        for column, series, total in http:
            if total != v.HTTP_SUCCESS:
                routes.sources.add((v.HTTP, series.name))
            elif chosen.setdefault(v.HTTP, v.HTTP) == v.HTTP:
                routes.sources.add((v.REQUESTS, series.name))
            else:
                continue
            self._track(column, series, scope, (total, model), routes.counter((total, model)), 0.0)

    def _track(
        self, column: int, series: Series, scope: Scope, total: Total, target: int, start: float
    ) -> None:
        """Let a column count from its remembered value on, or from `start` when it is new."""
        routes, raw = self._routes, self._memory.scope(scope).raw
        key = series.name, series.labels
        if key not in raw:
            if self._room <= 0:
                self._drop("series_limit", 1)
                return
            self._room -= 1
            raw[key] = start if isfinite(start) else 0.0
        elif self._before is not None and key not in self._before:
            routes.returned.add(total)
        routes.columns.append(column)
        routes.keys[column] = key
        routes.scopes[column] = scope
        routes.last[column] = raw[key]
        routes.target[column] = target


def _choose(found: list[_Found], memory: Memory) -> set[tuple[Scope, str]]:
    """Settle the source of each canonical name in each scope; returns where a known one had to be replaced."""
    there: dict[tuple[Scope, str], set[str]] = {}
    for item in found:
        there.setdefault((item.scope, item.part.canonical), set()).add(item.part.source)
    switched = set()
    for (scope, canonical), sources in there.items():
        chosen = memory.scope(scope).chosen
        known = chosen.get(canonical)
        if known in sources:
            continue
        chosen[canonical] = next(source for source in v.SOURCES[canonical] if source in sources)
        if known is not None:
            switched.add((scope, canonical))
    return switched


def _bound(text: str) -> float | None:
    try:
        bound = float(text)
    except ValueError:
        return None
    return bound if bound > -inf else None  # NaN compares false
