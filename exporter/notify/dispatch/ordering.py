"""In which order alerts stand in a group, and groups in a list.

Source: `AlertSlice.Less` in `alert/alert.go` of https://github.com/prometheus/alertmanager, and `LabelSet.Before` in
`model/labelset.go` of https://github.com/prometheus/common
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from exporter.notify.model import Alert
from exporter.storage.model import Labels

_FIRST = ("job", "instance")
"""Whoever has these labels stands before those who lack them."""

Key = tuple[int | str, ...]
"""Flat, since in a storm there are many: what nested tuples would compare comes in the same order."""


def in_order(alerts: Iterable[Alert]) -> list[Alert]:
    """By `job`, `instance`, and then as label sets."""
    alerts = list(alerts)
    before = before_key(alert.labels for alert in alerts)

    def key(alert: Alert) -> Key:
        values = dict(alert.labels)
        firsts = [part for name in _FIRST for part in (name not in values, values.get(name, ""))]
        return (*firsts, *before(alert.labels))

    return sorted(alerts, key=key)


def before_key(sets: Iterable[Labels]) -> Callable[[Labels], Key]:
    """What to sort these label sets by: fewer labels first; of equally many, the first pair that differs decides.

    Where the names differ, the set that has the smaller name there comes last: the other one lacks it.
    """
    names = sorted({name for labels in sets for name, _ in labels}, reverse=True)
    place = {name: at for at, name in enumerate(names)}

    def key(labels: Labels) -> Key:
        return (len(labels), *[part for name, value in labels for part in (place[name], value)])

    return key
