"""The configuration of notifications, loaded: the tree of routes, endpoints, inhibitions, hours.

Source: `dispatch/route.go` and `config/config.go` of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from exporter.notify.matchers import fits
from exporter.storage.model import Labels, Matcher


class Interval(Protocol):
    """Some hours, by name in the file."""

    def contains(self, at: float) -> bool:
        """Whether a time, in unix seconds, is within."""


@dataclass(frozen=True, slots=True)
class Route:
    """One node of the tree, with everything that it inherits; waits in seconds."""

    receiver: str
    matchers: tuple[Matcher, ...]
    group_by: frozenset[str] | None
    """Names of labels; None: by all labels (`...`)."""
    group_wait: float
    group_interval: float
    repeat_interval: float
    goes_on: bool
    """`continue`: routes after this one are asked too."""
    mute_times: tuple[str, ...]
    active_times: tuple[str, ...]
    routes: tuple[Route, ...]
    key: str
    """As Alertmanager's `Route.Key()`; group keys begin with it."""

    def matching(self, labels: Labels) -> list[Route]:
        """The routes that an alert takes: depth first, from left to right; none where this one does not fit."""
        return self._matching(dict(labels))

    def _matching(self, values: Mapping[str, str]) -> list[Route]:
        if not fits(self.matchers, values):
            return []
        found: list[Route] = []
        for route in self.routes:
            below = route._matching(values)
            found += below
            if below and not route.goes_on:
                break
        return found or [self]


@dataclass(frozen=True, slots=True)
class Inhibition:
    """Alerts that fit `source` hold back those that fit `target` and agree with them in the labels `equal`."""

    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One entry of a receiver's `*_configs`; `integration` as in `webhook[0]`, `options` the model of its kind."""

    receiver: str
    integration: str
    kind: str
    send_resolved: bool
    options: Any


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """The whole file; `shown` is its text with every secret as `<secret>`."""

    route: Route
    endpoints: tuple[Endpoint, ...]
    receivers: tuple[str, ...]
    inhibitions: tuple[Inhibition, ...]
    intervals: Mapping[str, Interval]
    resolve_timeout: float
    shown: str
