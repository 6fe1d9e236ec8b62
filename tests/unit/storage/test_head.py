"""Appending, selecting, keeping and forgetting: what the property tests do not say by name."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from exporter.storage.bits import STALE
from exporter.storage.head import Head, Layout
from exporter.storage.model import STALE_BITS, Labels, Matcher
from exporter.storage.retention import Retention

HOUR = 3_600_000
LIMIT = 1 << 28


def series(name: str, **labels: str) -> Labels:
    return tuple(sorted({"__name__": name, **labels}.items()))


def named(name: str) -> list[Matcher]:
    return [Matcher("__name__", "=", name)]


@pytest.fixture
def head() -> Head:
    return Head(retention=Retention(HOUR), memory_limit=LIMIT)


def latest(head: Head, name: str, t: int, lookback: int = 300_000) -> dict[Labels, float]:
    selection = head.select(named(name))
    found = selection.latest(np.array([t]), lookback)
    return {
        labels: float(value)
        for labels, value, there in zip(
            selection.labels, found.values[:, 0], found.present[:, 0], strict=True
        )
        if there
    }


def test_the_lookback_is_open_on_the_left_as_in_prometheus_3(head: Head) -> None:
    head.stream("s").append(1000, Layout([series("x")]), [1.0])
    assert latest(head, "x", 300_999) == {series("x"): 1.0}
    assert latest(head, "x", 301_000) == {}


def test_a_window_leaves_out_its_left_end_and_takes_in_its_right_one(head: Head) -> None:
    layout = Layout([series("x")])
    for t in (0, 10, 20):
        head.stream("s").append(t, layout, [float(t)])
    edges = head.select(named("x")).edges(np.array([0, 0, 5]), np.array([20, 19, 9]))
    assert edges.counts.tolist() == [[2, 1, 0]]
    assert edges.first[0, 0] == 10
    assert edges.last[0, 0] == 20


def test_a_series_that_is_missing_from_the_next_row_ends_there(head: Head) -> None:
    one, two = series("x", n="1"), series("x", n="2")
    stream = head.stream("s")
    stream.append(1, Layout([one, two]), [1.0, 2.0])
    stream.append(2, Layout([one]), [1.0])
    assert latest(head, "x", 1) == {one: 1.0, two: 2.0}
    assert latest(head, "x", 2) == {one: 1.0}
    stream.end(3)
    assert latest(head, "x", 3) == {}


def test_a_measured_nan_is_a_sample_and_the_stale_marker_is_none(head: Head) -> None:
    layout = Layout([series("x")])
    head.stream("s").append(1, layout, [float("nan")])
    assert len(latest(head, "x", 1)) == 1
    head.stream("s").append(2, layout, [STALE])
    assert latest(head, "x", 2) == {}
    [group] = head.select(named("x")).samples(0, 5)
    assert group.times.tolist() == [1]


def test_a_row_that_is_not_newer_is_refused_and_counted(head: Head) -> None:
    layout = Layout([series("x"), series("y")])
    stream = head.stream("s")
    stream.append(10, layout, [1.0, 2.0])
    stream.append(10, layout, [3.0, 4.0])
    stream.append(9, layout, [5.0, 6.0], np.array([True, False]))
    assert latest(head, "x", 10) == {series("x"): 1.0}
    assert head.stats().dropped == {"duplicate": 2, "out_of_order": 1, "clock_step": 0, "memory_limit": 0}


def test_a_row_that_does_not_fit_its_layout_is_an_error(head: Head) -> None:
    with pytest.raises(ValueError, match="1 values for 2 series"):
        head.stream("s").append(1, Layout([series("x"), series("y")]), [1.0])


def test_of_a_series_that_a_row_has_twice_the_first_counts(head: Head) -> None:
    layout = Layout([series("x"), series("y"), series("x")], [False, False, True])
    head.stream("s").append(1, layout, [1.0, 2.0, 3.0])
    assert latest(head, "x", 1) == {series("x"): 1.0}


def test_the_rise_of_a_counter_has_its_resets_taken_out_across_a_gap(head: Head) -> None:
    layout = Layout([series("x_total")], counters=True)
    stream = head.stream("s")
    for t, value in ((1, 5.0), (2, 9.0)):
        stream.append(t, layout, [value])
    stream.end(3)
    for t, value in ((7, 2.0), (8, 4.0)):
        stream.append(t, layout, [value])
    edges = head.select(named("x_total")).edges(np.array([0, 6]), np.array([8, 8]))
    assert edges.counts.tolist() == [[4, 2]]
    assert edges.rise.tolist() == [[4.0 + 4.0, 2.0]]


def test_a_selection_keeps_its_labels_object_until_its_own_series_change(head: Head) -> None:
    stream = head.stream("s")
    stream.append(1, Layout([series("x")]), [1.0])
    labels = head.select(named("x")).labels
    stream.append(2, Layout([series("x"), series("y")]), [1.0, 1.0])
    head.stream("other").append(2, Layout([series("z")]), [1.0])
    assert head.select(named("x")).labels is labels
    assert head.select([Matcher("__name__", "=~", "x|w.*")]).labels == labels
    stream.append(3, Layout([series("x"), series("x", n="1")]), [1.0, 1.0])
    assert head.select(named("x")).labels == [series("x"), series("x", n="1")]


def test_a_regular_selector_keeps_its_labels_object_when_only_others_came(head: Head) -> None:
    head.stream("s").append(1, Layout([series("x")]), [1.0])
    matchers = [Matcher("__name__", "=~", "x.*")]
    labels = head.select(matchers).labels
    head.stream("t").append(1, Layout([series("y")]), [1.0])
    assert head.select(matchers).labels is labels


@pytest.mark.parametrize(
    ("matchers", "expected"),
    [
        ([Matcher("n", "=", "1")], {"a1"}),
        ([Matcher("n", "=", "")], {"none"}),
        ([Matcher("n", "!=", "")], {"a1", "a2", "b1\n"}),
        ([Matcher("n", "!=", "1"), Matcher("__name__", "!=", "none")], {"a2", "b1\n"}),
        ([Matcher("v", "=~", "a.")], {"a1", "a2"}),
        ([Matcher("v", "=~", "a")], set()),
        ([Matcher("v", "=~", "b1.")], {"b1\n"}),
        ([Matcher("v", "=~", "a1|a2|zz")], {"a1", "a2"}),
        ([Matcher("v", "=~", "a1|")], {"a1", "none"}),
        ([Matcher("v", "!~", "a1|")], {"a2", "b1\n"}),
        ([Matcher("v", "!~", "a.*")], {"b1\n", "none"}),
        ([Matcher("v", "=~", ".*"), Matcher("n", "!~", "[12]")], {"b1\n", "none"}),
        ([Matcher("v", "=~", "(?i:A)1")], {"a1"}),
        ([Matcher("gone", "=", "x")], set()),
        ([Matcher("gone", "!=", "x"), Matcher("n", "=~", "1|3")], {"a1", "b1\n"}),
        ([], {"a1", "a2", "b1\n", "none"}),
    ],
)
def test_matchers_select_as_prometheus_does(head: Head, matchers: list[Matcher], expected: set[str]) -> None:
    """An absent label counts as the empty string, expressions are anchored, and a dot fits a line's end."""
    known = [
        series("m", n="1", v="a1"),
        series("m", n="2", v="a2"),
        series("m", n="3", v="b1\n"),
        series("none"),
    ]
    head.stream("s").append(1, Layout(known), [1.0] * 4)
    found = {dict(one).get("v", "none") for one in head.select(matchers).labels}
    assert found == expected


def test_a_bad_regular_expression_is_a_value_error_that_shows_it(head: Head) -> None:
    with pytest.raises(ValueError, match=r"bad regular expression 'a\('"):
        head.select([Matcher("x", "=~", "a(")])


def test_names_and_values_of_labels_are_those_of_series_with_samples_in_the_window(head: Head) -> None:
    stream = head.stream("s")
    stream.append(10, Layout([series("x", n="1"), series("y", m="2")]), [1.0, 1.0])
    stream.append(20, Layout([series("x", n="3")]), [1.0])
    assert head.label_names((), 0, 10) == ["__name__", "m", "n"]
    assert head.label_names((), 10, 20) == ["__name__", "n"]
    assert head.label_values("n", (), 0, 20) == ["1", "3"]
    assert head.label_values("n", named("x"), 10, 20) == ["3"]
    assert head.series(named("y"), 10, 20) == []


def test_a_series_in_two_streams_is_one_series(head: Head) -> None:
    layout = Layout([series("x")])
    head.stream("one").append(1, layout, [1.0])
    head.stream("two").append(2, layout, [2.0])
    assert latest(head, "x", 2) == {series("x"): 2.0}
    [group] = head.select(named("x")).samples(0, 5)
    assert group.times.tolist() == [1, 2]
    assert head.select(named("x")).edges(np.array([0]), np.array([5])).counts.tolist() == [[2]]


def test_a_forgotten_series_leaves_the_index_and_may_come_back() -> None:
    head = Head(retention=Retention(1000), memory_limit=LIMIT)
    stream = head.stream("s")
    stream.append(1, Layout([series("x")]), [1.0])
    stream.append(500, Layout([series("y")]), [1.0])
    head.expire(400_000)
    assert head.stats().series == 1  # the open rows still carry y, which may go on
    assert head.select(named("x")).labels == []
    stream.append(400_000, Layout([series("x")]), [2.0])
    assert latest(head, "x", 400_000) == {series("x"): 2.0}


def test_a_slot_is_not_given_away_while_a_query_may_still_know_it() -> None:
    head = Head(retention=Retention(1000), memory_limit=LIMIT, segment_rows=(1, 1))
    stream = head.stream("s")
    stream.append(1, Layout([series("x")]), [1.0])
    old = head.select(named("x"))
    stream.append(2, Layout([series("y")]), [7.0])
    head.expire(10_000)
    stream.append(10_000, Layout([series("y"), series("z")]), [7.0, 9.0])
    assert not old.latest(np.array([10_000]), 5000).present.any()


def test_what_a_rule_looks_back_to_is_kept_longer() -> None:
    retention = Retention(10_000, [(named("x"), 60_000)])
    head = Head(retention=retention, memory_limit=LIMIT, segment_rows=(4, 4))
    layout = Layout([series("x"), series("y")])
    for t in range(0, 100_000, 1000):
        head.stream("s").append(t, layout, [1.0, 2.0])
        head.expire(t)
    counts = {
        name: int(head.select(named(name)).edges(np.array([-1]), np.array([100_000])).counts[0, 0])
        for name in ("x", "y")
    }
    assert 60 <= counts["x"] <= 68
    assert 10 <= counts["y"] <= 14


def test_a_longer_retention_after_a_reload_holds_from_then_on() -> None:
    head = Head(retention=Retention(5_000), memory_limit=LIMIT, segment_rows=(2, 2))
    layout = Layout([series("x")])
    for t in range(0, 60_000, 1000):
        if t == 30_000:
            head.set_retention(Retention(5_000, [(named("x"), 20_000)]))
        head.stream("s").append(t, layout, [1.0])
        head.expire(t)
    [group] = head.select(named("x")).samples(-1, 60_000)
    assert 39_000 <= group.times[0] <= 40_000


def test_over_the_memory_limit_what_no_rule_reads_goes_first() -> None:
    retention = Retention(HOUR, [(named("read"), HOUR)])
    layout = Layout(
        [series("read", n=str(i)) for i in range(20)] + [series("plain", n=str(i)) for i in range(180)]
    )
    head = Head(retention=retention, memory_limit=600_000, segment_rows=(16, 16))
    random = np.random.default_rng(0)
    for t in range(1000):
        head.stream("s").append(t, layout, random.random(200))
        if t % 16 == 0:
            head.expire(t)
    stats = head.stats()
    counts = {
        name: head.select(named(name)).edges(np.array([-1]), np.array([1000])).counts
        for name in ("read", "plain")
    }
    assert stats.bytes <= 700_000
    assert (counts["read"] == 1000).all()
    assert (counts["plain"] < 600).all()
    assert stats.dropped["memory_limit"] == 200_000 - stats.samples
    assert len(latest(head, "plain", 999)) == 180


def test_when_that_is_not_enough_the_oldest_of_all_go_but_never_the_newest_rows() -> None:
    layout = Layout([series("read", n=str(i)) for i in range(200)])
    head = Head(
        retention=Retention(HOUR, [(named("read"), HOUR)]), memory_limit=100_000, segment_rows=(16, 16)
    )
    random = np.random.default_rng(0)
    for t in range(400):
        head.stream("s").append(t, layout, random.random(200))
        head.expire(t)
        assert len(latest(head, "read", t)) == 200
    assert head.stats().bytes <= 200_000
    assert head.stats().dropped["memory_limit"] == 80_000 - head.stats().samples


def test_after_a_clock_step_appending_goes_on_from_the_earlier_time(head: Head) -> None:
    layout = Layout([series("x")], counters=True)
    stream = head.stream("s")
    for t in (10, 20, 30, 40):
        stream.append(t, layout, [float(t)])
    head.truncate_after(25)
    stream.append(26, layout, [1.0])
    edges = head.select(named("x")).edges(np.array([0]), np.array([50]))
    assert (edges.counts[0, 0], edges.rise[0, 0]) == (3, 11.0)
    assert head.stats().dropped["clock_step"] == 2


# --- the archive's side


def test_rows_are_taken_to_the_archive_once_parted_by_how_long_they_are_kept() -> None:
    head = Head(retention=Retention(HOUR, [(named("x"), 2 * HOUR)]), memory_limit=LIMIT)
    layout = Layout([series("x"), series("y")], [True, False])
    stream = head.stream("s")
    stream.append(1, layout, [1.0, 10.0])
    stream.append(2, layout, [2.0, STALE])
    short, long = head.unsaved()
    assert (short.stream, short.keep, short.labels, short.counters) == ("s", HOUR, (series("y"),), (False,))
    assert (long.keep, long.labels, long.counters) == (2 * HOUR, (series("x"),), (True,))
    assert long.times.tolist() == [1, 2]
    assert long.values.tolist() == [[1.0, 2.0]]
    assert short.values.view(np.uint64)[0, 1] == STALE_BITS
    assert head.unsaved() == []
    stream.append(3, layout, [3.0, 30.0])
    again = head.unsaved()
    assert [one.times.tolist() for one in again] == [[3], [3]]
    assert again[0].labels is short.labels


def test_a_loaded_head_goes_on_where_the_old_one_was() -> None:
    old = Head(retention=Retention(HOUR, [(named("x_total"), 2 * HOUR)]), memory_limit=LIMIT)
    layout = Layout([series("x_total"), series("y")], [True, False])
    for t in range(100):
        old.stream("s").append(t, layout, [float(t % 30), 1.0])
    new = Head(retention=Retention(HOUR), memory_limit=LIMIT)
    for batch in old.unsaved():
        new.load(batch)
    window = np.array([-1]), np.array([200])
    assert (
        new.select(named("x_total")).edges(*window).rise == old.select(named("x_total")).edges(*window).rise
    )
    assert new.unsaved() == []
    new.stream("s").append(100, Layout([series("x_total")], True), [0.0])
    assert latest(new, "y", 100) == {}
    assert new.select(named("x_total")).edges(*window).counts == 101


def test_a_stream_that_was_appended_to_takes_no_loaded_rows(head: Head) -> None:
    other = Head(retention=Retention(HOUR), memory_limit=LIMIT)
    for one in (head, other):
        one.stream("s").append(1, Layout([series("x")]), [1.0])
    [batch] = other.unsaved()
    with pytest.raises(RuntimeError, match="before the first is appended"):
        head.load(batch)


def test_a_row_that_overtakes_the_loaded_ones_is_kept_and_they_are_not() -> None:
    old, new = (Head(retention=Retention(HOUR), memory_limit=LIMIT) for _ in range(2))
    old.stream("s").append(1, Layout([series("x")]), [1.0])
    stream = new.stream("s")
    for batch in old.unsaved():
        new.load(batch)
    stream.append(5, Layout([series("x")]), [5.0])
    [group] = new.select(named("x")).samples(0, 10)
    assert group.times.tolist() == [5]


# --- threads


@pytest.fixture
def eager_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switches")
def test_readers_see_whole_rows_while_a_writer_appends_and_old_ones_go() -> None:
    """Each row holds its own number in every series: whoever sees two numbers at one time, or a hole, has seen half a row."""
    head = Head(retention=Retention(200), memory_limit=LIMIT, segment_rows=(3, 8))
    layouts = [Layout([series("x", n=str(i)) for i in range(width)], True) for width in (3, 5, 9)]
    rows = 1500
    done = threading.Event()
    problems: list[str] = []

    def write() -> None:
        stream = head.stream("s")
        for t in range(1, rows + 1):
            layout = layouts[t * len(layouts) // (rows + 1)]
            stream.append(t, layout, [float(t)] * layout.width)
            if t % 10 == 0:
                head.expire(t)
        done.set()

    def read() -> None:
        while not done.is_set():
            selection = head.select(named("x"))
            now = np.array([rows])
            found = selection.latest(now, rows)
            there = found.present[:, 0]
            if len(set(found.values[there, 0].tolist())) > 1:
                problems.append(f"latest: {found}")
            edges = selection.edges(now - rows, now)
            some = edges.counts[:, 0] > 0
            if not (edges.rise[some, 0] == edges.counts[some, 0] - 1).all():
                problems.append(f"edges: {edges}")
            if not (edges.last[some, 0] == edges.last_time[some, 0]).all():
                problems.append(f"edges: {edges}")
            problems.extend(
                f"samples: {group}"
                for group in selection.samples(0, rows)
                if not (group.values == group.times).all() or not (np.diff(group.times) == 1).all()
            )

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        write()
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []
    assert latest(head, "x", rows) == {series("x", n=str(i)): float(rows) for i in range(9)}
