"""How long the store must keep what the rules read."""

from __future__ import annotations

from collections.abc import Iterable

from exporter.alerting.alerts import ALERTS_FOR_STATE
from exporter.alerting.assembly import STREAM_PREFIX
from exporter.alerting.group import LiveGroup
from exporter.storage.model import NAME, Matcher
from exporter.storage.retention import Retention

MARGIN_MS = 60_000
"""Beyond what a rule looks back: an evaluation may be late."""


def needed(groups: Iterable[LiveGroup], *, base_ms: int, recorded_ms: int, tolerance_ms: int) -> Retention:
    """What these groups read, for as long as they look back, and what their rules write, for `recorded_ms`.

    A selector that an `@` ties to a fixed time gets no more than the base: no length of time would be enough for it.
    """
    rules = [
        (selector.matchers, selector.back_ms + group.offset_ms + MARGIN_MS)
        for group in groups
        for rule in group.rules
        for selector in rule.query.reads
        if not selector.fixed
    ]
    rules.append(((Matcher(NAME, "=", ALERTS_FOR_STATE),), tolerance_ms + MARGIN_MS))
    return Retention(base_ms, rules, [(STREAM_PREFIX, recorded_ms)])
