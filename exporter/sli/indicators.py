"""The service level indicators of one engine: rows in, `vllm_slo_` families and `vllm_` summary gauges out.

Everything belongs to the event loop; a row costs its changed columns plus a fixed part per model.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import isfinite
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
from exporter.sli.continuity import SERIES_LIMIT, Continuity
from exporter.sli.summary import SCALARS, Summary, windowed
from exporter.sli.views import HistogramView, ObservedHistogram
from exporter.sli.window import SlidingSamples, SlidingWindow

log = structlog.get_logger(__name__)

SOURCE = "engine"
"""The label `source` of everything that is read from vLLM's own page."""

RECENT_SECONDS = 900.0
RECENT_LIMIT = 1800
"""How far back the samples for incidents reach, and how many there are at most."""

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
_GAUGES: dict[str, Family] = {
    v.RUNNING: f.REQUESTS_RUNNING,
    v.WAITING: f.REQUESTS_WAITING,
    v.KV_USAGE: f.KV_CACHE_USAGE,
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


class _Model:
    """One model's outcomes and observations; the numbers are indexes into the accumulators."""

    __slots__ = (
        "aborted",
        "client",
        "counted",
        "errored",
        "errors",
        "finished",
        "http",
        "http_success",
        "name",
        "outcomes",
        "output",
        "rejected",
        "seen",
        "speed",
    )  # fmt: skip

    def __init__(self, name: str, outcomes: dict[str, Slot]) -> None:
        self.name = name
        self.outcomes = outcomes
        self.counted = {o.REJECTED: 0.0, o.ENGINE_ERROR: 0.0}
        self.seen = _NOTHING
        self.errors: ObservedHistogram | None = None
        self.speed: ObservedHistogram | None = None
        self.finished = self.http_success = self.aborted = self.errored = 0
        self.rejected = self.client = self.http = self.output = 0

    def bind(self, counters: dict[tuple[str, str], int]) -> None:
        """Another layout: look the accumulators up again; 0 is one that stays at zero."""

        def place(name: str) -> int:
            return counters.get((name, self.name), 0)

        self.finished, self.http_success = place(v.FINISHED), place(v.HTTP_SUCCESS)
        self.aborted, self.errored, self.rejected = place(v.ABORTED), place(v.ERRORED), place(v.REJECTIONS)
        self.client, self.http = place(v.HTTP_CLIENT_ERROR), place(v.HTTP_SERVER_ERROR)
        self.output = place(v.OUTPUT_TOKENS)

    def gains(self, values: list[float]) -> list[float]:
        """Successes, finished errors, rejections, 5xx, output tokens, 4xx and aborted ones since the last call."""
        now = [
            values[self.finished] + values[self.http_success],
            values[self.errored],
            values[self.rejected],
            values[self.http],
            values[self.output],
            values[self.client],
            values[self.aborted],
        ]
        if now == self.seen:
            return _NOTHING
        before, self.seen = self.seen, now
        return [a - b for a, b in zip(now, before, strict=True)]


_NOTHING = [0.0] * 7


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
        self._bounds = {
            v.TTFT: settings.time_to_first_token_buckets,
            v.ITL: settings.inter_token_latency_buckets,
            v.DURATION: settings.request_duration_buckets,
            v.QUEUE: settings.queue_duration_buckets,
        }
        self._series_limit = series_limit
        self._continuity = Continuity(self._bounds, self._admit, series_limit=series_limit)
        self._pairing = o.FailurePairing()
        self._admitted: set[str] = set()
        self._models: dict[str, _Model] = {}
        self._histograms: dict[tuple[str, str], HistogramView] = {}
        self._counters: list[tuple[int, Slot]] = []
        self._gauges: dict[tuple[str, str], Slot] = {}
        self._sources: set[tuple[str, str]] = set()
        self._dropped: dict[str, int] = {}
        self._drops = {reason: block.counter(f.DROPPED, reason) for reason in ("model_limit", "series_limit")}
        for slot in self._drops.values():
            slot.set(0)
        self._summary_slots = {name: block.gauge(family) for name, family in f.SUMMARY.items()}
        self._window = SlidingWindow(settings.window)
        self._speeds = SlidingSamples(settings.window)
        self._recent: deque[tuple[float, bool, tuple[float | None, ...]]] = deque(
            maxlen=min(RECENT_LIMIT, int(RECENT_SECONDS / scrape_interval) + 2)
        )
        self._summary: dict[str, float | None] = {}
        self._progress = Progress()
        self._kv_usage: float | None = None
        self._peak: float | None = None
        self._down = 0.0
        self._last: float | None = None
        self._quiet = False
        self._started = False

    def apply(self, row: Row, *, now: float, epoch: str, serving: bool = True) -> None:
        """A good page landed. `epoch` is the engine's incarnation: a new one means that its counters began at 0 again.

        `serving` false: the engine shows a page and serves nobody (it hangs). An interval without a success is then
        one of errors only.
        """
        step = self._continuity.advance(row, epoch)
        quiet = step.first or self._quiet
        if step.restarted:
            self._pairing.forget()
        if step.compiled:
            self._bind()
        values = self._continuity.values
        elapsed = now - self._last if self._last is not None and not quiet else 0.0
        self._last, self._quiet, self._started = now, False, True
        self._settle(now, elapsed, quiet=quiet, restarted=step.restarted, serving=serving)
        if step.changed:
            for index, slot in self._counters:
                if values[index] != slot.value:
                    slot.set(values[index])
            for view in self._histograms.values():
                view.refresh(values)
        self._show_gauges(row.values)
        if step.changed or self._progress.counter is None:
            counter = self._count_progress()
        else:
            counter = self._progress.counter
        self._progress = Progress(self._total_gauge(v.RUNNING), self._total_gauge(v.WAITING), counter)
        if self._progress.running is not None or self._progress.waiting is not None:
            busy = (self._progress.running or 0.0) + (self._progress.waiting or 0.0)
            self._peak = max(self._peak or 0.0, busy)
        if quiet:
            self._window.restart(now, self._vector())
        self._conclude(now, up=True)

    def missed(self, *, now: float, down: bool) -> None:
        """No page this interval: gauges go away. `down`: the engine should serve and does not, which is an error."""
        for slot in self._gauges.values():
            slot.set(None)
        if self._sources:
            self._block.clear(f.SOURCE)
            self._sources = set()
        self._progress = Progress()
        self._kv_usage = None
        if down:
            self._observe_down()
        self._conclude(now, up=False)

    def progress(self) -> Progress:
        """The engine's work as the last page has it; nothing known after a missed one."""
        return self._progress

    def summary(self) -> Summary:
        """The summary over the sliding window, as the gauges show it."""
        return Summary(**self._summary)

    def output_tokens_total(self) -> float | None:
        """Output tokens of all models over engine restarts; None before any page."""
        return self._summary.get("total_output_tokens")

    def recent_samples(self, seconds: float) -> list[dict[str, Any]]:
        """One dict per scrape of the last `seconds`, JSON-able, oldest first: gauges, and totals over restarts."""
        if not self._recent:
            return []
        since = self._recent[-1][0] - seconds
        return [
            {"time": time, "up": up, **dict(zip(_RECENT, values, strict=True))}
            for time, up, values in self._recent
            if time >= since
        ]

    def state(self) -> dict[str, Any]:
        """All that `restore` needs, JSON-able."""
        return {
            "version": _STATE_VERSION,
            "continuity": self._continuity.state(),
            "models": [
                {
                    "name": model.name,
                    "counted": model.counted,
                    "error_ratio": model.errors.state() if model.errors else None,
                    "output_tokens_per_second": model.speed.state() if model.speed else None,
                }
                for model in self._models.values()
            ],
            "peak": self._peak,
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
            dropped = {str(reason): float(count) for reason, count in state["dropped"].items()}
            models = [
                (
                    str(entry["name"]),
                    {outcome: float(entry["counted"][outcome]) for outcome in (o.REJECTED, o.ENGINE_ERROR)},
                    entry["error_ratio"],
                    entry["output_tokens_per_second"],
                )
                for entry in state["models"]
            ]
            self._continuity.restore(state["continuity"])
            for name, counted, errors, speed in models:
                model = self._model(name)
                model.counted = counted
                if errors is not None:
                    self._error_ratio(model).restore(errors)
                if speed is not None:
                    self._speed(model).restore(speed)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("indicators_state_unusable", error=f"{type(error).__name__}: {error}")
            for name in list(self._models):
                self._drop(name)
            self._continuity = Continuity(self._bounds, self._admit, series_limit=self._series_limit)
            return
        self._peak = peak
        for reason, slot in self._drops.items():
            slot.set(dropped.get(reason, 0.0))
        self._admitted = {name for name, *_ in models if name}
        self._quiet = self._started = self._continuity.epoch is not None
        self._bind()
        values = self._continuity.values
        for known in self._models.values():
            known.gains(values)
            self._show_outcomes(known)
        for index, slot in self._counters:
            slot.set(values[index])
        for view in self._histograms.values():
            view.refresh(values)

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
        self._window.clear()
        self._continuity.drop_model(name)
        self._models.pop(name, None)
        for key in [key for key in self._histograms if key[1] == name]:
            del self._histograms[key]
        for key in [key for key in self._gauges if key[1] == name]:
            self._block.remove(self._gauges.pop(key))
        labels = (name, SOURCE)
        for canonical, family in _HISTOGRAMS.items():
            self._block.remove(self._block.histogram(family, self._bounds[canonical], *labels))
        for family, more in _COUNTERS.values():
            self._block.remove(self._block.counter(family, *labels, *more))
        for outcome in o.OUTCOMES:
            self._block.remove(self._block.counter(f.REQUESTS, *labels, outcome))
        for family, bounds in (
            (f.ERROR_RATIO, self._settings.error_ratio_buckets),
            (f.OUTPUT_TOKENS_PER_SECOND, self._settings.output_tokens_per_second_buckets),
        ):
            self._block.remove(self._block.histogram(family, bounds, *labels))

    def _bind(self) -> None:
        """Another layout: find the accumulators of everything that is shown."""
        continuity, block = self._continuity, self._block
        routes = continuity.routes
        for total, base in continuity.base.items():
            view = self._histograms.get(total)
            if view is None:
                bounds = self._bounds[total[0]]
                slot = block.histogram(_HISTOGRAMS[total[0]], bounds, total[1], SOURCE)
                view = self._histograms[total] = HistogramView(slot)
            view.bind(base, [route for route in routes.histograms if route.total == total])
        self._counters = []
        names = set(routes.models)
        for (name, model), index in routes.counters.items():
            names.add(model)
            if name in _COUNTERS:
                family, more = _COUNTERS[name]
                self._counters.append((index, block.counter(family, model, SOURCE, *more)))
        for name in sorted(names):
            known = self._model(name)
            if name in routes.models:
                self._error_ratio(known)
                self._speed(known)
        for known in self._models.values():
            known.bind(routes.counters)
        for key, gauge in self._gauges.items():
            if key not in routes.gauges:
                gauge.set(None)
        for name, model_name in routes.gauges:
            if (name, model_name) not in self._gauges:
                self._gauges[name, model_name] = block.gauge(_GAUGES[name], model_name, SOURCE)
        for reason, count in routes.dropped.items():
            if (more_dropped := count - self._dropped.get(reason, 0)) > 0:
                self._drops[reason].inc(more_dropped)
                log.warning("sli_series_dropped", reason=reason, series=more_dropped)
        self._dropped = routes.dropped

    def _model(self, name: str) -> _Model:
        model = self._models.get(name)
        if model is None:
            slots = {
                outcome: self._block.counter(f.REQUESTS, name, SOURCE, outcome) for outcome in o.OUTCOMES
            }
            for slot in slots.values():
                slot.set(0)
            model = self._models[name] = _Model(name, slots)
        return model

    def _error_ratio(self, model: _Model) -> ObservedHistogram:
        if model.errors is None:
            bounds = self._settings.error_ratio_buckets
            model.errors = ObservedHistogram(self._block.histogram(f.ERROR_RATIO, bounds, model.name, SOURCE))
        return model.errors

    def _speed(self, model: _Model) -> ObservedHistogram:
        if model.speed is None:
            bounds = self._settings.output_tokens_per_second_buckets
            slot = self._block.histogram(f.OUTPUT_TOKENS_PER_SECOND, bounds, model.name, SOURCE)
            model.speed = ObservedHistogram(slot)
        return model.speed

    def _settle(self, now: float, elapsed: float, *, quiet: bool, restarted: bool, serving: bool) -> None:
        """Give every request of the interval its outcome, and make the interval's observations.

        A 5xx of an unknown model counts under the empty name; the error ratios share it by the traffic of the models.
        Output per second is not observed where the time that the tokens took is unknown: after a restart, and when a
        series comes back that was away.
        """
        values = self._continuity.values
        gains = {name: model.gains(values) for name, model in self._models.items()}
        moved = any(gain is not _NOTHING for gain in gains.values())
        own = sum(gain[1] + gain[2] for gain in gains.values()) if moved else 0.0
        http = sum(gain[3] for gain in gains.values()) if moved else 0.0
        own_counted, http_counted = self._pairing.settle(own, http)
        failures: dict[str, float] = {}
        if moved:
            own_share = own_counted / own if own > 0 else 0.0
            http_share = http_counted / http if http > 0 else 0.0
            for name, (_, errored, rejected, server_errors, *_) in gains.items():
                model = self._models[name]
                rejections = rejected * own_share
                errors = errored * own_share + server_errors * http_share
                if rejections > 0:
                    model.counted[o.REJECTED] += rejections
                if errors > 0:
                    model.counted[o.ENGINE_ERROR] += errors
                failures[name] = rejections + errors
                self._show_outcomes(model)
        if quiet:
            self._pairing.forget()  # what is past has no partner to come
            return
        if moved:
            self._observe_errors({name: gain[0] for name, gain in gains.items()}, failures)
            if elapsed > 0 and not restarted:
                self._observe_speed(now, elapsed, gains)
        if not serving and not any(gain[0] > 0 for gain in gains.values()):
            self._observe_down()

    def _show_outcomes(self, model: _Model) -> None:
        values, slots = self._continuity.values, model.outcomes
        for outcome, value in (
            (o.SUCCESS, values[model.finished] + values[model.http_success]),
            (o.CLIENT_ERROR, values[model.client]),
            (o.REJECTED, float(int(model.counted[o.REJECTED] + 1e-6))),
            (o.ENGINE_ERROR, float(int(model.counted[o.ENGINE_ERROR] + 1e-6))),
            (o.ABORTED, values[model.aborted]),
        ):
            if slots[outcome].value != value:
                slots[outcome].set(value)

    def _observe_errors(self, successes: dict[str, float], failures: dict[str, float]) -> None:
        unknown = 0.0
        if len(self._continuity.routes.models) != 1:
            unknown = failures.pop("", 0.0)
        traffic = {name: successes[name] + failed for name, failed in failures.items()}
        all_traffic = sum(traffic.values())
        for name, served in traffic.items():
            errors = self._models[name].errors
            if errors is None:
                continue
            share = unknown * served / all_traffic if all_traffic > 0 else unknown
            if served + share > 0:
                errors.observe((failures[name] + share) / (served + share))

    def _observe_speed(self, now: float, elapsed: float, gains: dict[str, list[float]]) -> None:
        returned = self._continuity.returned
        known = 0.0
        for name, gain in gains.items():
            if gain[4] > 0 and (v.OUTPUT_TOKENS, name) not in returned:
                self._speed(self._models[name]).observe(gain[4] / elapsed)
                known += gain[4]
        if known > 0:
            self._speeds.add(now, known / elapsed)

    def _observe_down(self) -> None:
        """An interval in which the engine served nobody: all of it is error, for every model that is known."""
        self._down += 1.0
        if not any(model.errors for model in self._models.values()):
            self._error_ratio(self._model(""))
        for model in self._models.values():
            if model.errors is not None:
                model.errors.observe(1.0)

    def _show_gauges(self, values: list[float]) -> None:
        routes = self._continuity.routes
        self._kv_usage = None
        for (name, model), columns in routes.gauges.items():
            numbers = [values[column] for column in columns]
            if not isfinite(sum(numbers)):
                numbers = [number for number in numbers if isfinite(number)]
            slot = self._gauges[name, model]
            if not numbers:
                slot.set(None)
                continue
            if name == v.KV_USAGE:
                number = max(numbers)
                if self._kv_usage is None or number > self._kv_usage:
                    self._kv_usage = number
            else:
                number = sum(numbers)
            if number != slot.value:
                slot.set(number)
        if routes.sources != self._sources:
            self._block.clear(f.SOURCE)
            for canonical, source in sorted(routes.sources):
                self._block.info(f.SOURCE, canonical, source)
            self._sources = routes.sources

    def _total_gauge(self, name: str) -> float | None:
        """A gauge of all models together; None when no model shows it."""
        values = [
            slot.value for key, slot in self._gauges.items() if key[0] == name and slot.value is not None
        ]
        return sum(values) if values else None

    def _count_progress(self) -> float | None:
        """Tokens and steps of all models; None when the page has neither."""
        routes, values = self._continuity.routes, self._continuity.values
        if not any(canonical in _PROGRESS for canonical, _ in routes.sources):
            return None
        return sum(values[index] for (name, _), index in routes.counters.items() if name in _PROGRESS)

    def _vector(self) -> list[float]:
        """What the sliding window keeps: see `summary.SCALARS`."""
        values = self._continuity.values
        counters = self._continuity.routes.counters
        success = failed = other = 0.0
        for model in self._models.values():
            success += model.outcomes[o.SUCCESS].value or 0.0
            failed += (model.outcomes[o.REJECTED].value or 0.0) + (
                model.outcomes[o.ENGINE_ERROR].value or 0.0
            )
            other += (model.outcomes[o.CLIENT_ERROR].value or 0.0) + (model.outcomes[o.ABORTED].value or 0.0)
        tokens = {v.INPUT_TOKENS: 0.0, v.OUTPUT_TOKENS: 0.0}
        for (name, _), index in counters.items():
            if name in tokens:
                tokens[name] += values[index]
        vector = [
            success,
            failed,
            success + failed + other,
            tokens[v.INPUT_TOKENS],
            tokens[v.OUTPUT_TOKENS],
            self._down,
        ]
        for canonical in (v.TTFT, v.DURATION):
            whole: list[float] = [0.0] * (len(self._bounds[canonical]) + 2)
            for key, view in self._histograms.items():
                if key[0] == canonical:
                    whole = list(map(add, whole, view.vector))
            vector += whole
        return vector

    def _conclude(self, now: float, *, up: bool) -> None:
        """Bring the summary and its gauges up to date, and keep a sample for incidents."""
        vector = self._vector()
        success, failed, ended, tokens_in, tokens_out, _ = vector[: len(SCALARS)]
        elapsed, gains = self._window.advance(now, vector)
        self._speeds.expire(now)
        totals: dict[str, float | None] = {}
        if self._started:
            totals = {
                "total_requests": ended,
                "successful_requests": success,
                "failed_requests": failed,
                "total_input_tokens": tokens_in,
                "total_output_tokens": tokens_out,
            }
        fields = {
            "num_waiting_requests": self._progress.waiting,
            "num_running_requests": self._progress.running,
            "peak_concurrent_requests": self._peak,
            "decoding_throughput_mean": self._speeds.mean(),
            "decoding_throughput_p50": self._speeds.median(),
            **totals,
            **windowed(elapsed, gains, self._bounds[v.TTFT], self._bounds[v.DURATION]),
        }
        self._summary = fields
        for name, slot in self._summary_slots.items():
            value = fields.get(name)
            if value != slot.value:
                slot.set(value)
        size = len(SCALARS) + len(self._bounds[v.TTFT])
        self._recent.append(
            (
                now,
                up,
                (
                    self._progress.running,
                    self._progress.waiting,
                    self._kv_usage,
                    success,
                    failed,
                    tokens_in,
                    tokens_out,
                    *vector[size : size + 2],
                    *vector[-2:],
                ),
            )
        )
        while now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()


_RECENT = (
    "requests_running",
    "requests_waiting",
    "kv_cache_usage_ratio",
    "requests_succeeded",
    "requests_failed",
    "input_tokens",
    "output_tokens",
    "time_to_first_token_count",
    "time_to_first_token_sum",
    "request_duration_count",
    "request_duration_sum",
)
