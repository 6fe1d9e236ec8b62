"""The highest reading since the previous scrape, and never over less than a set time."""

from __future__ import annotations

from collections import deque


class Peak:
    """A sliding maximum.

    Many may scrape, and each wants the peak since its own last look: the window of at least `window` seconds gives
    everyone who comes that often what they missed, however often the others come.
    """

    __slots__ = ("_recent", "_since_scrape", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._recent: deque[tuple[float, float]] = deque()  # values fall from left to right
        self._since_scrape: float | None = None

    def add(self, now: float, value: float) -> None:
        """Take one reading; `now` never goes back."""
        recent = self._recent
        while recent and recent[-1][1] <= value:
            recent.pop()
        recent.append((now, value))
        self._trim(now)
        if self._since_scrape is None or value > self._since_scrape:
            self._since_scrape = value

    def scrape(self, now: float, *, counts: bool = True) -> float | None:
        """The peak, for one scrape; the time since the scrape starts again. None before the first reading.

        A look that does not count leaves that time running.
        """
        self._trim(now)
        if not self._recent:
            return None
        peak = self._recent[0][1]
        if self._since_scrape is not None and self._since_scrape > peak:
            peak = self._since_scrape
        if counts:
            self._since_scrape = None
        return peak

    def _trim(self, now: float) -> None:
        recent = self._recent
        while len(recent) > 1 and recent[0][0] < now - self._window:
            recent.popleft()


class MaskPeak:
    """The same for a bit mask: every bit that was set at any reading."""

    __slots__ = ("_recent", "_since_scrape", "_window")

    def __init__(self, window: float) -> None:
        self._window = window
        self._recent: deque[tuple[float, int]] = deque()
        self._since_scrape = 0

    def add(self, now: float, mask: int) -> None:
        """Take one reading; equal masks in a row are kept once, with the latest time."""
        recent = self._recent
        if recent and recent[-1][1] == mask:
            recent[-1] = (now, mask)
        else:
            recent.append((now, mask))
        self._trim(now)
        self._since_scrape |= mask

    def scrape(self, now: float, *, counts: bool = True) -> int:
        """Every bit of the time since the previous scrape, or of the window if that is longer."""
        self._trim(now)
        union = self._since_scrape
        for _, mask in self._recent:
            union |= mask
        if counts:
            self._since_scrape = 0
        return union

    def _trim(self, now: float) -> None:
        recent = self._recent
        while len(recent) > 1 and recent[0][0] < now - self._window:
            recent.popleft()
