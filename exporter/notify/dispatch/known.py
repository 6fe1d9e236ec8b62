"""What is known of each alert and each group; only the modules of this folder write here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from exporter.notify.config.model import Route
from exporter.notify.model import Alert
from exporter.notify.silences import UNSEEN, Remembered
from exporter.storage.model import Labels


class Place(NamedTuple):
    """Where a group stands: the route by its number in the tree, and the labels of the group."""

    route: int
    labels: Labels


@dataclass(slots=True, eq=False)
class Known:
    """One alert; `fires` is decided when news of it come in or its time is up, not by looking at the clock.

    `places`: None until it is routed. `deadline`: of a pushed alert, when it ends by the timer. `held`: by how many groups.
    """

    alert: Alert
    fires: bool
    places: tuple[Place, ...] | None = None
    deadline: float | None = None
    held: int = 0
    seen: Remembered = UNSEEN

    @property
    def values(self) -> dict[str, str]:
        """Its labels by name; made when they are asked for, since for all alerts of a storm they would take megabytes."""
        return dict(self.alert.labels)


@dataclass(slots=True, eq=False)
class Group:
    """Alerts that are told of together; `due` by the timer, when they are looked at next. `begun`: they once were."""

    place: Place
    route: Route
    key: str
    due: float = 0.0
    begun: bool = False
    alerts: dict[int, Known] = field(default_factory=dict)
    places: tuple[Place] = field(init=False)
    """Its place alone, for the alerts that are in no other group."""

    def __post_init__(self) -> None:
        self.places = (self.place,)

    def fires(self, fingerprint: int) -> bool:
        """Whether an alert is in it and fires."""
        known = self.alerts.get(fingerprint)
        return known is not None and known.fires


@dataclass(slots=True, eq=False)
class Arrival:
    """Alerts that came in together: so many are taken in, and these groups are told when all are."""

    alerts: Sequence[Alert]
    taken: int = 0
    groups: dict[Group, None] = field(default_factory=dict)
