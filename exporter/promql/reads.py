"""What a query reads, and how far back: what the store must keep for it."""

from __future__ import annotations

from typing import NamedTuple

from exporter.storage.model import Matcher


class Reads(NamedTuple):
    """One selector of a query."""

    matchers: tuple[Matcher, ...]
    back_ms: int
    """How long before the evaluation time the oldest sample lies that it may look at: its range or the lookback, its
    offset, and those of the subqueries around it. For a fixed time, counted from that time."""
    fixed: bool
    """Whether an `@` with a literal time, on it or on a subquery around it, ties it to that time instead."""
