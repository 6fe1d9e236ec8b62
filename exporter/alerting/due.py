"""When a group is due: with the scrape that lands, on a grid as wide as its interval, and never much later.

A scrape lands a little early or late each time, and seldom exactly on the grid. The last landing before a slot is taken
rather than the first one after it, so that no group becomes slower than its interval; and a landing counts for a slot that
lies a part of the time between two scrapes ahead, so that a few milliseconds decide nothing. Pure; times: int milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple
from zlib import crc32

EARLY = 0.55
"""How far before its slot a group may be evaluated, in times between two scrapes: about half, so that jitter to both sides
is borne; a bit more, so that a slot right between two landings is taken with the first, whatever their jitter."""
PATIENCE_MS = 1000
"""How long after its slot a group waits for a scrape to land, before it is evaluated without one; at most half an interval."""
SPREAD_FROM_MS = 10_000
"""Groups with at least this interval are spread over it, so that they are not all evaluated with the same scrape."""
SPREAD_STEP_MS = 5000
"""They are spread in steps as wide as the fastest groups' interval: a few that are evaluated together cost less than each
alone, since they find the processor's caches warm."""
IDLE_MS = 60_000
"""How long nothing is late where there are no groups."""
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
    """Whether to evaluate now, the grid afterwards, and the slots that went by."""

    due: bool
    slots: Slots
    missed: int = 0


def begin(interval: int, key: str) -> Slots:
    """The grid of a group that was never evaluated; the key decides where between the others it lies."""
    if interval < SPREAD_FROM_MS:
        return Slots(interval)
    return Slots(interval, first=crc32(key.encode()) % (interval // SPREAD_STEP_MS) * SPREAD_STEP_MS)


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
        return Verdict(True, Slots(interval, now + interval, now))
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


class Timetable:
    """The grids of all groups, by key; a look at it tells at once when nothing is due, as mostly nothing is."""

    def __init__(self) -> None:
        self._slots: dict[str, Slots] = {}
        self._held: set[str] = set()
        self._note()

    def adopt(self, intervals: Mapping[str, int]) -> None:
        """These are the groups from now on, and their intervals; one whose interval stays keeps its grid."""
        slots = {}
        for key, interval in intervals.items():
            old = self._slots.get(key)
            slots[key] = old if old is not None and old.interval == interval else begin(interval, key)
        self._slots = slots
        self._note()

    def due(
        self, now: int, *, landed: bool, spacing: int = 0, events: Collection[str] = ()
    ) -> dict[str, Verdict]:
        """The groups to evaluate at `now`, in their order; `events`: those that an event concerns. See `decide`."""
        if not events and now + _early(self._longest, spacing) < self._next and now >= self._last - STEP_MS:
            return {}
        found = {}
        for key, slots in self._slots.items():
            if key in self._held:
                continue
            verdict = decide(slots, now, landed=landed, spacing=spacing, event=key in events)
            self._slots[key] = verdict.slots
            if verdict.due:
                found[key] = verdict
        self._note()
        return found

    def hold(self, key: str) -> None:
        """The group is still at work: it is not due again before its `release`."""
        self._held.add(key)
        self._note()

    def release(self, key: str, at: int) -> int:
        """The group was at work until now; `at` is what it was evaluated for. Gives the slots that went by before that."""
        self._held.discard(key)
        slots = self._slots.get(key)
        gone = 0
        if slots is not None and slots.next is not None and at > (slots.last or 0):
            gone = max(0, (at - slots.next) // slots.interval + 1)
            self._slots[key] = slots._replace(next=slots.next + gone * slots.interval, last=at)
        self._note()
        return gone

    def wait(self, now: int) -> int:
        """Milliseconds until the first group is late, when no scrape lands; a minute where there are no groups."""
        return min(self._unbegun, max(0, self._late - now))

    def _note(self) -> None:
        """What all grids have in common: nothing is due before `_next`, nothing was evaluated after `_last`."""
        free = [slots for key, slots in self._slots.items() if key not in self._held]
        begun = [slots for slots in free if slots.next is not None]
        unbegun = [slots.interval for slots in free if slots.next is None]
        far = 1 << 62
        self._longest = max((slots.interval for slots in begun), default=0)
        self._last = max((slots.last or 0 for slots in begun), default=0)
        self._next = -far if unbegun else min((slots.next or 0 for slots in begun), default=far)
        self._late = min(((slots.next or 0) + _patience(slots.interval) for slots in begun), default=far)
        self._unbegun = min(unbegun, default=far if begun else IDLE_MS)


def _early(interval: int, spacing: int) -> int:
    return int(EARLY * min(max(spacing, 0), interval))


def _patience(interval: int) -> int:
    return min(PATIENCE_MS, interval // 2)
