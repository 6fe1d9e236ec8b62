"""Latest samples, window ends and whole windows of some series of one stream, any number of them at once.

A series that is in both end rows of a window, and to which nothing happened between, has a sample in each row of it:
then two rows say everything. Only series to which something happened are looked at closer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from exporter.storage.arrays import F64, I32, I64, Bool
from exporter.storage.bits import ABSENT, are_samples, has_nan
from exporter.storage.columns import Columns
from exporter.storage.events import Events
from exporter.storage.model import Edges, Samples
from exporter.storage.places import Places
from exporter.storage.view import View

_BLOCK = 1 << 18
"""Values looked at in one go where whole windows must be read: about 2 MB."""


class Newest(NamedTuple):
    """Each stream's newest row at each time (s), and what its series (n) have there."""

    values: F64  # [n, s]
    times: I64  # [s]
    present: Bool  # [n, s]


class Own(NamedTuple):
    """The events of some chosen series, of all that a log had; `places` count among the chosen."""

    rows: I64
    places: I32
    weights: F64
    log: Events

    def between(self, after: int, until: int) -> tuple[I64, I32, F64]:
        """Rows, places and weights of the events in the rows `(after, until]`."""
        low, high = self.rows.searchsorted((after, until), "right").tolist()
        return self.rows[low:high], self.places[low:high], self.weights[low:high]


class Chosen:
    """Some series of one stream, by slot; remembers where each slot stands among them, and what happened to them."""

    __slots__ = ("_open", "_resets", "_turns", "_where", "slots")

    def __init__(self, slots: I32) -> None:
        self.slots = slots
        self._where: Places | None = None
        self._turns: Own | None = None
        self._resets: Own | None = None
        self._open: tuple[Columns, I32, Bool | None] | None = None
        """The open rows' columns, where the series stand among them, and which of them do not, if any."""

    def row(self, view: View, row: int) -> F64:
        """The entry of each series in one row."""
        inside = row - int(view.starts[-1])
        if inside < 0 or not view.rows.shape[1]:
            return view.row(self.slots, row)
        known = self._open
        if known is None or known[0] is not view.columns:
            found = view.columns.find(self.slots)
            missing = found < 0
            known = self._open = view.columns, found, missing if missing.any() else None
        values: F64 = view.rows[inside].take(known[1])
        if known[2] is not None:
            values[known[2]] = ABSENT
        return values

    def turns(self, view: View) -> Own:
        """Where the series came and ended."""
        own = self._turns = self._own(self._turns, view.turns)
        return own

    def resets(self, view: View) -> Own:
        """Where their counters fell."""
        own = self._resets = self._own(self._resets, view.resets)
        return own

    def _own(self, known: Own | None, log: Events) -> Own:
        """Look only at what is new since the last time, as long as it is the same log."""
        start = 0
        if known is not None and known.log.rows is log.rows:
            if known.log.size == log.size:
                return known
            if known.log.size < log.size:
                start = known.log.size
        rows, slots = log.rows[start : log.size], log.slots[start : log.size]
        if self._where is None:
            self._where = Places(self.slots)
        places = self._where.find(slots)
        ours = np.flatnonzero(places >= 0)
        rows, places, weights = rows[ours], places[ours], log.weights[start : log.size][ours]
        if start and known is not None:
            rows = np.concatenate([known.rows, rows])
            places = np.concatenate([known.places, places])
            weights = np.concatenate([known.weights, weights])
        return Own(rows, places, weights, log)


def newest(view: View, chosen: Chosen, times: I64, lookback: int) -> Newest:
    """What the newest row in each `(t - lookback, t]` says; a series that is not in it ended before, or never was."""
    n = len(chosen.slots)
    stamps = view.stamps
    if not len(stamps):
        return Newest(np.zeros((n, len(times))), np.zeros_like(times), np.zeros((n, len(times)), np.bool_))
    if len(times) == 1:
        return _newest_once(view, chosen, int(times[0]), lookback)
    at = stamps.searchsorted(times, "right") - 1
    inside = np.maximum(at, 0)
    found = stamps[inside]
    values = view.read(chosen.slots, view.base + inside)
    present = are_samples(values) if has_nan(values) else np.ones(values.shape, np.bool_)
    fresh = (at >= 0) & (found > times - lookback)
    if not fresh.all():
        present &= fresh
    return Newest(values, found, present)


def _newest_once(view: View, chosen: Chosen, time: int, lookback: int) -> Newest:
    """The same at one time, as rules ask; numbers of one element cost more than numbers."""
    at = int(view.stamps.searchsorted(time, "right")) - 1
    found = int(view.stamps[max(at, 0)])
    values = chosen.row(view, view.base + max(at, 0))[:, None]
    if at < 0 or found <= time - lookback:
        present = np.zeros(values.shape, np.bool_)
    else:
        present = are_samples(values) if has_nan(values) else np.ones(values.shape, np.bool_)
    return Newest(values, np.array([found], np.int64), present)


def edges(view: View, chosen: Chosen, lo: I64, hi: I64) -> Edges:
    """The first and last samples of each series in each window `(lo, hi]`."""
    slots, stamps = chosen.slots, view.stamps
    shape = len(slots), len(lo)
    if not len(stamps) or not len(slots):
        return _nothing(shape)
    if len(lo) == 1:
        quiet = _quiet_edges(view, chosen, int(lo[0]), int(hi[0]))
        if quiet is not None:
            return quiet
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
    turns = _Turns(view, chosen, int(low[~void].min()) + view.base, int(high[~void].max()) + view.base)
    if turns.any:
        first_at, last_at = first_at.copy(), last_at.copy()
        for step in np.flatnonzero(~void).tolist():
            start, stop = int(low[step]) + view.base, int(high[step]) + view.base
            run = turns.run(start, stop, are_samples(first[:, step]), there[:, step])
            if run is None:
                continue
            counts[:, step] = run.counts
            for entries, at, rows in ((first, first_at, run.first), (last, last_at, run.last)):
                if rows is not None:
                    moved = np.flatnonzero((rows != at[:, step] + view.base) & (run.counts > 0))
                    at[moved, step] = rows[moved] - view.base
                    entries[moved, step] = view.points(slots[moved], rows[moved])
    with np.errstate(invalid="ignore", over="ignore"):
        rise = last - first
        _add_resets(view, chosen, rise, first_at, high, void)
        plain = np.flatnonzero(~view.counters[slots] & (counts > 1).any(axis=1))
        if len(plain):
            rise[plain] = last[plain] - first[plain]
            _add_falls(view, chosen, plain, rise, lo, hi)
    return Edges(counts, stamps[first_at], first, stamps[last_at], last, rise)


def _quiet_edges(view: View, chosen: Chosen, lo: int, hi: int) -> Edges | None:
    """The same in one window, as rules ask, of counters to which nothing happened in it; None where anything did."""
    slots, stamps = chosen.slots, view.stamps
    shape = len(slots), 1
    low = int(stamps.searchsorted(lo, "right"))
    high = int(stamps.searchsorted(hi, "right")) - 1
    if high < low:
        return _nothing(shape)
    after, until = low + view.base, high + view.base
    if (
        len(chosen.turns(view).between(after, until)[0])
        or len(chosen.resets(view).between(after, until)[0])
        or (view.trimmed > after and bool((view.begin[slots] > after).any()))
        or not bool(view.counters[slots].all())
    ):
        return None
    first, last = chosen.row(view, after), chosen.row(view, until)
    counts: I64 = np.full(shape, high - low + 1)
    if has_nan(last):
        counts[~are_samples(last)] = 0
    with np.errstate(invalid="ignore", over="ignore"):
        rise = last - first
    return Edges(
        counts,
        np.full(shape, stamps[low]),
        first[:, None],
        np.full(shape, stamps[high]),
        last[:, None],
        rise[:, None],
    )


def samples(view: View, chosen: Chosen, lo: int, hi: int, some: I64 | None = None) -> list[Samples]:
    """Everything in `(lo, hi]`, of all or of some of the chosen; the rows count places among the chosen."""
    stamps, slots = view.stamps, chosen.slots
    low, high = stamps.searchsorted((lo, hi), "right").tolist()
    if high <= low or not len(slots):
        return []
    start, stop = low + view.base, high + view.base
    there = are_samples(view.row(slots, stop - 1))
    turned = _turned(view, chosen, start, stop - 1)
    if some is not None and len(some) < len(slots):
        wanted = np.zeros(len(slots), np.bool_)
        wanted[some] = True
        there, turned = there & wanted, turned & wanted
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
    start, last = low + view.base, high - 1 + view.base
    there = are_samples(view.row(chosen.slots, last))
    run = _Turns(view, chosen, start, last).run(
        start, last, are_samples(view.row(chosen.slots, start)), there
    )
    return there if run is None else run.counts > 0


def _turned(view: View, chosen: Chosen, low: int, high: int) -> Bool:
    """Which of the chosen series came, ended, or were cut somewhere in the rows `[low, high]`."""
    turned: Bool = view.begin[chosen.slots] > low
    turned[chosen.turns(view).between(low, high)[1]] = True
    return turned


def _nothing(shape: tuple[int, int]) -> Edges:
    none, zero = np.zeros(shape, np.int64), np.zeros(shape)
    return Edges(none, none, zero, none, zero, zero)


class _Run(NamedTuple):
    """Per series: its samples in a window's rows, and the rows of the first and the last; without any, these mean nothing.

    None: it is the window's first, or last, row for all.
    """

    counts: I64
    first: I64 | None
    last: I64 | None


class _Turns:
    """Where some series came and ended in the rows `(after, until]`, and where their samples begin to be kept."""

    __slots__ = ("_begin", "_places", "_rows", "_slots", "_view", "_weights", "any")

    def __init__(self, view: View, chosen: Chosen, after: int, until: int) -> None:
        self._view, self._slots = view, chosen.slots
        self._rows, self._places, self._weights = chosen.turns(view).between(after, until)
        self._begin = view.begin[chosen.slots] if view.trimmed > after else None
        self.any = bool(len(self._rows)) or self._begin is not None

    def run(self, low: int, high: int, starts_there: Bool, ends_there: Bool) -> _Run | None:
        """The runs in the rows `[low, high]`, given who has a sample in these two; None where all stay or stay away."""
        start, stop = self._rows.searchsorted((low, high), "right").tolist()
        begin = self._begin
        cut = begin is not None and bool((begin > low).any())
        if start == stop and not cut:
            return None
        rows, places, weights = self._rows[start:stop], self._places[start:stop], self._weights[start:stop]
        n = len(self._slots)
        first: I64 = np.full(n, low, np.int64)
        if begin is not None and cut:
            first = np.clip(begin, low, high)
            starts_there = starts_there & (begin <= high)
            later = np.flatnonzero((begin > low) & (begin <= high))
            starts_there[later] = are_samples(self._view.points(self._slots[later], first[later]))
            ends_there = ends_there & (begin <= high)
            kept = rows > first[places]
            rows, places, weights = rows[kept], places[kept], weights[kept]
        counts: I64 = -np.bincount(places, weights * rows, n).astype(np.int64)
        all_start, all_end = bool(starts_there.all()), bool(ends_there.all())
        counts += high + 1 if all_end else np.where(ends_there, high + 1, 0)
        counts -= first if all_start else np.where(starts_there, first, 0)
        if not all_start:
            came = first.copy()
            came[places[::-1]] = rows[::-1]
            first = np.where(starts_there, first, came)
        last: I64 | None = None
        if not all_end:
            ended = np.full(n, high, np.int64)
            ended[places] = rows - 1
            last = np.where(ends_there, high, ended)
        return _Run(counts, None if all_start and not cut else first, last)


def _add_resets(view: View, chosen: Chosen, rise: F64, first_at: I64, high: I64, void: Bool) -> None:
    """Give back what counters lost at their resets: those after a window's first sample, up to its end."""
    after, until = int(first_at[:, ~void].min()) + view.base, int(high[~void].max()) + view.base
    rows, places, weights = chosen.resets(view).between(after, until)
    if not len(rows):
        return
    rows = rows - view.base
    for step in np.flatnonzero(~void).tolist():
        end = int(rows.searchsorted(high[step], "right"))
        some, lost = places[:end], weights[:end]
        counted = rows[:end] > first_at[some, step]
        if not counted.all():
            some, lost = some[counted], lost[counted]
        if len(some):
            rise[:, step] += np.bincount(some, lost, len(rise))


def _add_falls(view: View, chosen: Chosen, plain: I64, rise: F64, lo: I64, hi: I64) -> None:
    """The same for series that nobody called a counter: their falls are looked for in the windows themselves."""
    low, high = int(lo.min()), int(hi.max())
    width = int(view.stamps.searchsorted(high, "right") - view.stamps.searchsorted(low, "right"))
    size = max(1, _BLOCK // max(1, width))
    for start in range(0, len(plain), size):
        for group in samples(view, chosen, low, high, plain[start : start + size]):
            target = np.asarray(group.rows)
            before, after = group.values[:, :-1], group.values[:, 1:]
            fell = after < before
            lost = before * fell  # several times as fast as np.where, but no good for NaN and Inf
            whole = lost.sum(axis=1)
            if not np.isfinite(whole).all():
                lost = np.where(fell, before, 0.0)
                whole = lost.sum(axis=1)
            if len(lo) == 1:
                rise[target, 0] += whole
                continue
            a = group.times.searchsorted(lo, "right")
            b = group.times.searchsorted(hi, "right") - 1
            several = np.flatnonzero(b > a)
            if np.isfinite(whole).all():
                total = np.zeros(group.values.shape)
                lost.cumsum(axis=1, out=total[:, 1:])
                rise[target[:, None], several] += total[:, b[several]] - total[:, a[several]]
                continue
            for step in several.tolist():
                rise[target, step] += lost[:, a[step] : b[step]].sum(axis=1)
