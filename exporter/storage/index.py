"""Which series there are, where they stand, and which of them fit a selector's matchers."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from exporter.storage.arrays import I32, Bool
from exporter.storage.matching import Condition, condition_of
from exporter.storage.model import NAME, Labels, Matcher
from exporter.storage.postings import Numbers, gathered, joined, without

if TYPE_CHECKING:
    from exporter.storage.stream import Stream

    Places = tuple[tuple[Stream, int], ...]

SERIES_BYTES = 250
PAIR_BYTES = 75
VALUE_BYTES = 160
"""What a series takes besides its samples, as tracemalloc sees it: itself with its slot, each of its labels, and each
value that only it has, besides the text."""

_SHARED = -1
"""In place of a stream's number: the series stands in several."""


class Part(NamedTuple):
    """Series of one stream, in the order of their slots."""

    stream: Stream
    slots: I32
    labels: list[Labels]


class Found(NamedTuple):
    """Series that fit: stream by stream, and those that stand in several streams, with their slots there."""

    parts: list[Part]
    shared: list[tuple[Labels, Places]]


class Index:
    """Series by label; any thread. The lock is held for as long as sets are put together, not while values are tested.

    Each series has a number as long as it is there. `version(matchers)` changes when the answer to a selector may have.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: dict[Labels, int] = {}
        self._labels: list[Labels | None] = []
        """By number."""
        self._stream_of: I32 = np.zeros(64, np.int32)
        self._slot_of: I32 = np.zeros(64, np.int32)
        """By number: where its samples stand, nearly always in one stream."""
        self._shared: dict[int, Places] = {}
        self._free: list[int] = []
        self._streams: dict[int, Stream] = {}
        self._postings: dict[str, dict[str, Numbers]] = {}
        """By name and value."""
        self._pairs = self._values_held = self._text = 0
        self._changes = 0
        self._changes_of: dict[str, int] = {}
        """By metric name, the number of the last change; only of names that there are."""

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def nbytes(self) -> int:
        """Memory of the series besides their samples, about."""
        return (
            SERIES_BYTES * len(self._numbers)
            + PAIR_BYTES * self._pairs
            + VALUE_BYTES * self._values_held
            + self._text
        )

    def add(self, stream: Stream, labels: Sequence[Labels], slots: Sequence[int]) -> None:
        """Take up series of a stream."""
        numbers, taken = [], []
        with self._lock:
            self._streams[stream.number] = stream
            for one, slot in zip(labels, slots, strict=True):
                number = self._numbers.get(one)
                if number is not None:
                    self._shared[number] = (*self._places(number), (stream, slot))
                    self._stream_of[number] = _SHARED
                else:
                    number = self._new(one)
                    numbers.append(number)
                    taken.append(slot)
                    self._post(one, number)
                self._changed(one)
            self._make_room()
            self._stream_of[numbers], self._slot_of[numbers] = stream.number, taken

    def remove(self, stream: Stream, labels: Iterable[Labels]) -> None:
        """Forget series of a stream that have no samples any more."""
        with self._lock:
            gone = [number for one in labels if (number := self._removed(stream, one)) is not None]
            if gone:
                self._unpost(gone)

    def slots(self, stream: Stream, labels: Iterable[Labels]) -> I32:
        """The slot of each series in a stream, -1 where the stream does not have it."""
        with self._lock:
            numbers = np.array([self._numbers.get(one, -1) for one in labels], np.int32)
            known = numbers >= 0
            here = known & (self._stream_of[numbers] == stream.number)
            slots = np.where(here, self._slot_of[numbers], np.int32(-1))
            if self._shared:
                for at in np.flatnonzero(known & (self._stream_of[numbers] == _SHARED)).tolist():
                    slots[at] = dict(self._shared[int(numbers[at])]).get(stream, -1)
            return slots

    def version(self, matchers: Iterable[Matcher]) -> int:
        """A number that is another one when series came or went that these matchers may select."""
        for matcher in matchers:
            if matcher.name == NAME and matcher.op == "=":
                return self._changes_of.get(matcher.value, 0)
        return self._changes

    def find(self, matchers: Sequence[Matcher]) -> Found:
        """Every series that fits all the matchers; ValueError for a bad regular expression."""
        asked = []
        for matcher in matchers:
            condition = condition_of(matcher)
            asked.append((condition.empty, matcher.name, self._values(matcher, condition)))
        asked.sort(key=lambda one: (one[0], len(one[2])))
        with self._lock:
            found: I32 | None = None
            for fits_none, name, values in asked:
                postings = self._postings.get(name, {})
                listed = gathered(
                    [numbers for value in values if (numbers := postings.get(value)) is not None]
                )
                if found is None and not fits_none:
                    found = listed
                else:
                    found = self._all() if found is None else found
                    has: Bool = np.zeros(len(self._labels), np.bool_)
                    has[listed] = True
                    found = found[has[found] != fits_none]
                if not len(found):
                    break
            return self._where(self._all() if found is None else found)

    def _values(self, matcher: Matcher, condition: Condition) -> Collection[str]:
        """The values of the label that fit; for a condition that the empty value fits, those that do not."""
        if condition.values is not None and condition.negative == condition.empty:
            return condition.values
        with self._lock:
            known = list(self._postings.get(matcher.name, ()))
        return [value for value in known if condition.matches(value) != condition.empty]

    # --- under the lock

    def _all(self) -> I32:
        return np.fromiter(self._numbers.values(), np.int32, len(self._numbers))

    def _where(self, numbers: I32) -> Found:
        streams, slots = self._stream_of[numbers], self._slot_of[numbers]
        order = np.lexsort((slots, streams))
        numbers, streams, slots = numbers[order], streams[order], slots[order]
        labels: list[Labels] = [self._labels[number] for number in numbers.tolist()]
        cuts = [0, *(np.flatnonzero(np.diff(streams)) + 1).tolist(), len(numbers)] if len(numbers) else [0]
        found = Found([], [])
        for start, stop in pairwise(cuts):
            if (stream := int(streams[start])) == _SHARED:
                places = [self._shared[number] for number in numbers[start:stop].tolist()]
                found.shared.extend(zip(labels[start:stop], places, strict=True))
            else:
                found.parts.append(Part(self._streams[stream], slots[start:stop], labels[start:stop]))
        return found

    def _places(self, number: int) -> Places:
        if self._stream_of[number] == _SHARED:
            return self._shared[number]
        return ((self._streams[int(self._stream_of[number])], int(self._slot_of[number])),)

    def _new(self, labels: Labels) -> int:
        if self._free:
            number = self._free.pop()
            self._labels[number] = labels
        else:
            number = len(self._labels)
            self._labels.append(labels)
        self._numbers[labels] = number
        return number

    def _make_room(self) -> None:
        """A place in the arrays for every number."""
        more = len(self._labels) - len(self._stream_of)
        if more > 0:
            spare = np.zeros(max(more, len(self._stream_of)), np.int32)
            self._stream_of = np.concatenate([self._stream_of, spare])
            self._slot_of = np.concatenate([self._slot_of, spare])

    def _post(self, labels: Labels, number: int) -> None:
        self._pairs += len(labels)
        for name, value in labels:
            postings = self._postings.get(name)
            if postings is None:
                postings = self._postings[name] = {}
            numbers = postings.get(value)
            if numbers is None:
                postings[value] = number
                self._values_held += 1
                self._text += len(value)
            else:
                postings[value] = joined(numbers, number)

    def _removed(self, stream: Stream, labels: Labels) -> int | None:
        """Take a stream from a series' places; its number when no other is left."""
        self._changed(labels)
        number = self._numbers[labels]
        left = tuple(place for place in self._places(number) if place[0] is not stream)
        if not left:
            return number
        if len(left) == 1:
            self._shared.pop(number, None)
            self._stream_of[number], self._slot_of[number] = left[0][0].number, left[0][1]
        else:
            self._shared[number] = left
        return None

    def _unpost(self, numbers: Sequence[int]) -> None:
        """Forget the series of these numbers."""
        gone: Bool = np.zeros(len(self._labels), np.bool_)
        pairs: set[tuple[str, str]] = set()
        for number in numbers:
            gone[number] = True
            labels = self._labels[number]
            assert labels is not None
            del self._numbers[labels]
            self._labels[number] = None
            self._pairs -= len(labels)
            pairs.update(labels)
        self._free += numbers
        for name, value in pairs:
            postings = self._postings[name]
            left = without(postings[value], gone)
            if left is not None:
                postings[value] = left
                continue
            del postings[value]
            self._values_held -= 1
            self._text -= len(value)
            if name == NAME:
                self._changes_of.pop(value, None)
            if not postings:
                del self._postings[name]

    def _changed(self, labels: Labels) -> None:
        self._changes += 1
        name = ""
        for key, value in labels:
            if key == NAME:
                name = value
                break
        self._changes_of[name] = self._changes
