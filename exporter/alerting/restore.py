"""Going on after a restart: an alert that was active when the daemon went down is not active since just now.

Source: `Group.RestoreForState` in https://github.com/prometheus/prometheus/blob/main/rules/group.go. Times: int ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from exporter.alerting.alerts import ALERT_NAME, ALERTS_FOR_STATE, Alerting
from exporter.storage.model import NAME, Labels, Matcher, Storage


class Saved(NamedTuple):
    """The last sample of an alert's `ALERTS_FOR_STATE`: when it was written, and the second that it says."""

    at: int
    active_since: int


def restore(rule: Alerting, storage: Storage, now: int, *, tolerance: int, grace: int) -> int:
    """Take over since when the rule's alerts are active, where the store says so; gives the number of these alerts.

    `tolerance`: how old what was saved may be. `grace`: an alert that was pending waits at least for so long from now
    on; a rule whose `for` is shorter begins anew.
    """
    rule.restored = True
    if rule.terms.hold < grace or not rule.alerts:
        return 0
    saved = _saved(rule, storage, now, tolerance)
    restored = {
        labels: replace(alert, active_at=resumed(found, rule.terms.hold, now, grace=grace))
        for labels, alert in rule.alerts.items()
        if (found := saved.get(rule.shown.since(alert)))
    }
    rule.alerts = {**rule.alerts, **restored}
    return len(restored)


def resumed(saved: Saved, hold: int, now: int, *, grace: int) -> int:
    """Since when an alert counts as active; the time without a daemon counts neither for nor against it."""
    down_at = saved.at // 1000 * 1000
    active_at = saved.active_since * 1000
    left = hold - (down_at - active_at)
    if left <= 0:
        return active_at  # It was firing, and the next evaluation lets it fire again.
    if left < grace:
        return now + grace - hold
    return active_at + (now - down_at)


def _saved(rule: Alerting, storage: Storage, now: int, tolerance: int) -> Mapping[Labels, Saved]:
    wanted = {NAME: ALERTS_FOR_STATE, ALERT_NAME: rule.rule.name}
    fixed = {name: value for name, value in rule.rule.labels.items() if "{{" not in value}
    matchers = [Matcher(name, "=", value) for name, value in {**fixed, **wanted}.items()]
    selection = storage.select(matchers)
    last = selection.latest(np.array([now], np.int64), tolerance)
    times = np.broadcast_to(last.times, last.values.shape)
    return {
        labels: Saved(int(times[place, 0]), int(last.values[place, 0]))
        for place, labels in enumerate(selection.labels)
        if last.present[place, 0]
    }
