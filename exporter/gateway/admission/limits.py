"""What the holder of an API key may do, as far as admission looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from exporter.gateway.model import Exchange, Priority


class HasLimits(Protocol):
    """Whatever has a name and limits: `Limits`, or an API key."""

    @property
    def name(self) -> str: ...
    @property
    def requests_per_minute(self) -> int | None: ...
    @property
    def tokens_per_minute(self) -> int | None: ...
    @property
    def priority(self) -> Priority: ...
    @property
    def models(self) -> frozenset[str] | None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a named holder."""

    name: str
    requests_per_minute: int | None = None
    """None: the gateway's own limit; 0: none."""
    tokens_per_minute: int | None = None
    """The same for tokens, prompt and reply together."""
    priority: Priority = Priority.INTERACTIVE
    """The best that its requests can have."""
    models: frozenset[str] | None = None
    """The only models that it may use; None for all."""


def settled_priority(exchange: Exchange, limits: HasLimits | None) -> Priority:
    """The lowest of what a request has, what its client asked for, and what its key allows: nobody raises themselves."""
    priority = exchange.priority
    if exchange.asked_priority is not None and exchange.asked_priority > priority:
        priority = exchange.asked_priority
    if limits is not None and limits.priority > priority:
        priority = limits.priority
    return priority
