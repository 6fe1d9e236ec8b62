"""The service level indicators of one engine: rows in, `vllm_slo_` families and `vllm_` summary gauges out.

Everything belongs to the event loop; a row costs its changed columns plus a fixed part per model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import add
from typing import Any

import structlog

from exporter.exposition.block import Block, Slot
from exporter.exposition.layout import Row
from exporter.exposition.model import Family
from exporter.settings import SliSettings
from exporter.sli import families as f
from exporter.sli import outcomes as o
from exporter.sli import vocabulary as v
from exporter.sli.continuity import SERIES_LIMIT, Continuity, Mark, Step
from exporter.sli.gauges import EngineGauges
from exporter.sli.intervals import Interval, error_ratios, settle
from exporter.sli.models import SOURCE, ModelView
from exporter.sli.own_work import OwnWork, explains
from exporter.sli.report import Report
from exporter.sli.routes import Total
from exporter.sli.summary import Summary
from exporter.sli.views import HistogramView

log = structlog.get_logger(__name__)

_STATE_VERSION = 1

_HISTOGRAMS: dict[str, Family] = {
    v.TTFT: f.TIME_TO_FIRST_TOKEN,
    v.ITL: f.INTER_TOKEN_LATENCY,
    v.DURATION: f.REQUEST_DURATION,
    v.QUEUE: f.QUEUE_DURATION,
}
_COUNTERS: dict[str, tuple[Family, tuple[str, ...]]] = {
    v.INPUT_TOKENS: (f.TOKENS, ("input",)),
    v.OUTPUT_TOKENS: (f.TOKENS, ("output",)),
    v.PREEMPTIONS: (f.PREEMPTIONS, ()),
    v.CACHE_QUERIES: (f.PREFIX_CACHE_QUERIES, ()),
    v.CACHE_HITS: (f.PREFIX_CACHE_HITS, ()),
}
_PROGRESS = (v.INPUT_TOKENS, v.OUTPUT_TOKENS, v.ITERATIONS)


@dataclass(frozen=True, slots=True)
class Progress:
    """What the last page says of the engine's work, for the hang verdict; None where it does not tell.

    `counter` only rises while the engine works: tokens in both directions and engine steps.
    """

    running: float | None = None
    waiting: float | None = None
    counter: float | None = None
    asleep: bool = False
    """Whether somebody put the engine to sleep: it owes nobody anything until it is woken."""


class Indicators:
    """Derived indicators of one engine, over its restarts and over those of the daemon.

    `model_limit` bounds how many models have series of their own. `now` is in unix seconds throughout.
    """

    def __init__(
        self,
        settings: SliSettings,
        block: Block,
        *,
        model_limit: int,
        scrape_interval: float,
        series_limit: int = SERIES_LIMIT,
    ) -> None:
        self._settings = settings
        self._block = block
        self._model_limit = model_limit
        self._series_limit = series_limit
        self._bounds = {
            v.TTFT: settings.time_to_first_token_buckets,
            v.ITL: settings.inter_token_latency_buckets,
            v.DURATION: settings.request_duration_buckets,
            v.QUEUE: settings.queue_duration_buckets,
        }
        self._drops = {reason: block.counter(f.DROPPED, reason) for reason in ("model_limit", "series_limit")}
        for slot in self._drops.values():
            slot.set(0)
        self._dropped: dict[str, int] = {}
        self._continuity = Continuity(self._bounds, self._admit, series_limit=series_limit)
        self._pairing = o.FailurePairing()
        self._admitted: set[str] = set()
        self._models: dict[str, ModelView] = {}
        self._histograms: dict[Total, HistogramView] = {}
        self._counters: dict[Total, tuple[int, Slot]] = {}
        self._gauges = EngineGauges(block)
        self._report = Report(
            block,
            window=settings.window,
            scrape_interval=scrape_interval,
            ttft_bounds=settings.time_to_first_token_buckets,
            duration_bounds=settings.request_duration_buckets,
        )
        self._progress = Progress()
        self._own: OwnWork | None = None
        self._own_progress = 0.0
        """What requests of our own added to the progress and not to the totals."""
        self._down = 0.0
        self._last: float | None = None
        self._quiet = False

    def apply(self, row: Row, *, now: float, epoch: str, serving: bool = True) -> None:
        """A good page landed. `epoch` is the engine's incarnation: a new one means that its counters began at 0 again.

        `serving` false: the engine shows a page and serves nobody (it hangs). An interval without a success is then
        one of errors only. The first page of an engine that is not known, and the first after `restore`, makes no
        observation: when it happened is not known.
        """
        mark = self._continuity.mark() if self._own is not None else None
        step = self._continuity.advance(row, epoch)
        if mark is not None:
            self._leave_out_own(mark, step)
        if step.restarted:
            self._pairing.forget()
        if step.compiled:
            self._bind()
        values = self._continuity.values
        interval = settle(self._models, values, self._pairing)
        if step.changed:
            self._show_totals(values)
        self._gauges.show(row.values)
        self._progress = Progress(
            self._gauges.overall(v.RUNNING),
            self._gauges.overall(v.WAITING),
            self._count_progress(),
            asleep=any(row.values[column] == 0.0 for column in self._continuity.routes.awake),
        )
        if step.first or self._quiet:
            self._pairing.forget()  # what is past has no partner to come
            self._report.started = True
            self._report.begin(now, self._vector())
        else:
            elapsed = now - self._last if self._last is not None and not step.restarted else 0.0
            self._observe(interval, now, elapsed, serving=serving)
        self._last, self._quiet = now, False
        self._conclude(now, up=True)

    def missed(self, *, now: float, down: bool, intervals: int = 1) -> None:
        """No page for so many scrape intervals: gauges go away.

        `down`: the engine should serve and does not, which is an error for each of them.
        """
        self._gauges.clear()
        self._progress = Progress()
        if down:
            for _ in range(intervals):
                self._observe_down()
        self._conclude(now, up=False)

    def own_work(self, input_tokens: int, output_tokens: int) -> None:
        """A request of the daemon's own was answered: where nothing else happened, it is left out of the totals."""
        self._own = OwnWork(input_tokens, output_tokens)

    def progress(self) -> Progress:
        """The engine's work as the last page has it; nothing known after a missed one."""
        return self._progress

    @property
    def report(self) -> Report:
        """What the summary is made of, for one over several engines."""
        return self._report

    def summary(self) -> Summary:
        """The summary over the sliding window, as the gauges show it."""
        return self._report.summary()

    def output_tokens_total(self) -> float | None:
        """Output tokens of all models over engine restarts; None before any page."""
        return self._report.field("total_output_tokens")

    def recent_samples(self, seconds: float) -> list[dict[str, Any]]:
        """One dict per scrape of the last `seconds`, JSON-able, oldest first: gauges, and totals over restarts."""
        return self._report.recent(seconds)

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, JSON-able."""
        return {
            "version": _STATE_VERSION,
            "continuity": self._continuity.state(),
            "models": [model.state() for model in self._models.values()],
            "peak": self._report.peak,
            "dropped": {reason: slot.value for reason, slot in self._drops.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a saved state; before the first page. An empty state is none, a broken one is left alone."""
        if not state:
            return
        try:
            if state["version"] != _STATE_VERSION:
                raise ValueError(f"version {state['version']}, expected {_STATE_VERSION}")
            peak = None if state["peak"] is None else float(state["peak"])
            dropped = {reason: float(state["dropped"][reason]) for reason in self._drops}
            self._continuity.restore(state["continuity"])
            for entry in state["models"]:
                self._model(str(entry["name"])).restore(entry)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("indicators_state_unusable", error=f"{type(error).__name__}: {error}")
            for name in list(self._models):
                self._drop(name)
            self._continuity = Continuity(self._bounds, self._admit, series_limit=self._series_limit)
            return
        for reason, slot in self._drops.items():
            slot.set(dropped[reason])
        self._admitted = {name for name in self._models if name}
        self._quiet = True
        self._report.peak = peak
        self._report.started = self._continuity.epoch is not None
        self._bind()
        values = self._continuity.values
        for model in self._models.values():
            model.gains(values)
            model.count(0.0, 0.0)
        self._show_totals(values)

    def _leave_out_own(self, mark: Mark, step: Step) -> None:
        """Take back what a row brought, if that was all our own."""
        own, continuity = self._own, self._continuity
        assert own is not None, "there is a mark only where there is work of our own"
        self._own = None
        if step.first or step.restarted or self._quiet:
            return
        gains = continuity.gained(mark)
        explained = explains(own, gains)
        if explained:
            continuity.take_back(mark, step)
            self._own_progress += sum([gains.get(name, 0.0) for name in _PROGRESS])
        elif explained is None and own.pages > 1:
            self._own = replace(own, pages=own.pages - 1)

    def _admit(self, model: str, present: set[str]) -> bool:
        """Whether a model may have series of its own; one that the running engine has never shown may have to leave."""
        if model in self._admitted:
            return True
        if len(self._admitted) >= self._model_limit:
            kept = present | self._continuity.models_remembered
            gone = next((name for name in sorted(self._admitted) if name not in kept), None)
            if gone is None:
                return False
            self._drop(gone)
        self._admitted.add(model)
        return True

    def _drop(self, name: str) -> None:
        """Take everything of a model away."""
        self._admitted.discard(name)
        self._report.clear()
        self._continuity.drop_model(name)
        self._gauges.drop_model(name)
        if (model := self._models.pop(name, None)) is not None:
            model.remove()
        for total in [total for total in self._histograms if total[1] == name]:
            self._block.remove(self._histograms.pop(total).slot)
        for total in [total for total in self._counters if total[1] == name]:
            self._block.remove(self._counters.pop(total)[1])

    def _bind(self) -> None:
        """Another layout: find the accumulators of everything that is shown."""
        continuity, block = self._continuity, self._block
        routes = continuity.routes
        for total, base in continuity.base.items():
            view = self._histograms.get(total)
            if view is None:
                slot = block.histogram(_HISTOGRAMS[total[0]], self._bounds[total[0]], total[1], SOURCE)
                view = self._histograms[total] = HistogramView(slot)
            view.bind(base, [route for route in routes.histograms if route.total == total])
        for total, index in routes.counters.items():
            name, model = total
            self._model(model)
            if name in _COUNTERS:
                family, more = _COUNTERS[name]
                self._counters[total] = index, block.counter(family, model, SOURCE, *more)
        for model in routes.models:
            known = self._model(model)
            known.observe_error_ratio()
            known.observe_speed()
        for known in self._models.values():
            known.bind(routes.counters)
        self._gauges.bind(routes)
        for reason, count in routes.dropped.items():
            if (more_dropped := count - self._dropped.get(reason, 0)) > 0:
                self._drops[reason].inc(more_dropped)
                log.warning("sli_series_dropped", reason=reason, series=more_dropped)
        self._dropped = routes.dropped

    def _model(self, name: str) -> ModelView:
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = ModelView(name, self._block, self._settings)
        return model

    def _show_totals(self, values: list[float]) -> None:
        for index, slot in self._counters.values():
            if values[index] != slot.value:
                slot.set(values[index])
        for view in self._histograms.values():
            view.refresh(values)

    def _observe(self, interval: Interval, now: float, elapsed: float, *, serving: bool) -> None:
        """Make the observations of an interval; `elapsed` is 0 where it is not known how long its work took."""
        if not serving and not interval.served:
            self._observe_down()
        else:
            ratios = error_ratios(interval, self._models, self._continuity.routes.models)
            for name, ratio in ratios.items():
                self._models[name].observe_error_ratio(ratio)
        if elapsed <= 0:
            return
        tokens = 0.0
        for name, gain in interval.gains.items():
            # A series that was away brings the output of several intervals: no speed can be told.
            if gain.output_tokens > 0 and (v.OUTPUT_TOKENS, name) not in self._continuity.returned:
                self._models[name].observe_speed(gain.output_tokens / elapsed)
                tokens += gain.output_tokens
        if tokens > 0:
            self._report.add_speed(now, tokens / elapsed)

    def _observe_down(self) -> None:
        """An interval in which the engine served nobody is all error, for every model; for none that is known, too."""
        self._down += 1.0
        known = [model for model in self._models.values() if model.name and model.error_ratio is not None]
        for model in known or [self._model("")]:
            model.observe_error_ratio(1.0)

    def _count_progress(self) -> float | None:
        """Tokens and steps of all models; None when the page has neither."""
        routes, values = self._continuity.routes, self._continuity.values
        if not any(canonical in _PROGRESS for canonical, _ in routes.sources):
            return None
        counted = sum([values[index] for (name, _), index in routes.counters.items() if name in _PROGRESS])
        return counted + self._own_progress

    def _vector(self) -> list[float]:
        """What the sliding window keeps: see `summary.SCALARS`."""
        success = failed = other = 0.0
        for model in self._models.values():
            success += model.requests(o.SUCCESS)
            failed += model.requests(o.REJECTED, o.ENGINE_ERROR)
            other += model.requests(o.CLIENT_ERROR, o.ABORTED)
        values = self._continuity.values
        tokens = {v.INPUT_TOKENS: 0.0, v.OUTPUT_TOKENS: 0.0}
        for (name, _), (index, _) in self._counters.items():
            if name in tokens:
                tokens[name] += values[index]
        ended = success + failed + other
        vector = [success, failed, ended, tokens[v.INPUT_TOKENS], tokens[v.OUTPUT_TOKENS], self._down]
        for canonical in (v.TTFT, v.DURATION):
            vectors = [view.vector for total, view in self._histograms.items() if total[0] == canonical]
            whole = vectors[0] if vectors else [0.0] * (len(self._bounds[canonical]) + 2)
            for more in vectors[1:]:
                whole = list(map(add, whole, more))
            vector += whole
        return vector

    def _conclude(self, now: float, *, up: bool) -> None:
        gauges = self._progress.running, self._progress.waiting, self._gauges.overall(v.KV_USAGE)
        self._report.conclude(now, self._vector(), *gauges, up=up)
