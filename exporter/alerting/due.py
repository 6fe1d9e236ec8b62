"""When a group is due: with the scrape that lands, on a grid as wide as its interval, and never much later.

A scrape lands a little early or late each time, and seldom exactly on the grid. The last landing before a slot is taken
rather than the first one after it, so that no group becomes slower than its interval; and a landing counts for a slot that
lies a part of the time between two scrapes ahead, so that a few milliseconds decide nothing. Pure; times: int milliseconds.
"""

from __future__ import annotations

from typing import NamedTuple
from zlib import crc32

EARLY = 0.55
"""How far before its slot a group may be evaluated, in times between two scrapes: about half, so that jitter to both sides
is borne; a bit more, so that a slot right between two landings is taken with the first, whatever their jitter."""
PATIENCE_MS = 1000
"""How long after its slot a group waits for a scrape to land, before it is evaluated without one; at most half an interval."""
SPREAD_FROM_MS = 10_000
"""Groups with at least this interval are spread over it, so that they are not all evaluated with the same scrape."""
STEP_MS = 1000
"""A clock that went back by more was set; by less, evaluations wait until it has caught up."""


class Slots(NamedTuple):
    """A group's grid: `next` is the slot that has not been taken yet, `last` when it was last evaluated.

    `first` is how long after its first evaluation the grid begins; 0 is an interval.
    """

    interval: int
    next: int | None = None
    last: int | None = None
    first: int = 0


class Verdict(NamedTuple):
    """Whether to evaluate now, the grid afterwards, the slots that went by, and by how much the clock was set back."""

    due: bool
    slots: Slots
    missed: int = 0
    set_back: int = 0


def begin(interval: int, key: str) -> Slots:
    """The grid of a group that was never evaluated; the key decides where between the others it lies."""
    spread = crc32(key.encode()) % interval if interval >= SPREAD_FROM_MS else 0
    return Slots(interval, first=spread)


def decide(slots: Slots, now: int, *, landed: bool, spacing: int = 0, event: bool = False) -> Verdict:
    """Whether a group is evaluated at `now`.

    `landed`: a scrape did, `spacing` after the one before; else only what is late is due. `event`: whatever the grid says,
    and it takes the slot where that has come.
    """
    interval, next_slot, last, first = slots
    if next_slot is None or last is None:
        due = landed or event
        return Verdict(due, Slots(interval, now + (first or interval), now) if due else slots)
    if now < last - STEP_MS:
        return Verdict(True, Slots(interval, now + interval, now), set_back=last - now)
    if now <= last:
        return Verdict(False, slots)
    wanted = next_slot if event else next_slot + _patience(interval)
    if landed:
        wanted = next_slot - _early(interval, spacing)
    if now >= wanted:
        gone = max(0, (now - next_slot) // interval)
        return Verdict(True, Slots(interval, next_slot + (gone + 1) * interval, now), missed=gone)
    if event:
        return Verdict(True, slots._replace(last=now))
    return Verdict(False, slots)


def wait(slots: Slots, now: int) -> int:
    """Milliseconds until the group is late, when no scrape lands; a group that never ran waits for the first one."""
    if slots.next is None:
        return slots.interval
    return max(0, slots.next + _patience(slots.interval) - now)


def _early(interval: int, spacing: int) -> int:
    return int(EARLY * min(max(spacing, 0), interval))


def _patience(interval: int) -> int:
    return min(PATIENCE_MS, interval // 2)
