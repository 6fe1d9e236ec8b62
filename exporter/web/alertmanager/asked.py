"""What a request asks for: filters by state, matchers and receivers.

Sources: `alertFilter` and `CheckSilenceMatchesFilterLabels` in api/v2/api.go of
https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.notify.matchers import MatcherError, check, matches, parse_matcher
from exporter.notify.silences import State
from exporter.storage.model import Matcher
from exporter.web.alertmanager.model import ApiRefused

if TYPE_CHECKING:
    from multidict import MultiMapping

    from exporter.notify.dispatch.views import AlertView, GroupView
    from exporter.notify.outbox.model import Silence

_TRUE = frozenset({"true", "1", "yes", "ok", "y", "on", "selected", "checked", "t", "enabled"})
"""What go-openapi takes for true (`ConvertBool` in https://github.com/go-openapi/swag); anything else is false."""
_STATES: tuple[State, ...] = ("active", "pending", "expired")


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts are to be shown; `receiver` is what the name of one of their receivers must fit."""

    matchers: tuple[Matcher, ...]
    active: bool
    silenced: bool
    inhibited: bool
    muted: bool
    receiver: tuple[Matcher, ...]
    unlabelled: bool
    """Whether receivers without labels are asked for: ours have none."""

    @classmethod
    def read(cls, query: MultiMapping[str]) -> AlertFilter:
        """From a request's query; ApiRefused for what cannot be read."""
        return cls(
            read_matchers(query, "filter"),
            flag(query, "active"),
            flag(query, "silenced"),
            flag(query, "inhibited"),
            flag(query, "muted"),
            _receiver(query.get("receiver", "")),
            fit_unlabelled(read_matchers(query, "receiver_matchers")),
        )

    def wants(self, view: AlertView, now: float) -> bool:
        """Whether an alert is to be shown, whoever its receivers are; one that has ended never is.

        `unprocessed` is no part of it, as in Alertmanager: at the time of the question every alert is judged.
        """
        return (
            view.alert.status(now) == "firing"
            and (self.active or view.state != "active")
            and (self.silenced or not view.silenced_by)
            and (self.inhibited or not view.inhibited_by)
            and matches(self.matchers, view.alert.labels)
        )

    def among(self, group: GroupView, now: float) -> list[AlertView]:
        """The alerts of a group that are to be shown in it."""
        if not self.names((group.receiver,)) or (group.muted_by and not self.muted):
            return []
        return [view for view in group.alerts if self.wants(view, now)]

    def names(self, receivers: Sequence[str]) -> bool:
        """Whether one of these receivers was asked for."""
        if not self.unlabelled:
            return False
        return not self.receiver or any(matches(self.receiver, (("receiver", name),)) for name in receivers)


@dataclass(frozen=True, slots=True)
class SilenceFilter:
    """Which silences are to be shown."""

    matchers: tuple[Matcher, ...]
    states: tuple[State, ...]

    @classmethod
    def read(cls, query: MultiMapping[str]) -> SilenceFilter:
        """From a request's query; ApiRefused for what cannot be read."""
        return cls(read_matchers(query, "filter"), tuple(state for state in _STATES if flag(query, state)))

    def wants(self, silence: Silence) -> bool:
        """Whether every matcher that was asked for is one of its own."""
        return set(self.matchers) <= set(silence.matchers)


def flag(query: MultiMapping[str], name: str) -> bool:
    """A truth value; without it, true."""
    return query.get(name, "true").lower() in _TRUE


def read_matchers(query: MultiMapping[str], name: str) -> tuple[Matcher, ...]:
    """Every matcher of a parameter that may be repeated; ApiRefused for what is none."""
    found: list[Matcher] = []
    for text in query.getall(name, []):
        try:
            found.append(parse_matcher(text))
        except MatcherError as error:
            raise ApiRefused(400, f"failed to parse {name} param: {error}") from error
    return tuple(found)


def fit_unlabelled(matchers: Sequence[Matcher]) -> bool:
    """Whether matchers of receivers' labels fit ours, which have none."""
    return matches(matchers, ())


def _receiver(pattern: str) -> tuple[Matcher, ...]:
    if not pattern:  # amtool always sends it
        return ()
    try:
        return (check(Matcher("receiver", "=~", pattern)),)
    except MatcherError as error:
        raise ApiRefused(400, f"failed to parse receiver param: {error}") from error
