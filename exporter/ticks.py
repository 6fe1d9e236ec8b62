"""When to wake up for what is done again and again, and needs no time of its own: on one grid, so that the event loop
wakes once for all of it. Each time costs more than most of the work that is done then.
"""

from __future__ import annotations


def next_tick(now: float, interval: float) -> float:
    """The first multiple of `interval` after `now`, seconds of a monotonic clock."""
    return (now // interval + 1) * interval
