"""The index of series: what it finds beside a plain search through all of them, and what it takes for each."""

from __future__ import annotations

import random
import tracemalloc
from array import array
from itertools import count

import numpy as np
import pytest

from exporter.storage.head import Head
from exporter.storage.index import Found, Index
from exporter.storage.matching import condition_of
from exporter.storage.model import Labels, Matcher
from exporter.storage.postings import Numbers, gathered, joined, without
from exporter.storage.retention import Retention
from exporter.storage.stream import Stream

MATCHERS: tuple[list[Matcher], ...] = (
    [],
    [Matcher("__name__", "=", "a")],
    [Matcher("__name__", "=", "nothing")],
    [Matcher("job", "=", "j"), Matcher("id", "=~", "1.*")],
    [Matcher("job", "=", "j"), Matcher("id", "!=", "7"), Matcher("few", "=", "3")],
    [Matcher("few", "=~", "1|2|"), Matcher("__name__", "!=", "a")],
    [Matcher("few", "!~", "[0-4]")],
    [Matcher("few", "=", ""), Matcher("id", "!~", ".*9")],
)


def streams(*names: str) -> list[Stream]:
    head = Head(retention=Retention(1000), memory_limit=1 << 24)
    return [head.stream(name) for name in names]


def series(number: int) -> Labels:
    few = (("few", str(number % 8)),) if number % 3 else ()
    return (("__name__", "ab"[number % 2]), *few, ("id", str(number)), ("job", "j"))


def told(found: Found) -> dict[Labels, set[tuple[str, int]]]:
    """Where each series stands, by the names of its streams."""
    alone = {
        labels: {(part.stream.name, int(slot))}
        for part in found.parts
        for labels, slot in zip(part.labels, part.slots, strict=True)
    }
    return alone | {
        labels: {(stream.name, slot) for stream, slot in places} for labels, places in found.shared
    }


def test_series_of_several_streams_that_come_and_go_are_found_as_by_a_search_through_all() -> None:
    chance = random.Random(3)
    index, both = Index(), streams("one", "two")
    held: dict[Labels, set[tuple[str, int]]] = {}
    fresh = count()
    for _ in range(60):
        stream = chance.choice(both)
        here = {
            labels: dict(places)[stream.name]
            for labels, places in held.items()
            if stream.name in dict(places)
        }
        some = [labels for labels in map(series, chance.sample(range(200), 60)) if labels not in here]
        slots = [next(fresh) for _ in some]
        index.add(stream, some, slots)
        for labels, slot in zip(some, slots, strict=True):
            held.setdefault(labels, set()).add((stream.name, slot))
        gone = chance.sample(sorted(here), len(here) * 2 // 3)
        index.remove(stream, gone)
        for labels in gone:
            held[labels] = {place for place in held[labels] if place[0] != stream.name}
            if not held[labels]:
                del held[labels]
        assert len(index) == len(held)
        for matchers in MATCHERS:
            conditions = [(one.name, condition_of(one)) for one in matchers]
            expected = {
                labels: places
                for labels, places in held.items()
                if all(condition.matches(dict(labels).get(name, "")) for name, condition in conditions)
            }
            found = index.find(matchers)
            assert told(found) == expected
            assert all((np.diff(part.slots) > 0).all() for part in found.parts)
        for stream in both:
            asked = [series(number) for number in range(200)]
            expected_slots = [dict(held.get(labels, ())).get(stream.name, -1) for labels in asked]
            assert index.slots(stream, asked).tolist() == expected_slots
    for stream in both:
        index.remove(stream, [labels for labels, places in held.items() if stream.name in dict(places)])
    assert (len(index), index.nbytes, index._postings, index._shared) == (0, 0, {}, {})


@pytest.mark.parametrize("size", [1, 2, 16, 17, 400])
def test_numbers_are_one_a_few_or_many_and_shrink_again(size: int) -> None:
    numbers: Numbers = 0
    for number in range(1, size):
        numbers = joined(numbers, number)
    assert sorted(gathered([numbers, 1000])) == [*range(size), 1000]
    for left in (size, 17, 16, 2, 1):
        gone = np.arange(size) >= left
        less = without(numbers, gone)
        assert less is not None
        assert sorted(gathered([less])) == list(range(min(left, size)))
        assert isinstance(less, array) == (min(left, size) > 16)
    assert without(numbers, np.ones(size, np.bool_)) is None


def test_a_series_takes_few_bytes_besides_its_labels() -> None:
    [stream] = streams("one")
    target = (("instance", "a:1"), ("job", "j"))
    labels: list[Labels] = [(("__name__", "x"), ("id", str(number)), *target) for number in range(10_000)]
    index = Index()
    tracemalloc.start()
    try:
        index.add(stream, labels, range(len(labels)))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 250 * len(labels)
    assert index.nbytes > taken
