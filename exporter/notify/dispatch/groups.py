"""The groups that there are, and when each is looked at.

Source: `groupAlert` and `aggrGroup` in `dispatch/dispatch.go` of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator

from exporter.notify.dispatch.keys import group_key
from exporter.notify.dispatch.known import Group, Known, Place
from exporter.notify.dispatch.routing import Routing


class Groups:
    """Groups by their place; all times are by the timer."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing
        self._groups: dict[Place, Group] = {}
        self._due: list[tuple[float, int, Group]] = []
        self._sequence = itertools.count()

    def __iter__(self) -> Iterator[Group]:
        return iter(self._groups.values())

    def __len__(self) -> int:
        return len(self._groups)

    def place(self, known: Known, now: float, timer: float) -> list[Group]:
        """Put an alert into all groups that it belongs to; those are made where they are missing."""
        fingerprint = known.alert.fingerprint
        if known.places is None:
            known.places = self._routing.places(known.alert.labels)
        found: list[Group] = []
        for place in known.places:
            group = self._groups.get(place)
            if group is None:
                group = self._groups[place] = self._made(place, known, now, timer)
            if fingerprint not in group.alerts:
                group.alerts[fingerprint] = known
                known.held += 1
            found.append(group)
        # Equal to what they were, and the same objects for all alerts of a group.
        known.places = found[0].places if len(found) == 1 else tuple([group.place for group in found])
        return found

    def schedule(self, group: Group, due: float) -> None:
        """Look at a group then, and not before."""
        group.due = due
        heapq.heappush(self._due, (due, next(self._sequence), group))

    def next_due(self) -> float:
        """When `due` has something to give."""
        return self._due[0][0] if self._due else math.inf

    def due(self, timer: float) -> Group | None:
        """A group whose time has come; whoever asks schedules it anew, or drops it."""
        while self._due and self._due[0][0] <= timer:
            due, _, group = heapq.heappop(self._due)
            if group.due == due and self._groups.get(group.place) is group:
                return group
        return None

    def drop(self, group: Group) -> None:
        """A group that is empty."""
        del self._groups[group.place]

    def _made(self, place: Place, known: Known, now: float, timer: float) -> Group:
        route = self._routing.route(place)
        group = Group(place, route, group_key(route.key, place.labels))
        # An alert that began longer ago than a group waits has waited enough.
        waited = known.alert.starts_at + route.group_wait < now
        self.schedule(group, timer if waited else timer + route.group_wait)
        return group
