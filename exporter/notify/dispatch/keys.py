"""Which group an alert belongs to, and the key by which the group is known.

Source: `getGroupLabels` and `GroupKey` in `dispatch/dispatch.go` of https://github.com/prometheus/alertmanager, and
`LabelSet.String` in `model/` of https://github.com/prometheus/common
"""

from __future__ import annotations

from exporter.alerting.template.literals import quote_go
from exporter.storage.model import Labels


def group_labels(labels: Labels, group_by: frozenset[str] | None) -> Labels:
    """The labels of an alert by which it is grouped; None: all of them."""
    if group_by is None:
        return labels
    return tuple(pair for pair in labels if pair[0] in group_by)


def group_key(route_key: str, labels: Labels) -> str:
    """The key of the group with these labels under a route, as in a webhook's `groupKey`."""
    shown = ", ".join(f"{name}={quote_go(value)}" for name, value in labels)
    return f"{route_key}:{{{shown}}}"


def labels_in(key: str, labels: Labels) -> Labels:
    """The labels of a group, read back from its key and the labels of an alert that was in it."""
    rest = key.removesuffix("}")
    found: list[tuple[str, str]] = []
    for name, value in reversed(labels):
        before = rest.removesuffix(f"{name}={quote_go(value)}")
        if before != rest and before.endswith(("{", ", ")):
            found.append((name, value))
            rest = before.removesuffix(", ")
    return tuple(reversed(found))
