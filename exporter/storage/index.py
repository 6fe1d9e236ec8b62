"""Which series there are, and which of them fit a selector's matchers."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from exporter.storage.matching import Condition, condition_of
from exporter.storage.model import NAME, Labels, Matcher

if TYPE_CHECKING:
    from exporter.storage.stream import Stream

_TESTED = 1024
"""Regular expressions whose verdicts on the known values are kept."""


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
        self._verdicts: dict[Matcher, dict[str, bool]] = {}

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
        tests = [(matcher, condition_of(matcher)) for matcher in matchers]
        values = [self._values(matcher, test) for matcher, test in tests]
        with self._lock:
            found: set[Entry] | None = None
            for (matcher, test), some in sorted(
                zip(tests, values, strict=True), key=lambda one: (one[0][1].empty, len(one[1]))
            ):
                postings = self._postings.get(matcher.name, {})
                listed = [postings[value] for value in some if value in postings]
                if not test.empty:
                    fits = listed[0] if len(listed) == 1 else set().union(*listed)
                    found = set(fits) if found is None else found & fits
                    if not found:
                        return []
                else:
                    if found is None:
                        found = set(self._entries.values())
                    for unfit in listed:
                        found = (
                            found - unfit if len(unfit) < len(found) else {e for e in found if e not in unfit}
                        )
            return list(self._entries.values()) if found is None else list(found)

    def _values(self, matcher: Matcher, test: Condition) -> Collection[str]:
        """The values of the label that fit; for a test that fits the empty value, those that do not."""
        if test.values is not None and test.negative == test.empty:
            return test.values
        with self._lock:
            known = list(self._postings.get(matcher.name, ()))
            verdicts = self._verdicts.pop(matcher, None)
        if verdicts is None or len(verdicts) > 2 * len(known) + 64:
            verdicts = {}
        for value in known:
            if value not in verdicts:
                verdicts[value] = test.matches(value)
        with self._lock:
            self._verdicts[matcher] = verdicts
            if len(self._verdicts) > _TESTED:
                del self._verdicts[next(iter(self._verdicts))]
        return [value for value in known if verdicts[value] != test.empty]

    def _changed(self, labels: Labels) -> None:
        self._changes += 1
        name = next((value for key, value in labels if key == NAME), "")
        self._changes_of[name] = self._changes
