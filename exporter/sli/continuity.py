"""Totals that go on over engine restarts and gaps, out of rows of raw values.

Three signs tell of a restart: another epoch; another `process_start_time_seconds` or `*_created` time; a counter that
fell. The first two forget the whole engine, a creation time or a fall only its scope (see `memory`). After a restart
every series of the scope began at 0, so its value is what it gained. Vanished series keep their last raw value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.exposition.layout import Layout, Row
from exporter.sli import vocabulary as v
from exporter.sli.buckets import BucketMap
from exporter.sli.compiler import Compiler, restarted_scopes
from exporter.sli.memory import Memory
from exporter.sli.routes import Routes, Total

SERIES_LIMIT = 100_000
"""Most raw series remembered for one engine, vanished ones included: the default limit of samples of one page."""

_MOST_GAIN = 2.0**53
"""A counter that gains this much at once is broken: beyond it floats no longer count by one."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a row was: the `first` of an engine about which nothing is remembered, or the first after a restart."""

    first: bool
    restarted: bool
    compiled: bool
    """Whether the layout is another, so that accumulators moved."""
    changed: bool
    """Whether any total may have moved."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Where totals stood: counters by name, and all accumulators as they lay."""

    counters: dict[Total, float]
    values: list[float]


class Continuity:
    """Restart-continuous totals of one engine.

    `values` holds the accumulators; `routes.counters` and `routes.histograms` say where which total stands in them.
    Totals of series that are missing now are kept in `routes.counters` and `base` as well.
    """

    def __init__(
        self,
        bounds: dict[str, tuple[float, ...]],
        admit: Callable[[str, set[str]], bool],
        *,
        series_limit: int = SERIES_LIMIT,
    ) -> None:
        self._bounds = bounds
        self._admit = admit
        self._series_limit = series_limit
        self._memory = Memory()
        self._layout: Layout | None = None
        self._signs: list[float] = []
        self.routes = Routes([], [])
        self.values: list[float] = [0.0]
        self.base: dict[Total, list[float]] = {}
        """Per histogram: our cumulative counts, then count and sum, as they stood when the layout was compiled."""
        self.returned: set[Total] = set()
        """Totals that the last row brought back, with the gains of several intervals at once."""
        self.epoch: str | None = None
        self._known = False

    @property
    def models_remembered(self) -> set[str]:
        """Models seen since the engine started."""
        return self._memory.models()

    def advance(self, row: Row, epoch: str) -> Step:
        """Take one row in."""
        first = not self._known
        self._known = True
        restarted = self.epoch is not None and epoch != self.epoch
        if restarted:
            self._memory.forget_all()
            self._layout = None
            self.routes.keys.clear()
        self.epoch = epoch
        values = row.values
        compiled = row.layout is not self._layout
        if not compiled and [values[column] for column in self.routes.signs] != self._signs:
            compiled = True
        self.returned = set()
        if compiled:
            restarted = self._adopt(row) or restarted
            self.returned = self.routes.returned
            columns = self.routes.columns
        else:
            target = self.routes.target
            columns = [column for column in row.changed if target[column]]
            if not columns:
                return Step(first, False, False, False)
        if not self._add(values, columns) and self._add_carefully(row, columns):
            compiled = restarted = True
        return Step(first, restarted and not first, compiled, True)

    def _add(self, values: Sequence[float], columns: Sequence[int]) -> bool:
        """Add what each column gained; False, and nothing is done, when one fell or is no number."""
        last = self.routes.last
        gains = [values[column] - last[column] for column in columns]
        if gains and not (min(gains) >= 0 and sum(gains) < _MOST_GAIN):
            return False  # NaN compares false
        target, totals = self.routes.target, self.values
        for column, gain in zip(columns, gains, strict=True):
            last[column] = values[column]
            totals[target[column]] += gain
        return True

    def _add_carefully(self, row: Row, columns: Sequence[int]) -> bool:
        """As `_add`, when something is odd; True when it was a restart.

        A sum may shrink by a negative observation or by rounding: it then stands still. A counter that is negative,
        no number or beyond all measure is left out.
        """
        values, routes = row.values, self.routes
        fallen = {
            routes.scopes[column]
            for column in columns
            if 0 <= values[column] < routes.last[column] and column not in routes.sums
        }
        if fallen:
            self._write_back()
            for scope in fallen:
                self._memory.forget(scope)
            self._compile(row)
            routes, columns = self.routes, self.routes.columns
        for column in columns:
            gain = values[column] - routes.last[column]
            if 0 < gain < _MOST_GAIN:
                routes.last[column] = values[column]
                self.values[routes.target[column]] += gain
        return bool(fallen)

    def _adopt(self, row: Row) -> bool:
        """Compile the layout of a row; True when its creation or start times tell of a restart."""
        self._write_back()
        scopes = restarted_scopes(row.layout.series, row.values, self._memory)
        if scopes is None:
            self._memory.forget_all()
        else:
            for scope in scopes:
                self._memory.forget(scope)
        self._compile(row)
        return scopes is None or bool(scopes)

    def _compile(self, row: Row) -> None:
        previous = self.routes
        for route in previous.histograms:
            self.base.setdefault(route.total, [0.0] * (len(self._bounds[route.total[0]]) + 2))
        self.base = {total: self.histogram(total) for total in self.base}
        compiler = Compiler(
            self._memory,
            bounds=self._bounds,
            admit=self._admit,
            series_limit=self._series_limit,
            previous=previous if self._layout is not None else None,
        )
        routes = compiler.compile(row.layout.series, row.values)
        counters = {total: self.values[index] for total, index in previous.counters.items()}
        self.routes = routes
        for total in counters:
            routes.counter(total)
        self.values = [0.0] * routes.size
        for total, value in counters.items():
            self.values[routes.counters[total]] = value
        for route in routes.histograms:
            self.base.setdefault(route.total, [0.0] * (len(self._bounds[route.total[0]]) + 2))
        self._layout = row.layout
        self._signs = [row.values[column] for column in routes.signs]

    def _write_back(self) -> None:
        """Note in memory where the columns of the present layout stand."""
        for column, key in self.routes.keys.items():
            self._memory.scope(self.routes.scopes[column]).raw[key] = self.routes.last[column]

    def counter(self, name: str, model: str) -> float:
        """One counter's total."""
        index = self.routes.counters.get((name, model))
        return 0.0 if index is None else self.values[index]

    def mark(self) -> Mark:
        """Where the totals stand, for `take_back` after the next row."""
        counters = {total: self.values[index] for total, index in self.routes.counters.items()}
        return Mark(counters, list(self.values))

    def gained(self, mark: Mark) -> dict[str, float]:
        """What the counters gained since, by name, over all models."""
        gains: dict[str, float] = {}
        for total, index in self.routes.counters.items():
            gain = self.values[index] - mark.counters.get(total, 0.0)
            gains[total[0]] = gains.get(total[0], 0.0) + gain
        return gains

    def take_back(self, mark: Mark, step: Step) -> None:
        """Leave what the last row brought out of the totals, for good; `mark`: from before that row, which `step` was."""
        values, routes = self.values, self.routes
        for total, index in routes.counters.items():
            values[index] = mark.counters.get(total, 0.0)
        for route in routes.histograms:
            place = slice(route.start, route.stop + 2)
            # After another layout, accumulators of histograms hold what the row brought and nothing else.
            values[place] = [0.0] * (route.stop + 2 - route.start) if step.compiled else mark.values[place]

    def histogram(self, total: Total) -> list[float]:
        """One histogram's total: a cumulative count per bound of ours, the count, the sum. Not rounded, and
        not in order while bucket columns are missing."""
        whole = self.base[total]
        for route in self.routes.histograms:
            if route.total == total:
                counts = route.buckets.map(self.values[route.start : route.stop])
                counts += self.values[route.stop : route.stop + 2]
                whole = [a + b for a, b in zip(whole, counts, strict=True)]
        return list(whole)

    def drop_model(self, model: str) -> None:
        """Forget the totals of a model whose series are gone; only between two rows."""
        for total in [total for total in self.base if total[1] == model]:
            del self.base[total]
        for total in [total for total in self.routes.counters if total[1] == model]:
            del self.routes.counters[total]

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, JSON-able."""
        self._write_back()
        return {
            "epoch": self.epoch,
            "memory": self._memory.state(),
            "counters": [[*total, self.values[index]] for total, index in self.routes.counters.items()],
            "histograms": [
                [*total, list(self._bounds[total[0]]), self.histogram(total)] for total in self.base
            ],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, also when our bounds are others by now.

        Raises KeyError, TypeError or ValueError when it is none; then nothing has changed.
        """
        epoch = state["epoch"]
        memory = Memory.restored(state["memory"])
        counters = {(str(name), str(model)): float(value) for name, model, value in state["counters"]}
        base: dict[Total, list[float]] = {}
        for name, model, bounds, whole in state["histograms"]:
            if name not in v.HISTOGRAMS or len(whole) != len(bounds) + 2:
                raise ValueError(f"no histogram of ours: {name}")
            mapping = BucketMap([float(bound) for bound in bounds], self._bounds[name])
            numbers = [float(number) for number in whole]
            base[name, str(model)] = [*mapping.map(numbers[:-2]), *numbers[-2:]]
        self.epoch = None if epoch is None else str(epoch)
        self._memory, self._layout, self._known = memory, None, self.epoch is not None
        self.routes = Routes([], [])
        for total in counters:
            self.routes.counter(total)
        self.values = [0.0] * self.routes.size
        for total, value in counters.items():
            self.values[self.routes.counters[total]] = value
        self.base = base
