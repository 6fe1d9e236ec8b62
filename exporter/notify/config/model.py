"""The loaded configuration: the routing tree with everything inherited, and who is to be told by which way.

Source: `config/` and `dispatch/route.go` of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from exporter.notify.config.receivers import Options
from exporter.notify.intervals import TimeInterval
from exporter.notify.matchers import fits
from exporter.storage.model import Labels, Matcher


@dataclass(frozen=True, slots=True)
class Route:
    """One node of the routing tree. Durations in seconds.

    `group_by` None: by all labels. `goes_on`: later siblings are asked, too. `mute_times` and `active_times` name time
    intervals, and are the only options that children do not inherit. `key` as Alertmanager's `Route.Key()`, the first
    part of its group keys; two routes may have the same.
    """

    receiver: str
    matchers: tuple[Matcher, ...] = ()
    group_by: frozenset[str] | None = frozenset()
    group_wait: float = 30.0
    group_interval: float = 300.0
    repeat_interval: float = 14400.0
    goes_on: bool = False
    mute_times: tuple[str, ...] = ()
    active_times: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()
    key: str = "{}"

    def matching(self, labels: Labels) -> list[Route]:
        """The routes that an alert takes: depth first, the deepest that match; empty where this one does not."""
        return self._matching(dict(labels))

    def _matching(self, values: Mapping[str, str]) -> list[Route]:
        if not fits(self.matchers, values):
            return []
        found: list[Route] = []
        for child in self.routes:
            below = child._matching(values)
            found += below
            if below and not child.goes_on:
                break
        return found or [self]

    def walk(self) -> Iterator[Route]:
        """This route and all below it, each before its children."""
        yield self
        for child in self.routes:
            yield from child.walk()


@dataclass(frozen=True, slots=True)
class Inhibition:
    """Alerts that fit `target` are mute while one that fits `source` fires and has the same values of `equal`.

    A label that both lack is equal, too.
    """

    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to tell a receiver: the `integration` is its kind and number within the receiver, as in `webhook[0]`.

    `options` is the model of its kind in `receivers.py`.
    """

    receiver: str
    integration: str
    kind: str
    send_resolved: bool
    options: Options

    @property
    def name(self) -> str:
        """As messages name it: `team/webhook[0]`."""
        return f"{self.receiver}/{self.integration}"


@dataclass(frozen=True, slots=True)
class NotifyConfig:
    """A whole configuration. `resolve_timeout` in seconds: when an alert that was pushed without an end is over.

    `receivers` are all names, in the order of the file, also those that tell nobody. `shown` is the file as it may be
    shown: every secret is `<secret>`.
    """

    route: Route
    endpoints: tuple[Endpoint, ...] = ()
    receivers: tuple[str, ...] = ()
    inhibitions: tuple[Inhibition, ...] = ()
    intervals: Mapping[str, TimeInterval] = field(default_factory=dict)
    resolve_timeout: float = 300.0
    shown: str = ""
