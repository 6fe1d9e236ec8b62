"""Shows how the rules go, in the daemon's own metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from exporter.alerting import metrics
from exporter.alerting.alerts import Alerting
from exporter.alerting.group import Evaluated, LiveGroup
from exporter.exposition.block import Block, Slot
from exporter.exposition.model import Family


class Meters:
    """The series of all groups; event loop only."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._slots: dict[str, dict[str, Slot]] = {}
        self._alerting: list[Alerting] = []
        self._alerts = {state: block.gauge(metrics.ALERTS, state) for state in ("pending", "firing")}
        self._success = block.gauge(metrics.RELOAD_SUCCESS)
        self._loaded = block.gauge(metrics.RELOAD_TIME)

    def loaded(self, now: float) -> None:
        """The rule files were read."""
        self._success.set(1)
        self._loaded.set(now)

    def not_loaded(self) -> None:
        """The rule files have mistakes, and the groups stay as they were."""
        self._success.set(0)

    def groups(self, groups: Iterable[LiveGroup]) -> None:
        """These are the groups from now on; the series of others go."""
        groups = tuple(groups)
        self._alerting = [
            rule.work for group in groups for rule in group.rules if isinstance(rule.work, Alerting)
        ]
        by_key = {group.key: group for group in groups}
        for key in self._slots.keys() - by_key.keys():
            for slot in self._slots.pop(key).values():
                self._block.remove(slot)
        for key, group in by_key.items():
            slots = self._slots.get(key)
            if slots is None:
                slots = self._slots[key] = {
                    family.name: self._slot(family, key) for family in metrics.BY_GROUP
                }
            slots[metrics.RULES.name].set(len(group.rules))
            slots[metrics.INTERVAL.name].set(group.interval_ms / 1000)

    def evaluated(self, group: LiveGroup, missed: int, evaluated: Evaluated) -> None:
        """A group was evaluated, after so many times that it was not."""
        slots = self._slots[group.key]
        slots[metrics.LAST_EVALUATION.name].set(evaluated.at / 1000)
        slots[metrics.LAST_DURATION.name].set(evaluated.seconds)
        slots[metrics.EVALUATIONS.name].inc(len(group.rules))
        if missed:
            slots[metrics.MISSED.name].inc(missed)
        if evaluated.failures:
            slots[metrics.FAILURES.name].inc(evaluated.failures)

    def alerts(self) -> None:
        """Count the active alerts."""
        states: Counter[str] = Counter(
            [alert.state for work in self._alerting for alert in work.alerts.values()]
        )
        for state, slot in self._alerts.items():
            slot.set(states[state])

    def _slot(self, family: Family, key: str) -> Slot:
        if family.type == "counter":
            slot = self._block.counter(family, key)
            slot.set(0)
            return slot
        return self._block.gauge(family, key)
