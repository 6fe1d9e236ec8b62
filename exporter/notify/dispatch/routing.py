"""The tree of routes as the dispatcher asks it: by number, and only once for each label set."""

from __future__ import annotations

from collections.abc import Iterable

from exporter.notify.config.model import Endpoint, NotifyConfig, Route
from exporter.notify.dispatch.keys import group_labels
from exporter.notify.dispatch.known import Group, Known, Place
from exporter.notify.model import Alert
from exporter.storage.model import Labels

FORWARDED = "alertmanager"
"""The kind of endpoint that gets alerts, not notifications: an Alertmanager groups and mutes by itself."""


class Routing:
    """Routes, and the endpoints of their receivers."""

    def __init__(self, config: NotifyConfig) -> None:
        self._config = config
        self._routes = tuple(config.route.walk())
        self._number = {id(route): number for number, route in enumerate(self._routes)}
        self._endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self._forwarded: set[str] = set()
        for endpoint in config.endpoints:
            if endpoint.kind == FORWARDED:
                self._forwarded.add(endpoint.receiver)
            else:
                others = self._endpoints.get(endpoint.receiver, ())
                self._endpoints[endpoint.receiver] = (*others, endpoint)

    def places(self, labels: Labels) -> tuple[Place, ...]:
        """The groups that an alert belongs to."""
        routes = self._config.route.matching(labels)
        return tuple(Place(self._number[id(route)], group_labels(labels, route.group_by)) for route in routes)

    def route(self, place: Place) -> Route:
        """The route under which a group stands."""
        return self._routes[place.route]

    def receivers(self, known: Known) -> tuple[str, ...]:
        """The receivers of an alert that has its places, in the order of the routes."""
        return tuple(self._routes[place.route].receiver for place in known.places or ())

    def endpoints(self, receiver: str) -> tuple[Endpoint, ...]:
        """Those that get notifications."""
        return self._endpoints.get(receiver, ())

    def endpoint(self, receiver: str, integration: str) -> Endpoint | None:
        """The one of this name, unless it is gone."""
        return next((one for one in self.endpoints(receiver) if one.integration == integration), None)

    def log_keys(self, group: Group) -> list[tuple[str, str, str]]:
        """Under which the notification log has a group, for each of its endpoints."""
        endpoints = self.endpoints(group.route.receiver)
        return [(group.key, endpoint.receiver, endpoint.integration) for endpoint in endpoints]

    def forwarded(self, alerts: Iterable[Known]) -> dict[str, list[Alert]]:
        """Which of some alerts go as they are to which receivers."""
        found: dict[str, list[Alert]] = {}
        if self._forwarded:
            for known in alerts:
                for receiver in dict.fromkeys(self.receivers(known)):
                    if receiver in self._forwarded:
                        found.setdefault(receiver, []).append(known.alert)
        return found
