"""A joules counter that goes on when the driver's own starts again, or that is made from power where there is none."""

from __future__ import annotations

GAP_SECONDS = 5.0
"""Longest time between two power readings over which energy is integrated; beyond it nobody knows."""


class EnergyCounter:
    """Energy of one GPU, in joules; never falls."""

    __slots__ = ("_last", "_power", "_time", "total")

    def __init__(self) -> None:
        self.total: float | None = None
        self._last: float | None = None
        self._power: float | None = None
        self._time = 0.0

    def update(self, now: float, *, joules: float | None, watts: float | None) -> float | None:
        """Take one reading and give the total; None when the GPU tells neither energy nor power.

        A device counter smaller than before was restarted with the driver: all of it is new. Between two power
        readings the mean of both is taken, unless the device has a counter that merely could not be read this time:
        its next value holds that energy too. `now` is monotonic, in seconds.
        """
        if joules is not None:
            if self.total is None:
                self.total = joules
            elif self._last is not None:
                self.total += joules - self._last if joules >= self._last else joules
            self._last = joules
        elif watts is not None and self._last is None:
            if self.total is None:
                self.total = 0.0
            elif self._power is not None and 0 < now - self._time <= GAP_SECONDS:
                self.total += (watts + self._power) / 2 * (now - self._time)
        self._power = watts
        self._time = now
        return self.total if joules is not None or watts is not None else None
