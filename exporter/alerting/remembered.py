"""Alerts of the daemon before: people were told that they fire, so they are held until their rules say more.

What a rule goes on from after a restart, by its own series, is another matter; see `restore`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from exporter.alerting.alerts import ALERT_NAME, Alerting
from exporter.alerting.group import LiveGroup
from exporter.alerting.holding import GRACE_MS, Held
from exporter.alerting.rulefile import Rule
from exporter.alerting.state import Alert
from exporter.storage.model import Labels


class Remembered(NamedTuple):
    """An alert that fired when the daemon went down. Times: unix seconds.

    `external`: those of its labels that others may have added to what its rule gave it.
    """

    labels: Labels
    annotations: Labels
    starts_at: float
    no_data_since: float | None = None
    external: Labels = ()

    @property
    def name(self) -> str:
        """Of its rule."""
        return next((value for name, value in self.labels if name == ALERT_NAME), "")

    def own(self, rule: Rule) -> Labels:
        """The labels that it has by this rule: one that the rule sets is never an external one."""
        return tuple(
            [
                pair
                for pair in self.labels
                if pair not in self.external or pair[0] in (ALERT_NAME, *rule.labels)
            ]
        )


def remember(
    groups: Sequence[LiveGroup], alerts: Iterable[Remembered], now: int, *, timeout: int
) -> list[Remembered]:
    """Let each alert be held by the first rule that can have made it; gives those that none can.

    `now` in ms; `timeout`: how long one is held, in ms.
    """
    rules: dict[str, list[Alerting]] = {}
    for group in groups:
        for rule in group.rules:
            if isinstance(rule.work, Alerting):
                rules.setdefault(rule.rule.name, []).append(rule.work)
    orphans: list[Remembered] = []
    found: dict[Alerting, dict[Labels, Held]] = {}
    for one in alerts:
        makers = ((work, one.own(work.rule)) for work in rules.get(one.name, ()))
        maker = next(((work, own) for work, own in makers if _can_make(work.rule, dict(own))), None)
        if maker is None:
            orphans.append(one)
        else:
            work, own = maker
            found.setdefault(work, {})[own] = _held(one, own, now, timeout)
    for work, held in found.items():
        work.held = {**work.held, **held}
    return orphans


def _can_make(rule: Rule, labels: dict[str, str]) -> bool:
    return all(labels.get(name, "") == value for name, value in rule.labels.items() if "{{" not in value)


def _held(one: Remembered, own: Labels, now: int, timeout: int) -> Held:
    fired = round(one.starts_at * 1000)
    alert = Alert(own, one.annotations, math.nan, "firing", fired, fired)
    since = now if one.no_data_since is None else min(now, round(one.no_data_since * 1000))
    # The first scrapes and evaluations are awaited before it is given up, however long its data has been away.
    waited = min(now - since, timeout) - GRACE_MS
    return Held(alert, since, now, waited, told=one.no_data_since is not None)
