"""What delivery tells of itself: plain values, for the API and the console. No secret is in them."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.notify.delivery.pace import State
from exporter.notify.model import Notification, Outcome


@dataclass(frozen=True, slots=True)
class Queued:
    """A notification that its endpoint has not taken yet; `next_attempt` in unix seconds, of the clock as it is now."""

    notification: Notification
    attempts: int
    last: Outcome | None
    in_flight: bool
    next_attempt: float
    gives_up_at: float


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One endpoint; times in unix seconds, None where there was nothing yet."""

    receiver: str
    integration: str
    kind: str
    circuit: State
    failures: int
    """In a row."""
    next_trial: float | None
    """While its circuit is open."""
    last_attempt: float | None
    last_outcome: Outcome | None
    last_delivered: float | None
    queue: tuple[Queued, ...]
