"""Which series there are, and which of them fit a selector's matchers."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from exporter.storage.matching import Condition, condition_of
from exporter.storage.model import NAME, Labels, Matcher

if TYPE_CHECKING:
    from exporter.storage.stream import Stream


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
        self._postings: dict[str, dict[str, set[Entry]]] = {}
        self._changes = 0
        self._changes_of: dict[str, int] = {}
        """Changes by metric name."""

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, stream: Stream, labels: Sequence[Labels], slots: Sequence[int]) -> None:
        """Take up series of a stream."""
        with self._lock:
            for one, slot in zip(labels, slots, strict=True):
                entry = self._entries.get(one)
                if entry is None:
                    entry = self._entries[one] = Entry(one)
                    for name, value in one:
                        self._postings.setdefault(name, {}).setdefault(value, set()).add(entry)
                entry.places = (*entry.places, (stream, slot))
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
                for name, value in one:
                    postings = self._postings[name]
                    postings[value].discard(entry)
                    if not postings[value]:
                        del postings[value]
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
                listed = [postings[value] for value in values if value in postings]
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
        name = next((value for key, value in labels if key == NAME), "")
        self._changes_of[name] = self._changes
