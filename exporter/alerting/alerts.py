"""An alerting rule: an expression, the states of its alerts, and the series that show them.

`ALERTS` is 1 for each active alert, with its state as a label; `ALERTS_FOR_STATE` is the second since which it is
active, and what a restart goes on from.
Source: `AlertingRule` in https://github.com/prometheus/prometheus/blob/main/rules/alerting.go
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from exporter import promql
from exporter.alerting.conditions import Conditions, Result, evaluate
from exporter.alerting.holding import Held
from exporter.alerting.recording import Pair, pairs, relabelled
from exporter.alerting.rulefile import Rule
from exporter.alerting.state import Alert, Found, Move, State, Terms, step
from exporter.alerting.template import QuerySample, Template
from exporter.promql.model import Budget
from exporter.promql.query import Query
from exporter.storage.layout import Layout
from exporter.storage.model import NAME, Labels
from exporter.storage.stream import Stream

ALERTS, ALERTS_FOR_STATE = "ALERTS", "ALERTS_FOR_STATE"
ALERT_NAME, ALERT_STATE = "alertname", "alertstate"
QUERY_CACHE = 64
"""Expressions of a rule's templates that are kept compiled; labels can make any number of them."""

CHARACTERS_PER_SAMPLE = 8
"""So many characters of an expanded text cost the rule's budget as much as one sample: alerts keep their texts."""


class Ran(NamedTuple):
    """What one evaluation did. With an `error` the rule failed; its alerts may have moved all the same."""

    samples: int
    moves: Sequence[Move]
    error: str | None = None


class Alerting:
    """One alerting rule; rule thread only, but `alerts`, replaced whole, may be read anywhere.

    `restored` false: after a restart; until what was saved is looked at, no series are written over it.
    """

    def __init__(self, rule: Rule, query: Query, stream: Stream, *, restored: bool) -> None:
        self.rule = rule
        self.stream = stream
        self.restored = restored
        self.alerts: Mapping[Labels, Alert] = {}
        self.held: Mapping[Labels, Held] = {}
        """Those that fired when their data went away."""
        self.terms = Terms(round(rule.for_seconds * 1000), round(rule.keep_firing_for * 1000), 0)
        self._query = query
        self._labels = _templates(rule.labels)
        self._fixed = pairs({**_plain(rule.labels), NAME: "", ALERT_NAME: rule.name})
        """Labels that all its alerts have."""
        said: dict[str, Pair | Template] = {**pairs(_plain(rule.annotations)), **_templates(rule.annotations)}
        self._annotations = [(name, said[name]) for name in sorted(said)]
        self.shown = Shown(rule)
        self._template_name = f"__alert_{rule.name}"
        self._queries: dict[str, Query] = {}
        self._row = _row(self.shown, (), _Key([], []))

    def take_over(self, old: Alerting) -> None:
        """Go on from the rule of the same name and labels, whose stream this one has."""
        self.alerts, self.held, self.restored, self._row = old.alerts, old.held, old.restored, old._row

    def evaluate(self, now: int, at: int, limit: int, conditions: Conditions) -> Ran:
        """Evaluate the expression at `at`, the states at `now`, and write the series at `at`. QueryError."""
        budget = conditions.budget()
        result = evaluate(self._query, at, budget, conditions)
        found = self._found(result, now, budget, conditions)
        moves: Sequence[Move] = ()
        if found or self.alerts:
            after = step(self.alerts, found, self.terms._replace(limit=limit), now)
            self.alerts, moves = after.alerts, after.moves
            if after.error:
                return Ran(0, moves, after.error)
        return Ran(self._write(at) if self.restored else 0, moves)

    def _found(self, result: Result, now: int, budget: Budget, conditions: Conditions) -> list[Found]:
        if result.present is None:
            places: Sequence[int] = range(len(result.labels))
        else:
            places = result.present.nonzero()[0].tolist()
        return [
            self._expanded(result.labels[place], float(result.values[place]), now, budget, conditions)
            for place in places
        ]

    def _expanded(
        self, labels: Labels, value: float, now: int, budget: Budget, conditions: Conditions
    ) -> Found:
        own = dict(labels)

        def query(expression: str) -> list[QuerySample]:
            return self._ask(expression, now, budget, conditions)

        def expand(template: Template) -> str:
            budget.spend(1)  # looks at the time, too
            try:
                text = template.expand(
                    labels=own,
                    external_labels=conditions.external_labels,
                    external_url=conditions.external_url,
                    value=value,
                    query=query,
                    now=now / 1000,
                    name=self._template_name,
                )
            except Exception as error:  # noqa: BLE001 - an alert fires, whatever its text runs into
                text = f"<error expanding template: internal error: {error!r}>"
            budget.spend(len(text) // CHARACTERS_PER_SAMPLE)
            return text

        fixed = self._fixed
        if self._labels:
            fixed = {**pairs({name: expand(one) for name, one in self._labels.items()}), **fixed}
        annotations = tuple(
            [(name, expand(one)) if isinstance(one, Template) else one for name, one in self._annotations]
        )
        return Found(relabelled(labels, fixed), annotations, value)

    def _ask(self, expression: str, now: int, budget: Budget, conditions: Conditions) -> list[QuerySample]:
        """What a template's `query` gives; whatever it raises becomes the template's error."""
        compiled = self._queries.get(expression)
        if compiled is None:
            if len(self._queries) >= QUERY_CACHE:
                self._queries.clear()
            compiled = self._queries[expression] = promql.compile(expression)
        result = evaluate(compiled, now, budget, conditions)
        present = [True] * len(result.labels) if result.present is None else result.present.tolist()
        return [
            QuerySample(dict(labels), value)
            for labels, value, here in zip(result.labels, result.values.tolist(), present, strict=True)
            if here
        ]

    def _write(self, at: int) -> int:
        active = [alert for alert in self.alerts.values() if alert.state != "inactive"]
        key = _Key([alert.labels for alert in active], [alert.state for alert in active])
        if key != self._row.key:
            self._row = _row(self.shown, active, key)
        elif not active:
            return 0
        row = self._row
        values = [1.0] * row.shown
        values += [float(active[place].active_at // 1000) for place in row.places]
        self.stream.append(at, row.layout, values)
        return len(values)


class Shown:
    """The labels of the two series of each of a rule's alerts.

    The rule's own labels come first, as Prometheus has it: one that its template made empty shows as it is written.
    """

    def __init__(self, rule: Rule) -> None:
        self._written = pairs({name: text for name, text in rule.labels.items() if "{{" in text})
        self._since = pairs({NAME: ALERTS_FOR_STATE, ALERT_NAME: rule.name})
        self._states = {
            state: pairs({NAME: ALERTS, ALERT_NAME: rule.name, ALERT_STATE: state})
            for state in ("pending", "firing")
        }

    def state(self, alert: Alert) -> Labels:
        """Of its `ALERTS`."""
        return self._labels(alert, self._states[alert.state])

    def since(self, alert: Alert) -> Labels:
        """Of its `ALERTS_FOR_STATE`."""
        return self._labels(alert, self._since)

    def _labels(self, alert: Alert, fixed: Mapping[str, Pair]) -> Labels:
        if self._written:
            names = {name for name, _ in alert.labels}
            fixed = {**{name: pair for name, pair in self._written.items() if name not in names}, **fixed}
        return relabelled(alert.labels, fixed)


class _Key(NamedTuple):
    """Which alerts a row is of, by their labels, and their states."""

    labels: Sequence[Labels]
    states: Sequence[State]


class _Row(NamedTuple):
    """The columns of a rule's stream, for these alerts in these states."""

    key: _Key
    layout: Layout
    shown: int
    """How many of the columns are `ALERTS`; the others are `ALERTS_FOR_STATE`."""
    places: Sequence[int]
    """Which alert each of the others is of."""


def _row(shown: Shown, active: Sequence[Alert], key: _Key) -> _Row:
    # Two alerts may share a series where their labels differ by what the series' own labels replace.
    shows = list(dict.fromkeys(map(shown.state, active)))
    places: dict[Labels, int] = {}
    for place, alert in enumerate(active):
        places.setdefault(shown.since(alert), place)
    return _Row(key, Layout([*shows, *places]), len(shows), list(places.values()))


def _plain(texts: Mapping[str, str]) -> dict[str, str]:
    """Those that stay as they are."""
    return {name: text for name, text in texts.items() if "{{" not in text}


def _templates(texts: Mapping[str, str]) -> dict[str, Template]:
    """Those that are expanded for each alert, in the order of their names."""
    return {name: Template(text) for name, text in sorted(texts.items()) if "{{" in text}
