"""Series that come and go without end: what they take is counted, and given back."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest

from exporter.storage.head import Head, Layout
from exporter.storage.index import Index
from exporter.storage.model import Labels, Matcher
from exporter.storage.places import Places
from exporter.storage.retention import Retention

HOUR = 3_600_000


def one(name: str, number: int) -> Labels:
    return (("__name__", name), ("id", f"request-{number}"), ("instance", "a:1"), ("job", "j"))


def churn(head: Head, seconds: range, each: int = 400) -> None:
    """Every second other series, under names of which some are new, too, beside one that stays."""
    for t in seconds:
        fresh = [one(f"x{t % 7}_{t if i % 2 else 0}", t * each + i) for i in range(each)]
        head.stream("engine").append(1000 * t, Layout([one("stays", 0), *fresh]), np.arange(each + 1.0))
        head.relieve(1000 * t)
        head.select([Matcher("job", "=", "j")]).latest(np.array([1000 * t]), 300_000)
        head.select([Matcher("__name__", "=", f"x{t % 7}_0"), Matcher("id", "!=", str(t))])
        if t % 10 == 9:
            head.expire(1000 * t)
            head.unsaved()


def test_series_that_come_and_go_stay_within_the_limit_and_leave_nothing() -> None:
    limit = 4 << 20
    head = Head(retention=Retention(HOUR), memory_limit=limit)
    tracemalloc.start()
    try:
        churn(head, range(60))
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        churn(head, range(60, 240))
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    stats = head.stats()
    assert stats.bytes <= limit
    assert after < 1.5 * limit
    assert after - before < limit / 4, "it levels off"
    [kept] = head.select([Matcher("__name__", "=", "stays")]).samples(-1, HOUR)
    assert kept.times[-1] == 239_000
    assert stats.dropped["memory_limit"] == 240 * 401 - stats.samples


def test_what_ended_longest_ago_goes_first() -> None:
    head = Head(retention=Retention(HOUR), memory_limit=2 << 20)
    churn(head, range(20))
    left = {int(dict(labels)["id"].partition("-")[2]) for labels in head.series([], -1, HOUR)} - {0}
    assert max(left) == 20 * 400 - 1
    assert min(left) > 10 * 400


def test_live_series_alone_over_the_limit_keep_their_newest_rows_and_are_told_of_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    head = Head(retention=Retention(HOUR), memory_limit=100_000)
    layout = Layout([one("x", i) for i in range(1000)])
    for t in range(300):
        head.stream("s").append(1000 * t, layout, np.random.default_rng(t).random(1000))
        head.relieve(1000 * t)
    stats = head.stats()
    assert stats.series == 1000
    assert stats.bytes < 2_000_000
    assert head.select([Matcher("__name__", "=", "x")]).latest(np.array([299_000]), 1000).present.all()
    assert capsys.readouterr().out.count("memory_limit_too_small") == 1


def test_a_series_that_its_layout_still_names_comes_back_after_others_were_evicted() -> None:
    head = Head(retention=Retention(HOUR), memory_limit=200_000)
    layout = Layout([one("x", i) for i in range(500)])
    stream = head.stream("rule")
    stream.append(1000, layout, np.ones(500))
    stream.append(2000, layout, np.ones(500), np.arange(500) < 2)
    head.expire(2000)
    stream.append(3000, layout, np.ones(500))
    assert len(head.series([Matcher("__name__", "=", "x")], 2500, 3000)) == 500


def test_a_slot_is_not_used_again_while_somebody_still_reads_its_last_series() -> None:
    head = Head(retention=Retention(1000), memory_limit=1 << 24)
    stream = head.stream("s")
    stream.append(1000, Layout([one("old", 1)]), [1.0])
    reader = head.select([Matcher("__name__", "=", "old")])
    stream.append(2000, Layout([one("other", 1)]), [1.0])
    for t in range(20_000, 60_000, 1000):
        stream.append(t, Layout([one("other", 1)]), [1.0])
        head.expire(t)
    stream.append(60_000, Layout([one("new", 2), one("other", 1)]), [7.0, 1.0])
    assert not reader.latest(np.array([60_000]), 500).present.any()
    del reader
    head.expire(61_000)
    stream.append(62_000, Layout([one("newest", 3), one("other", 1)]), [8.0, 1.0])
    assert head.select([Matcher("__name__", "=", "newest")]).latest(np.array([62_000]), 500).values[0, 0] == 8


def test_the_remembered_selections_are_bounded_by_their_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.storage.head._SELECTED", 500)
    head = Head(retention=Retention(HOUR), memory_limit=1 << 24)
    head.stream("s").append(1000, Layout([one("x", i) for i in range(100)]), np.ones(100))
    for number in range(50):
        head.select([Matcher("__name__", "=", "x"), Matcher("id", "!=", str(number))])
    assert len(head._selections) == 5


def test_an_index_forgets_the_names_that_are_no_more() -> None:
    head = Head(retention=Retention(HOUR), memory_limit=1 << 20)
    index = Index()
    stream = head.stream("s")
    for number in range(100):
        index.add(stream, [one(f"n{number}", number)], [0])
        assert index.nbytes > 0
        index.remove(stream, [one(f"n{number}", number)])
    assert (index.nbytes, index._postings, index._changes_of) == (0, {}, {})


@pytest.mark.parametrize("spread", [1, 5, 100])
def test_places_are_found_however_far_apart_the_slots_lie(spread: int) -> None:
    random = np.random.default_rng(spread)
    slots = (random.permutation(300) * spread + 50).astype(np.int32)
    asked = np.arange(0, 300 * spread + 200, dtype=np.int32)
    known = {slot: place for place, slot in enumerate(slots.tolist())}
    assert Places(slots).find(asked).tolist() == [known.get(slot, -1) for slot in asked.tolist()]


def test_a_row_of_the_old_clock_that_comes_after_the_cut_makes_nothing_deaf() -> None:
    head = Head(retention=Retention(HOUR), memory_limit=1 << 24)
    layout = Layout([one("x", 0)])
    stream = head.stream("rule")
    for t in (100_000, 110_000):
        stream.append(t, layout, [1.0])
    head.truncate_after(49_999)
    stream.append(115_000, layout, [2.0])
    stream.append(50_000, layout, [3.0])
    stream.append(60_000, layout, [4.0])
    [group] = head.select([Matcher("__name__", "=", "x")]).samples(0, HOUR)
    assert (group.times.tolist(), group.values.tolist()) == ([50_000, 60_000], [[3.0, 4.0]])
    stream.append(55_000, layout, [5.0])
    assert head.stats().dropped == {
        "clock_step": 3,
        "duplicate": 0,
        "memory_limit": 0,
        "out_of_order": 1,
    }


def test_after_a_clock_step_a_row_out_of_order_is_refused_as_ever() -> None:
    head = Head(retention=Retention(HOUR), memory_limit=1 << 24)
    layout = Layout([one("x", 0)])
    stream = head.stream("engine")
    stream.append(200_000, layout, [1.0])
    head.truncate_after(49_999)
    stream.append(50_000, layout, [2.0])
    stream.append(60_000, layout, [3.0])
    stream.append(55_000, layout, [4.0])
    assert stream.last_ms == 60_000
    assert head.stats().dropped["out_of_order"] == 1
