"""From the recorded series in the store to the figures of a report; blocking, for a thread.

The series are those of rules/slos.rules.yml and rules/report.rules.yml: recorded ones alone are kept for so long.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from exporter import promql
from exporter.notify.report.figures import HOUR_SECONDS, Figures, Hour, Objective, worst_hours
from exporter.promql.model import Budget, Vector
from exporter.storage.model import NAME, Matcher, Storage

if TYPE_CHECKING:
    from exporter.storage.model import F64

Key = tuple[tuple[str, str], ...]
"""The labels by which the series of an objective are told apart, sorted."""

ERRORS = "sum_over_time(slo:sli_error:events_rate5m[{seconds}s])"
TOTAL = "sum_over_time(slo:sli_total:events_rate5m[{seconds}s])"
RATIO = "avg_over_time(slo:sli_error:ratio_rate5m[{seconds}s])"
"""For objectives that know a ratio but no events."""
TARGET = "last_over_time(slo:objective:ratio[{seconds}s])"
BUDGET_LEFT = "last_over_time(slo:period_error_budget_remaining:ratio[{seconds}s])"
RESTARTS = "sum by (reason) (last_over_time(instance:vllm_engine_restarts:last[{seconds}s]))"
RESTARTS_BEFORE = (
    "sum by (reason) (last_over_time(instance:vllm_engine_restarts:last[30d] offset {seconds}s))"
)
REQUESTS = "sum by (outcome) (increase(model:vllm_requests:last[{seconds}s]))"
TOKENS = "sum(increase(model:vllm_output_tokens:last[{seconds}s]))"
ENERGY = "sum(increase(gpu:nvidia_energy_joules:last[{seconds}s]))"

LEFT_OUT = frozenset({NAME, "sloth_window"})
"""Labels that differ between the recorded series of one objective."""


def read(storage: Storage, start: float, end: float, budget: Budget) -> Figures:
    """The figures of the period from `start` to `end`, in unix seconds; QueryError when it costs more than the budget."""
    reader = _Reader(storage, start, end, budget)
    return Figures(
        start=start,
        end=end,
        since=reader.since(),
        objectives=tuple(reader.objectives()),
        restarts=reader.restarts(),
        requests=reader.requests(),
        output_tokens=reader.single(TOKENS),
        energy_joules=reader.single(ENERGY),
    )


class _Reader:
    def __init__(self, storage: Storage, start: float, end: float, budget: Budget) -> None:
        self._storage = storage
        self._start, self._end = round(start * 1000), round(end * 1000)
        self._budget = budget

    def since(self) -> float | None:
        """When the records of this period begin; None where there are none."""
        selection = self._storage.select((Matcher(NAME, "=", "slo:objective:ratio"),))
        edges = selection.edges(np.array([self._start], np.int64), np.array([self._end], np.int64))
        found = edges.first_time[edges.counts > 0]
        return float(found.min()) / 1000 if found.size else None

    def objectives(self) -> Iterator[Objective]:
        """Every objective, and of it every set of labels that had events; in the order of their names."""
        ratios = self._ratios()
        hours = self._hours()
        left = self._vector(BUDGET_LEFT)
        for key, target in sorted(self._vector(TARGET).items()):
            about = dict(key)
            own = about.get("sloth_id", "")
            members = sorted(
                other for other in ratios.keys() | left.keys() if dict(other).get("sloth_id") == own
            )
            for member in members or [key]:
                yield Objective(
                    service=about.get("sloth_service", ""),
                    name=about.get("sloth_slo", own),
                    labels={name: value for name, value in member if not name.startswith("sloth_")},
                    target=target,
                    error_ratio=ratios.get(member),
                    budget_left=left.get(member),
                    worst=worst_hours(hours.get(member, []), target),
                )

    def restarts(self) -> dict[str, int] | None:
        """By reason, without those that did not happen; None where they are not recorded.

        A difference and not `increase`: a reason's series begins with its first restart, and that one counts. A total
        that is smaller than before began anew.
        """
        before = self._vector(RESTARTS_BEFORE)
        after = self._vector(RESTARTS)
        if not after:
            return None
        grown = {
            dict(key).get("reason", ""): round(
                total - before.get(key, 0.0) if total >= before.get(key, 0.0) else total
            )
            for key, total in after.items()
        }
        return {reason: count for reason, count in sorted(grown.items()) if count}

    def requests(self) -> dict[str, int]:
        """By outcome."""
        return {
            dict(key).get("outcome", ""): round(count)
            for key, count in sorted(self._vector(REQUESTS).items())
        }

    def single(self, expression: str) -> float | None:
        """The only value of an expression; None where it has none."""
        return next(iter(self._vector(expression).values()), None)

    def _ratios(self) -> dict[Key, float]:
        """The share of bad events of each series that had events."""
        errors, total = self._vector(ERRORS), self._vector(TOTAL)
        found = {
            key: ratio for key, ratio in self._vector(RATIO).items() if key not in total and ratio == ratio
        }
        found |= {key: errors.get(key, 0.0) / events for key, events in total.items() if events > 0}
        return found

    def _hours(self) -> dict[Key, list[Hour]]:
        """The hours of each series, counted back from the end."""
        errors, total, ratios = self._matrix(ERRORS), self._matrix(TOTAL), self._matrix(RATIO)
        starts = self._hour_ends() / 1000 - HOUR_SECONDS
        found: dict[Key, list[Hour]] = {}
        for key, events in total.items():
            bad = errors.get(key, np.zeros(len(events)))
            found[key] = [
                Hour(float(start), float(some / all_), float(some))
                for start, some, all_ in zip(starts, bad, events, strict=True)
                if all_ > 0 and some == some
            ]
        for key, values in ratios.items():
            if key not in found:
                found[key] = [
                    Hour(float(start), float(ratio), float(ratio))
                    for start, ratio in zip(starts, values, strict=True)
                    if ratio == ratio
                ]
        return found

    def _hour_ends(self) -> F64:
        hours = (self._end - self._start) // (HOUR_SECONDS * 1000)
        return np.arange(1 - hours, 1, dtype=np.float64) * HOUR_SECONDS * 1000 + self._end

    def _vector(self, expression: str) -> dict[Key, float]:
        """The values at the end of the period, by label set."""
        seconds = (self._end - self._start) // 1000
        value = promql.compile(expression.format(seconds=seconds)).instant(
            self._storage, self._end, self._budget
        )
        assert isinstance(value, Vector)
        return {
            _key(dict(labels)): float(value.values[place, 0])
            for place, labels in enumerate(value.labels)
            if value.present is None or value.present[place, 0]
        }

    def _matrix(self, expression: str) -> dict[Key, F64]:
        """The values at the end of each hour, by label set; NaN where there is none."""
        ends = self._hour_ends()
        if not len(ends):
            return {}
        value = promql.compile(expression.format(seconds=HOUR_SECONDS)).range(
            self._storage, int(ends[0]), self._end, HOUR_SECONDS * 1000, self._budget
        )
        assert isinstance(value, Vector)
        values = value.values if value.present is None else np.where(value.present, value.values, np.nan)
        return {_key(dict(labels)): row for labels, row in zip(value.labels, values, strict=True)}


def _key(labels: Mapping[str, str]) -> Key:
    return tuple(sorted((name, value) for name, value in labels.items() if name not in LEFT_OUT))
