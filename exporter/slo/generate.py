"""From objectives to rule groups: what is recorded, and when the burning of an error budget is an alert.

Names and labels of the series are Sloth's, so its dashboards work. Two things are done otherwise, so that a window of
three days costs no more than one of five minutes, and nothing has to keep raw samples for as long:

- The queries are asked for five minutes only. What they find is recorded (`slo:sli_error:events_rate5m`,
  `slo:sli_total:events_rate5m`), and longer windows are sums of that: bad events among all events, each event with the
  same weight, over 30 days, too (where Sloth takes the mean of ratios).
- No events give no ratio; `0 / 0` would be NaN in every window after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from exporter.alerting.durations import format_duration
from exporter.slo.output import Rule, RuleGroup
from exporter.slo.spec import VERSION, WINDOW, Alert, Events, Objective, Raw, Spec
from exporter.slo.windows import (
    BURNS,
    PAGE_INTERVAL,
    PAGE_INTERVAL_SECONDS,
    PAGE_WINDOWS,
    PERIOD,
    PERIOD_DAYS,
    SHORTEST,
    TICKET_INTERVAL,
    TICKET_WINDOWS,
    Burn,
    Severity,
)

SHORTEST_SECONDS = 300
ERRORS = "slo:sli_error:events_rate5m"
TOTAL = "slo:sli_total:events_rate5m"


def generate(spec: Spec) -> list[RuleGroup]:
    """Two groups for each objective: what pages need, and, less often, what tickets and the budget need."""
    groups: list[RuleGroup] = []
    for objective in spec.objectives:
        series = _Series(spec.service, objective)
        fast = [*series.events(), *series.ratios(PAGE_WINDOWS), series.current_burn(), *series.alert("page")]
        slow = [*series.ratios(TICKET_WINDOWS), *series.budget(), *series.alert("ticket")]
        groups += [
            RuleGroup(f"slo-{series.id}", PAGE_INTERVAL, fast),
            RuleGroup(f"slo-{series.id}-budget", TICKET_INTERVAL, slow),
        ]
    return groups


class _Series:
    """The rules of one objective."""

    def __init__(self, service: str, objective: Objective) -> None:
        self.id = f"{service}-{objective.name}"
        self._objective = objective
        self._labels = {
            **objective.labels,
            "sloth_id": self.id,
            "sloth_service": service,
            "sloth_slo": objective.name,
        }
        self._selector = f'{{sloth_id="{self.id}"}}'
        self._target = objective.percent / 100
        self._budget = 1 - self._target

    def events(self) -> Iterator[Rule]:
        """Bad and all events, where the SLI tells them."""
        sli = self._objective.sli
        if isinstance(sli, Events):
            yield self._record(ERRORS, self._counted(sli.error_query))
            yield self._record(TOTAL, self._counted(sli.total_query))

    def ratios(self, windows: Iterable[str]) -> Iterator[Rule]:
        """The share of bad events in each window."""
        for window in windows:
            labels = {"sloth_window": window}
            yield self._record(f"slo:sli_error:ratio_rate{window}", self._ratio(window), labels)

    def current_burn(self) -> Rule:
        """How many times too fast the budget burns now."""
        expr = f"{self._ratio_series(SHORTEST)} / {_plain(self._budget)}"
        return self._record("slo:current_burn_rate:ratio", expr)

    def budget(self) -> Iterator[Rule]:
        """The objective as series, and what is left of the budget of 30 days."""
        yield self._record(
            "slo:period_burn_rate:ratio", f"{self._ratio_series(PERIOD)} / {_plain(self._budget)}"
        )
        remaining = f"1 - slo:period_burn_rate:ratio{self._selector}"
        yield self._record("slo:period_error_budget_remaining:ratio", remaining)
        yield self._record("slo:objective:ratio", f"vector({_plain(self._target)})")
        yield self._record("slo:error_budget:ratio", f"vector({_plain(self._budget)})")
        yield self._record("slo:time_period:days", f"vector({PERIOD_DAYS})")
        info = {
            "sloth_mode": "cli-gen-prom",
            "sloth_objective": _plain(self._objective.percent),
            "sloth_spec": VERSION,
            "sloth_version": "vllm-exporter",
        }
        yield self._record("sloth_slo_info", "vector(1)", info)

    def alert(self, severity: Severity) -> Iterator[Rule]:
        """The alert of a severity: either of its two pairs of windows."""
        alert: Alert = getattr(self._objective, severity)
        if alert.disabled:
            return
        pairs = [self._burning(burn) for burn in BURNS if burn.severity == severity]
        either = "\nor ignoring (sloth_window)\n".join(f"(\n{_indented(pair)}\n)" for pair in pairs)
        subject = "{{ $labels.sloth_service }} {{ $labels.sloth_slo }}"
        yield Rule(
            "alert",
            self._objective.alert_name,
            f"max without (sloth_window) (\n{_indented(either)}\n)",
            {**alert.labels, "sloth_severity": severity},
            {
                "title": f"({severity}) {subject} SLO error budget burn rate is too fast.",
                "summary": f"{subject} SLO error budget burn rate is over expected.",
                **alert.annotations,
            },
        )

    def _burning(self, burn: Burn) -> str:
        limit = f"({burn.factor} * {_plain(self._budget)})"
        conditions = [f"{self._ratio_series(window)} > {limit}" for window in (burn.short, burn.long)]
        if floor := self._objective.extension.min_events.get(burn.severity):
            # Each recorded rate stands for the time to the next one.
            events = f"sum_over_time({TOTAL}{self._selector}[{burn.long}])"
            conditions.append(f"{events} * {PAGE_INTERVAL_SECONDS} >= {floor}")
        return "\nand ignoring (sloth_window)\n".join(conditions)

    def _counted(self, query: str) -> str:
        """A query's result without an engine's warm-up, summed as wanted."""
        extension = self._objective.extension
        expr = WINDOW.sub(SHORTEST, query)
        if extension.warm_up_seconds:
            # The events of a window that begins after the warm-up are the first that count, also when the engine ended
            # meanwhile and the series with it.
            warm = extension.warm_up_seconds + SHORTEST_SECONDS
            ready = f"(time() - last_over_time(vllm_exporter_engine_ready_time_seconds[{format_duration(warm)}]) < {warm})"
            expr = f"(\n{_indented(expr)}\n)\nunless on (job, instance) {ready}"
        if extension.sum_by:
            expr = f"sum by ({', '.join(extension.sum_by)}) (\n{_indented(expr)}\n)"
        return expr

    def _ratio(self, window: str) -> str:
        sli = self._objective.sli
        if isinstance(sli, Raw):
            if window == SHORTEST:  # NaN is not 0 or more
                return f"(\n{_indented(WINDOW.sub(window, sli.error_ratio_query))}\n) >= 0"
            return f"avg_over_time({self._ratio_series(SHORTEST)}[{window}])"
        errors, total = f"{ERRORS}{self._selector}", f"{TOTAL}{self._selector}"
        if window != SHORTEST:
            errors, total = f"sum_over_time({errors}[{window}])", f"sum_over_time({total}[{window}])"
        return f"{errors}\n/ ({total} > 0)"

    def _ratio_series(self, window: str) -> str:
        return f"slo:sli_error:ratio_rate{window}{self._selector}"

    def _record(self, name: str, expr: str, labels: Mapping[str, str] | None = None) -> Rule:
        return Rule("record", name, expr, {**self._labels, **(labels or {})})


def _plain(number: Decimal) -> str:
    """Without an exponent and without zeros at the end."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line else line for line in text.splitlines())
