"""What the rules tell, as alerts for others: the same labels, times and links as Prometheus would send.

Source: `sendAlerts` in `cmd/prometheus/main.go`, `notifier/` and `util/strutil/strconv.go` of
https://github.com/prometheus/prometheus
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Protocol
from urllib.parse import quote_plus

import structlog

from exporter.alerting.holding import RULE_GONE
from exporter.alerting.remembered import Remembered
from exporter.alerting.state import Alert as RuleAlert
from exporter.alerting.transition import Transition
from exporter.notify.model import Alert
from exporter.storage.model import Labels

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 60.0
"""How often the texts of firing alerts are brought up to date; `rules.alert.resend-delay` in Prometheus."""

ENDED = "ended"
"""The annotation that says why an alert ended, where its condition did not end it."""

NOTHING: Mapping[str, str] = MappingProxyType({})
"""What comes to most alerts' annotations."""

Enrich = Callable[[Labels], Mapping[str, str]]
"""Further annotations for an alert with these labels; asked again until there are some."""


class Rules(Protocol):
    """The rules at work: `Evaluator`."""

    def subscribe(self, callback: Callable[[Sequence[Transition]], None]) -> None:
        """Call this with all alerts that changed their state at an evaluation."""

    def firing(self) -> Iterable[tuple[RuleAlert, str]]:
        """Every alert that fires now, with its rule's expression."""

    def hold(self, alerts: Iterable[Remembered]) -> list[Remembered]:
        """Alerts that fired when the daemon went down; gives those that no rule can have made."""


@dataclass(slots=True)
class _Told:
    """An alert as others know it, the labels that its rule gave it, and the rule's annotations and what came to them.

    `own` None: it is of the daemon before, and its rule has not told anything of it yet.
    """

    alert: Alert
    own: Labels | None
    said: Labels
    more: Mapping[str, str]


class Intake:
    """Turns transitions into alerts, and hands them on in batches; event loop only.

    `put` gets alerts that are new, changed, without data, or over. `external_labels` are added where an alert has none of
    that name; `external_url` is where people find the rules' graphs.
    """

    def __init__(
        self,
        rules: Rules,
        put: Callable[[Sequence[Alert]], None],
        *,
        external_labels: Mapping[str, str] | None = None,
        external_url: str = "",
        enrich: Enrich = lambda labels: {},
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._put = put
        self._external = tuple(
            sorted((name, value) for name, value in (external_labels or {}).items() if value)
        )
        self._url = external_url.rstrip("/")
        self._enrich = enrich
        self._clock = clock
        self._told: dict[Labels, _Told] = {}
        rules.subscribe(self.take)

    def remember(self, alerts: Iterable[Alert]) -> None:
        """Alerts that others knew when the daemon went down. Call it when rules are loaded, before they are evaluated.

        Those that fired are held until their rules say more; where a rule is gone, they are over. Pushed ones, which end
        by themselves, are none of ours.
        """
        now = self._clock()
        held: list[Remembered] = []
        for alert in alerts:
            if alert.until is None and alert.ends_at is None:
                external = tuple([pair for pair in alert.labels if pair in self._external])
                starts_at = min(alert.starts_at, now)
                held.append(
                    Remembered(alert.labels, alert.annotations, starts_at, alert.no_data_since, external)
                )
                self._told[alert.labels] = _Told(alert, None, alert.annotations, NOTHING)
        orphans = self._rules.hold(held)
        ends = [self._told.pop(one.labels).alert for one in orphans]
        if held:
            log.info("alerts_remembered", alerts=len(held), without_rule=len(ends))
        if ends:
            self._put([replace(_over(alert, RULE_GONE), ends_at=now, updated_at=now) for alert in ends])

    def take(self, transitions: Sequence[Transition]) -> None:
        """What an evaluation changed."""
        alerts = [alert for one in transitions if (alert := self._alert(one)) is not None]
        if alerts:
            self._put(alerts)

    def refresh(self) -> None:
        """Bring texts up to date: values in annotations change from evaluation to evaluation, and nobody else tells."""
        now = self._clock()
        changed: list[Alert] = []
        for one, query in self._rules.firing():
            own, said = one.labels, one.annotations
            labels = self._labelled(own)
            told = self._told.get(labels)
            if told is None:
                fired = one.active_at if one.fired_at is None else one.fired_at
                changed.append(self._fires(labels, own, said, fired / 1000, query, now))
            elif told.alert.no_data_since is None and told.own == own and self._revised(told, said):
                told.alert = replace(told.alert, annotations=_annotated(said, told.more), updated_at=now)
                changed.append(told.alert)
        if changed:
            self._put(changed)

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            self.refresh()

    # --- inside

    def _alert(self, one: Transition) -> Alert | None:
        """What others are told of a transition; None: nothing."""
        own = one.alert.labels
        labels = self._labelled(own)
        if one.after == "firing":
            return self._fires(labels, own, one.alert.annotations, _start(one), one.query, one.at)
        if one.before not in ("firing", "held"):
            return None
        told = self._told.get(labels)
        if told is not None and told.own not in (None, own):
            return None  # another rule's, of the same labels once the external ones are added, and it still fires
        alert = told.alert if told is not None else self._unknown(labels, one)
        if one.after == "held":
            alert = replace(alert, no_data_since=one.no_data_since, updated_at=one.at)
            self._told[labels] = _Told(
                alert, own, one.alert.annotations, NOTHING if told is None else told.more
            )
            return alert
        self._told.pop(labels, None)
        ends_at = max(one.at, alert.starts_at)
        ended = _over(alert, one.reason)
        return replace(ended, ends_at=ends_at, no_data_since=one.no_data_since, updated_at=one.at)

    def _fires(
        self, labels: Labels, own: Labels, said: Labels, starts_at: float, query: str, now: float
    ) -> Alert:
        """A firing alert; it is kept for later."""
        told = self._told.get(labels)
        more = (told.more if told is not None else NOTHING) or self._enrich(own) or NOTHING
        alert = Alert(
            labels, _annotated(said, more), starts_at, updated_at=now, generator_url=_link(self._url, query)
        )
        self._told[labels] = _Told(alert, own, said, more)
        return alert

    def _unknown(self, labels: Labels, one: Transition) -> Alert:
        return Alert(
            labels,
            _annotated(one.alert.annotations, NOTHING),
            _start(one),
            generator_url=_link(self._url, one.query),
        )

    def _revised(self, told: _Told, said: Labels) -> bool:
        """Whether the rule, or whoever adds to it, says something else now; that is noted."""
        if not told.more and told.own is not None:
            told.more = self._enrich(told.own) or NOTHING
        elif told.said == said:
            return False
        changed = told.said != said or bool(told.more)
        told.said = said
        return changed

    def _labelled(self, own: Labels) -> Labels:
        """An alert's labels with the external ones, where it has none of that name."""
        if not self._external:
            return own
        names = {name for name, _ in own}
        return tuple(sorted((*own, *[pair for pair in self._external if pair[0] not in names])))


@lru_cache(512)
def _link(url: str, query: str) -> str:
    """To the graph of an expression, as a table; one text for all alerts of a rule."""
    return f"{url}/graph?g0.expr={quote_plus(query)}&g0.tab=1"


def _start(one: Transition) -> float:
    """When an alert fired; never after the evaluation that says so."""
    return one.at if one.starts_at is None else min(one.at, one.starts_at)


def _over(alert: Alert, reason: str) -> Alert:
    """The alert, with an annotation that says why it ended where that is not of itself."""
    if not reason:
        return alert
    said = [pair for pair in alert.annotations if pair[0] != ENDED]
    return replace(alert, annotations=tuple(sorted((*said, (ENDED, reason)))))


def _annotated(said: Labels, more: Mapping[str, str]) -> Labels:
    """A rule's annotations, and others where it has none of that name; those that say nothing are left out.

    What the rule said, where that is all: it is kept for as long anyway.
    """
    names = {name for name, _ in said}
    others = [pair for pair in more.items() if pair[0] not in names]
    annotations = tuple(sorted([pair for pair in (*said, *others) if pair[1]]))
    return said if annotations == said else annotations
