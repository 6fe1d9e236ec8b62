"""How many of the engine's lines are passed on: a token bucket, and an account of what was dropped."""

from __future__ import annotations


class LineBudget:
    """`rate` lines a second, saved up for a second at most. Time is passed in, monotonic seconds."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._tokens = rate
        self._at: float | None = None

    def refill(self, now: float) -> None:
        if self._at is not None:
            self._tokens = min(self._rate, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now

    def take(self) -> bool:
        """Spend one line; False when none is left."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class DropReport:
    """Sums up dropped lines, and says when it is time to tell: at most once in `interval` seconds."""

    def __init__(self, interval: float = 1.0) -> None:
        self._interval = interval
        self._pending = 0
        self._told_at = float("-inf")

    def add(self, count: int) -> None:
        self._pending += count

    @property
    def pending(self) -> int:
        return self._pending

    def due(self, now: float, *, force: bool = False) -> int:
        """How many to tell of now; 0 for nothing to tell, or not yet."""
        if not self._pending or (not force and now - self._told_at < self._interval):
            return 0
        count, self._pending, self._told_at = self._pending, 0, now
        return count
