"""Latest samples, window ends and whole windows of some series of one stream, any number of them at once.

A series that is in both end rows of a window, and to which nothing happened between, has a sample in each row of it:
then two rows say everything. Only series to which something happened are looked at closer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from exporter.storage.arrays import F64, I32, I64, Bool
from exporter.storage.bits import are_samples, has_nan
from exporter.storage.model import Edges, Samples
from exporter.storage.view import View

_BLOCK = 1 << 18
"""Values looked at in one go where whole windows must be read: about 2 MB."""


class Newest(NamedTuple):
    """Each stream's newest row at each time (s), and what its series (n) have there."""

    values: F64  # [n, s]
    times: I64  # [s]
    present: Bool  # [n, s]


class Chosen:
    """Some series of one stream, by slot; remembers where each slot stands among them."""

    __slots__ = ("_where", "slots")

    def __init__(self, slots: I32) -> None:
        self.slots = slots
        self._where = np.full(int(slots.max()) + 2 if len(slots) else 1, -1, np.int32)
        self._where[slots] = np.arange(len(slots), dtype=np.int32)

    def positions(self, slots: I32) -> I32:
        """The place of each slot among the chosen ones, -1 for others."""
        found: I32 = self._where[np.minimum(slots, len(self._where) - 1)]
        return found


def newest(view: View, chosen: Chosen, times: I64, lookback: int) -> Newest:
    """What the newest row in each `(t - lookback, t]` says; a series that is not in it ended before, or never was."""
    n = len(chosen.slots)
    stamps = view.stamps
    if not len(stamps):
        return Newest(np.zeros((n, len(times))), np.zeros_like(times), np.zeros((n, len(times)), np.bool_))
    at = stamps.searchsorted(times, "right") - 1
    inside = np.maximum(at, 0)
    found = stamps[inside]
    values = view.read(chosen.slots, view.base + inside)
    present = are_samples(values) if has_nan(values) else np.ones(values.shape, np.bool_)
    fresh = (at >= 0) & (found > times - lookback)
    if not fresh.all():
        present &= fresh
    return Newest(values, found, present)


def edges(view: View, chosen: Chosen, lo: I64, hi: I64) -> Edges:
    """The first and last samples of each series in each window `(lo, hi]`."""
    slots, stamps = chosen.slots, view.stamps
    shape = len(slots), len(lo)
    if not len(stamps) or not len(slots):
        return _nothing(shape)
    low = stamps.searchsorted(lo, "right")
    high = stamps.searchsorted(hi, "right") - 1
    void = high < low
    if void.all():
        return _nothing(shape)
    first_rows, last_rows = np.minimum(low, len(stamps) - 1), np.maximum(high, 0)
    first = view.read(slots, view.base + first_rows)
    last = view.read(slots, view.base + last_rows)
    there = are_samples(last) if has_nan(last) else np.ones(shape, np.bool_)
    counts: I64 = np.where(there & ~void, high - low + 1, 0)
    first_at: I64 = np.broadcast_to(first_rows, shape)
    last_at: I64 = np.broadcast_to(last_rows, shape)
    turned = _turned(view, chosen, low + view.base, high + view.base, void)
    if len(turned):
        first_at, last_at = first_at.copy(), last_at.copy()
        some = slots[turned]
        for step in np.flatnonzero(~void).tolist():
            began, ended, number = _run(view, some, int(low[step]) + view.base, int(high[step]) + view.base)
            counts[turned, step] = number
            first_at[turned, step], last_at[turned, step] = began - view.base, ended - view.base
            first[turned, step] = view.points(some, began)
            last[turned, step] = view.points(some, ended)
    with np.errstate(invalid="ignore", over="ignore"):
        rise = last - first
        _add_resets(view, chosen, rise, first_at, high, void)
        plain = np.flatnonzero(~view.counters[slots] & (counts > 1).any(axis=1))
        if len(plain):
            _add_falls(view, slots, plain, rise, lo, hi)
    return Edges(counts, stamps[first_at], first, stamps[last_at], last, rise)


def samples(view: View, chosen: Chosen, lo: int, hi: int) -> list[Samples]:
    """Everything in `(lo, hi]`; the rows count places among the chosen."""
    stamps, slots = view.stamps, chosen.slots
    low, high = stamps.searchsorted((lo, hi), "right").tolist()
    if high <= low or not len(slots):
        return []
    start, stop = low + view.base, high + view.base
    ends = np.array([start]), np.array([stop - 1]), np.array([False])
    turned = np.zeros(len(slots), np.bool_)
    turned[_turned(view, chosen, *ends)] = True
    there = are_samples(view.row(slots, stop - 1))
    times = stamps[low:high]
    found = []
    steady = np.flatnonzero(there & ~turned)
    if len(steady):
        found.append(Samples(steady, times, view.block(slots[steady], start, stop)))
    odd = np.flatnonzero(turned)
    if len(odd):
        values = view.block(slots[odd], start, stop)
        sampled = are_samples(values)
        alike: dict[bytes, list[int]] = {}
        for i, mask in enumerate(sampled):
            alike.setdefault(mask.tobytes(), []).append(i)
        for members in alike.values():
            mask = sampled[members[0]]
            if mask.any():
                found.append(Samples(odd[members], times[mask], values[members][:, mask]))
    return found


def sampled(view: View, chosen: Chosen, lo: int, hi: int) -> Bool:
    """Which series have a sample in `(lo, hi]`."""
    low, high = view.stamps.searchsorted((lo, hi), "right").tolist()
    if high <= low or not len(chosen.slots):
        return np.zeros(len(chosen.slots), np.bool_)
    start, last = np.array([low + view.base]), np.array([high - 1 + view.base])
    has: Bool = are_samples(view.row(chosen.slots, int(last[0])))
    turned = _turned(view, chosen, start, last, np.array([False]))
    has[turned] = _run(view, chosen.slots[turned], int(start[0]), int(last[0]))[2] > 0
    return has


def _nothing(shape: tuple[int, int]) -> Edges:
    none, zero = np.zeros(shape, np.int64), np.zeros(shape)
    return Edges(none, none, zero, none, zero, zero)


def _turned(view: View, chosen: Chosen, low: I64, high: I64, void: Bool) -> I32:
    """The chosen series that came, ended, or were cut somewhere in the windows' rows `[low, high]`."""
    after, until = int(low[~void].min()), int(high[~void].max())
    _, slots, _ = view.turns.between(after, until)
    turned: I32 = np.zeros(0, np.int32)
    if len(slots):
        turned = np.unique(chosen.positions(slots))
        turned = turned[turned >= 0]
    if view.trimmed > after:
        cut = np.flatnonzero(view.begin[chosen.slots] > after).astype(np.int32)
        turned = np.union1d(turned, cut)
    return turned


def _run(view: View, slots: I32, low: int, high: int) -> tuple[I64, I64, I64]:
    """The rows of the first and last samples in the rows `[low, high]`, and the number of samples; per slot."""
    n = len(slots)
    begin: I64 = np.maximum(view.begin[slots], low)
    inside = np.minimum(begin, high)
    starts_there = are_samples(view.points(slots, inside)) & (begin <= high)
    ends_there = are_samples(view.row(slots, high)) & (begin <= high)
    rows, which, weights = view.turns.between(low, high)
    places = Chosen(slots).positions(which)
    wanted = places >= 0
    rows, places, weights = rows[wanted], places[wanted], weights[wanted]
    wanted = rows > begin[places]
    rows, places, weights = rows[wanted], places[wanted], weights[wanted]
    number: I64 = np.where(ends_there, high + 1, 0) - np.where(starts_there, inside, 0)
    number -= np.bincount(places, weights * rows, n).astype(np.int64)
    earliest, latest = inside.copy(), inside.copy()
    earliest[places[::-1]] = rows[::-1]
    latest[places] = rows
    first = np.where(starts_there, inside, earliest)
    last = np.where(ends_there, high, np.maximum(latest - 1, first))
    return first, last, number


def _add_resets(view: View, chosen: Chosen, rise: F64, first_at: I64, high: I64, void: Bool) -> None:
    """Give back what counters lost at their resets: those after a window's first sample, up to its end."""
    after, until = int(first_at[:, ~void].min()) + view.base, int(high[~void].max()) + view.base
    rows, slots, weights = view.resets.between(after, until)
    if not len(rows):
        return
    places = chosen.positions(slots)
    wanted = places >= 0
    rows, places, weights = rows[wanted] - view.base, places[wanted], weights[wanted]
    if not len(rows):
        return
    for step in np.flatnonzero(~void).tolist():
        end = int(rows.searchsorted(high[step], "right"))
        counted = rows[:end] > first_at[places[:end], step]
        if counted.any():
            rise[:, step] += np.bincount(places[:end][counted], weights[:end][counted], len(rise))


def _add_falls(view: View, slots: I32, plain: I64, rise: F64, lo: I64, hi: I64) -> None:
    """The same for series that nobody called a counter: their falls are looked for in the windows themselves."""
    low, high = int(lo.min()), int(hi.max())
    width = int(view.stamps.searchsorted(high, "right") - view.stamps.searchsorted(low, "right"))
    size = max(1, _BLOCK // max(1, width))
    for start in range(0, len(plain), size):
        part = plain[start : start + size]
        for group in samples(view, Chosen(slots[part]), low, high):
            before, after = group.values[:, :-1], group.values[:, 1:]
            fell = after < before
            if not fell.any():
                continue
            lost = np.zeros(group.values.shape)
            lost[:, 1:][fell] = before[fell]
            a = group.times.searchsorted(lo, "right")
            b = group.times.searchsorted(hi, "right") - 1
            target = part[np.asarray(group.rows)]
            if np.isfinite(lost).all():
                total = lost.cumsum(axis=1)
                edge = len(group.times) - 1
                gained = total[:, np.maximum(b, 0)] - total[:, np.minimum(a, edge)]
                rise[target] += np.where(b > a, gained, 0.0)
                continue
            for step in np.flatnonzero(b > a).tolist():
                rise[target, step] += lost[:, a[step] + 1 : b[step] + 1].sum(axis=1)
