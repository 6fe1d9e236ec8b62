"""The engine's gauges in our names, and which of its series serve what; both go away with the page."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from exporter.exposition.block import Block, Slot
from exporter.exposition.model import Family
from exporter.sli import families as f
from exporter.sli import vocabulary as v
from exporter.sli.models import SOURCE
from exporter.sli.routes import Routes, Total

_FAMILIES: dict[str, Family] = {
    v.RUNNING: f.REQUESTS_RUNNING,
    v.WAITING: f.REQUESTS_WAITING,
    v.KV_USAGE: f.KV_CACHE_USAGE,
}


class EngineGauges:
    """Gauges per model: requests are summed over the ranks, of the KV cache the fullest rank counts."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._slots: dict[Total, Slot] = {}
        self._columns: dict[Total, list[int]] = {}
        self._sources: set[tuple[str, str]] = set()
        self._shown_sources: set[tuple[str, str]] = set()

    def bind(self, routes: Routes) -> None:
        """Another layout."""
        self._columns = routes.gauges
        self._sources = routes.sources
        for total, slot in self._slots.items():
            if total not in routes.gauges:
                slot.set(None)
        for name, model in routes.gauges:
            if (name, model) not in self._slots:
                self._slots[name, model] = self._block.gauge(_FAMILIES[name], model, SOURCE)

    def show(self, values: Sequence[float]) -> None:
        """Show what a row says; what is no number is absent."""
        for total, columns in self._columns.items():
            numbers = [values[column] for column in columns]
            if not isfinite(sum(numbers)):
                numbers = [number for number in numbers if isfinite(number)]
            number: float | None = None
            if numbers:
                number = max(numbers) if total[0] == v.KV_USAGE else sum(numbers)
                number = number if isfinite(number) else None
            slot = self._slots[total]
            if number != slot.value:
                slot.set(number)
        if self._sources != self._shown_sources:
            self._block.clear(f.SOURCE)
            for canonical, source in sorted(self._sources):
                self._block.info(f.SOURCE, canonical, source)
            self._shown_sources = self._sources

    def clear(self) -> None:
        """There is no page: nothing of it shows."""
        for slot in self._slots.values():
            slot.set(None)
        if self._shown_sources:
            self._block.clear(f.SOURCE)
            self._shown_sources = set()

    def drop_model(self, model: str) -> None:
        """Take a model's gauges away."""
        for total in [total for total in self._slots if total[1] == model]:
            self._block.remove(self._slots.pop(total))

    def overall(self, name: str) -> float | None:
        """A gauge over all models (of the KV cache the fullest); None when no model shows it."""
        values = [
            slot.value for total, slot in self._slots.items() if total[0] == name and slot.value is not None
        ]
        if not values:
            return None
        return max(values) if name == v.KV_USAGE else sum(values)
