"""Label sets as PromQL's operators change them: names dropped, groups formed, sets shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence

from exporter.storage.model import NAME, Labels


def get(labels: Labels, name: str) -> str:
    """The label's value; an absent label is the empty string."""
    for key, value in labels:
        if key == name:
            return value
    return ""


def drop_name(labels: Labels) -> Labels:
    """The set without its metric name, as most functions and all arithmetic leave it."""
    return tuple(pair for pair in labels if pair[0] != NAME)


def keep(labels: Labels, names: Collection[str]) -> Labels:
    """Only the named labels."""
    return tuple(pair for pair in labels if pair[0] in names)


def drop(labels: Labels, names: Collection[str]) -> Labels:
    """All but the named labels."""
    return tuple(pair for pair in labels if pair[0] not in names)


def merged(labels: Labels, changes: Iterable[tuple[str, str]]) -> Labels:
    """The set with some labels set anew; an empty value takes the label away."""
    mapping = dict(labels)
    mapping.update(changes)
    return tuple(sorted((key, value) for key, value in mapping.items() if value))


def show(labels: Labels) -> str:
    """A label set as Prometheus writes it in its errors: `{a="b", c="d"}`, the name among the labels."""
    return "{" + ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in labels) + "}"


def mapped(labels: Sequence[Labels], change: Callable[[Labels], Labels]) -> tuple[Labels, ...]:
    """The change made to each set."""
    return tuple(map(change, labels))
