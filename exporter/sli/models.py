"""One model's requests by outcome, and the observations that are made of it once per scrape interval."""

from __future__ import annotations

from typing import Any, NamedTuple

from exporter.exposition.block import Block
from exporter.settings import SliSettings
from exporter.sli import families as f
from exporter.sli import outcomes as o
from exporter.sli import vocabulary as v
from exporter.sli.routes import Total
from exporter.sli.views import ROUNDING, ObservedHistogram

SOURCE = "engine"
"""The label `source` of everything that is read from vLLM's own page."""


class Gains(NamedTuple):
    """What a model's counters gained since the last row."""

    success: float
    errored: float
    rejected: float
    server_errors: float
    output_tokens: float
    client_errors: float
    aborted: float


NO_GAINS = Gains(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Returned itself, so that `is` tells a model without news."""


class ModelView:
    """Requests by outcome of one model, its error ratio and its output per second.

    Rejections and engine errors are counted here, since a failure may stand in two of vLLM's counters; the other
    outcomes are totals of `continuity`, found by their places in its accumulators.
    """

    def __init__(self, name: str, block: Block, settings: SliSettings) -> None:
        self.name = name
        self._block = block
        self._settings = settings
        self._slots = {outcome: block.counter(f.REQUESTS, name, SOURCE, outcome) for outcome in o.OUTCOMES}
        for slot in self._slots.values():
            slot.set(0)
        self._rejected = self._errors = 0.0
        self._places: tuple[int, ...] = (0,) * 8
        self._seen = NO_GAINS
        self.error_ratio: ObservedHistogram | None = None
        self.speed: ObservedHistogram | None = None

    def bind(self, counters: dict[Total, int]) -> None:
        """Another layout: look the accumulators up again; 0 is one that stays at zero."""
        names = (
            v.FINISHED,
            v.ERRORED,
            v.REJECTIONS,
            v.HTTP_SERVER_ERROR,
            v.OUTPUT_TOKENS,
            v.HTTP_CLIENT_ERROR,
            v.ABORTED,
            v.HTTP_SUCCESS,
        )
        self._places = tuple([counters.get((name, self.name), 0) for name in names])

    def gains(self, values: list[float]) -> Gains:
        """What came since the last call."""
        finished, *others, http_success = [values[place] for place in self._places]
        now = Gains(finished + http_success, *others)
        before = self._seen
        if now == before:
            return NO_GAINS
        self._seen = now
        return Gains(*[a - b for a, b in zip(now, before, strict=True)])

    def count(self, rejected: float, errors: float) -> None:
        """Count failures and show all outcomes as they stand."""
        self._rejected += rejected
        self._errors += errors
        for outcome, value in (
            (o.SUCCESS, self._seen.success),
            (o.CLIENT_ERROR, self._seen.client_errors),
            (o.REJECTED, float(int(self._rejected + ROUNDING))),
            (o.ENGINE_ERROR, float(int(self._errors + ROUNDING))),
            (o.ABORTED, self._seen.aborted),
        ):
            slot = self._slots[outcome]
            if slot.value != value:
                slot.set(value)

    def requests(self, *outcomes: str) -> float:
        """Requests with one of these outcomes, as shown."""
        return sum([self._slots[outcome].value or 0.0 for outcome in outcomes])

    def observe_speed(self, tokens_per_second: float | None = None) -> None:
        """Observe an interval's output per second; None only has the histogram shown."""
        if self.speed is None:
            bounds = self._settings.output_tokens_per_second_buckets
            slot = self._block.histogram(f.OUTPUT_TOKENS_PER_SECOND, bounds, self.name, SOURCE)
            self.speed = ObservedHistogram(slot)
        if tokens_per_second is not None:
            self.speed.observe(tokens_per_second)

    def observe_error_ratio(self, ratio: float | None = None) -> None:
        """Observe an interval's error ratio; None only has the histogram shown."""
        if self.error_ratio is None:
            bounds = self._settings.error_ratio_buckets
            slot = self._block.histogram(f.ERROR_RATIO, bounds, self.name, SOURCE)
            self.error_ratio = ObservedHistogram(slot)
        if ratio is not None:
            self.error_ratio.observe(ratio)

    def remove(self) -> None:
        """Take the series of this model away."""
        for slot in self._slots.values():
            self._block.remove(slot)
        for histogram in (self.error_ratio, self.speed):
            if histogram is not None:
                self._block.remove(histogram.slot)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, JSON-able."""
        return {
            "name": self.name,
            "rejected": self._rejected,
            "engine_error": self._errors,
            "error_ratio": self.error_ratio.state() if self.error_ratio else None,
            "output_tokens_per_second": self.speed.state() if self.speed else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._rejected, self._errors = float(state["rejected"]), float(state["engine_error"])
        if state["error_ratio"] is not None:
            self.observe_error_ratio()
            assert self.error_ratio is not None
            self.error_ratio.restore(state["error_ratio"])
        if state["output_tokens_per_second"] is not None:
            self.observe_speed()
            assert self.speed is not None
            self.speed.restore(state["output_tokens_per_second"])
