"""What the holder of an API key may do, as far as admission looks at it."""

from __future__ import annotations

from typing import Protocol

from exporter.gateway.model import Exchange, Priority


class Limits(Protocol):
    """Whatever has a name and limits, such as an API key."""

    @property
    def name(self) -> str: ...
    @property
    def requests_per_minute(self) -> int | None:
        """None: the gateway's own limit; 0: none."""

    @property
    def tokens_per_minute(self) -> int | None:
        """The same for tokens, prompt and reply together."""

    @property
    def priority(self) -> Priority:
        """The best that its requests can have."""

    @property
    def models(self) -> frozenset[str] | None:
        """The only models that it may use; None for all."""


def settled_priority(exchange: Exchange, limits: Limits | None) -> Priority:
    """The lowest of what a request has, what its client asked for, and what its key allows: nobody raises themselves."""
    priority = exchange.priority
    if exchange.asked_priority is not None and exchange.asked_priority > priority:
        priority = exchange.asked_priority
    if limits is not None and limits.priority > priority:
        priority = limits.priority
    return priority
