"""Which series there are, and which of them fit a selector's matchers."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from exporter.storage.matching import Condition, condition_of
from exporter.storage.model import NAME, Labels, Matcher

if TYPE_CHECKING:
    from exporter.storage.stream import Stream


SERIES_BYTES = 500
PAIR_BYTES = 110
VALUE_BYTES = 180
"""What a series takes besides its samples, as tracemalloc sees it: itself with its slot, each of its labels, and each
value that only it has, besides the text."""


class Entry:
    """One series, and where its samples stand: nearly always in one stream."""

    __slots__ = ("labels", "places")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.places: tuple[tuple[Stream, int], ...] = ()


class Index:
    """Series by label; any thread. The lock is held for as long as sets are put together, not while values are tested.

    `version(matchers)` changes when the answer to a selector may have.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[Labels, Entry] = {}
        self._postings: dict[str, dict[str, Entry | set[Entry]]] = {}
        """By name and value; a value that only one series has needs no set."""
        self._pairs = self._values_held = self._text = 0
        self._changes = 0
        self._changes_of: dict[str, int] = {}
        """By metric name, the number of the last change; only of names that there are."""

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Memory of the series besides their samples, about."""
        return (
            SERIES_BYTES * len(self._entries)
            + PAIR_BYTES * self._pairs
            + VALUE_BYTES * self._values_held
            + self._text
        )

    def add(self, stream: Stream, labels: Sequence[Labels], slots: Sequence[int]) -> None:
        """Take up series of a stream."""
        with self._lock:
            for one, slot in zip(labels, slots, strict=True):
                fresh = Entry(one)
                entry = self._entries.setdefault(one, fresh)
                if entry is not fresh:
                    entry.places = (*entry.places, (stream, slot))
                    self._changed(one)
                    continue
                entry.places = ((stream, slot),)
                self._pairs += len(one)
                for name, value in one:
                    postings = self._postings.get(name)
                    if postings is None:
                        postings = self._postings[name] = {}
                    holders = postings.setdefault(value, entry)
                    if holders is entry:
                        self._values_held += 1
                        self._text += len(value)
                    elif isinstance(holders, Entry):
                        postings[value] = {holders, entry}
                    else:
                        holders.add(entry)
                self._changed(one)

    def remove(self, stream: Stream, labels: Iterable[Labels]) -> None:
        """Forget series of a stream that have no samples any more."""
        with self._lock:
            for one in labels:
                entry = self._entries[one]
                entry.places = tuple(place for place in entry.places if place[0] is not stream)
                self._changed(one)
                if entry.places:
                    continue
                del self._entries[one]
                self._pairs -= len(one)
                for name, value in one:
                    postings = self._postings[name]
                    holders = postings[value]
                    if not isinstance(holders, Entry):
                        holders.discard(entry)
                    if isinstance(holders, Entry) or not holders:
                        del postings[value]
                        self._values_held -= 1
                        self._text -= len(value)
                        if name == NAME:
                            self._changes_of.pop(value, None)
                        if not postings:
                            del self._postings[name]

    def version(self, matchers: Iterable[Matcher]) -> int:
        """A number that is another one when series came or went that these matchers may select."""
        for matcher in matchers:
            if matcher.name == NAME and matcher.op == "=":
                return self._changes_of.get(matcher.value, 0)
        return self._changes

    def find(self, matchers: Sequence[Matcher]) -> list[Entry]:
        """Every series that fits all the matchers, in no order; ValueError for a bad regular expression."""
        asked = []
        for matcher in matchers:
            condition = condition_of(matcher)
            asked.append((condition.empty, matcher.name, self._values(matcher, condition)))
        asked.sort(key=lambda one: (one[0], len(one[2])))
        with self._lock:
            found: set[Entry] | None = None
            for fits_none, name, values in asked:
                postings = self._postings.get(name, {})
                listed = [
                    (holders,) if isinstance(holders, Entry) else holders
                    for value in values
                    if (holders := postings.get(value)) is not None
                ]
                if fits_none:
                    found = (set(self._entries.values()) if found is None else found).difference(*listed)
                elif found is None:
                    found = set().union(*listed)
                else:
                    found = found.intersection(listed[0] if len(listed) == 1 else set().union(*listed))
                if not found:
                    return []
            return list(self._entries.values()) if found is None else list(found)

    def _values(self, matcher: Matcher, condition: Condition) -> Collection[str]:
        """The values of the label that fit; for a condition that the empty value fits, those that do not."""
        if condition.values is not None and condition.negative == condition.empty:
            return condition.values
        with self._lock:
            known = list(self._postings.get(matcher.name, ()))
        return [value for value in known if condition.matches(value) != condition.empty]

    def _changed(self, labels: Labels) -> None:
        self._changes += 1
        name = ""
        for key, value in labels:
            if key == NAME:
                name = value
                break
        self._changes_of[name] = self._changes
