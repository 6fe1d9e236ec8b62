"""What selectors, subqueries and operators give, as Prometheus 3 does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from plain_store import PlainSelection, PlainStore, budget, labels_of, number, table, text

from exporter import promql
from exporter.promql import Matrix, QueryError, Scalar, Vector
from exporter.promql.pieces import STEPS
from exporter.storage.model import Matcher

MINUTE = 60_000


def instant(store: PlainStore, expression: str, minute: float = 5) -> dict[str, float]:
    """The series by their text, in order."""
    found = table(promql.compile(expression).instant(store, int(minute * MINUTE), budget()))
    return {shown(labels): value for labels, value in found.items()}


def shown(labels: tuple[tuple[str, str], ...]) -> str:
    return ",".join(f"{name}={value}" for name, value in labels)


def values(store: PlainStore, expression: str, first: int, last: int) -> dict[str, list[float | None]]:
    """A range of whole minutes."""
    found = promql.compile(expression).range(store, first * MINUTE, last * MINUTE, MINUTE, budget())
    rows: dict[str, list[float | None]] = {}
    for step in range(last - first + 1):
        for labels, value in table(found, step).items():
            rows.setdefault(shown(labels), [None] * (last - first + 1))[step] = value
    return rows


def refusal(store: PlainStore, expression: str) -> str:
    with pytest.raises(QueryError) as refused:
        promql.compile(expression).instant(store, 5 * MINUTE, budget())
    assert refused.value.kind == "execution"
    return str(refused.value)


# --- selectors


def test_a_sample_counts_for_five_minutes_and_not_at_the_very_start_of_them():
    store = PlainStore("x 7")
    assert instant(store, "x", 0) == {"__name__=x": 7}
    assert instant(store, "x", 4.999) == {"__name__=x": 7}
    assert instant(store, "x", 5) == {}


def test_a_stale_series_is_gone_at_once():
    assert values(PlainStore("x 1 stale 3"), "x", 0, 2) == {"__name__=x": [1, None, 3]}


def test_offset_looks_back_and_a_negative_one_ahead():
    store = PlainStore("x 0+1x20")
    assert instant(store, "x offset 2m", 5) == {"__name__=x": 3}
    assert instant(store, "x offset -2m", 5) == {"__name__=x": 7}


def test_at_fixes_the_time_and_offset_counts_from_there():
    store = PlainStore("x 0+1x20")
    assert values(store, "x @ 120", 5, 7) == {"__name__=x": [2, 2, 2]}
    assert values(store, "x offset 1m @ end()", 5, 7) == {"__name__=x": [6, 6, 6]}
    assert values(store, "x @ start() offset 1m", 5, 7) == {"__name__=x": [4, 4, 4]}
    assert values(store, "x - x @ start()", 5, 7) == {"": [0, 1, 2]}


def test_a_fixed_time_may_lie_before_1970():
    store = PlainStore("x 1")
    assert instant(store, "x @ -1") == {}
    assert instant(store, "x @ -1 offset -1s") == {"__name__=x": 1}


def test_what_is_fixed_is_evaluated_once_for_all_steps(monkeypatch: pytest.MonkeyPatch):
    windows: list[int] = []
    plain = PlainSelection.edges

    def counted(self, lo, hi):
        windows.append(len(lo))
        return plain(self, lo, hi)

    monkeypatch.setattr(PlainSelection, "edges", counted)
    query = promql.compile("sum(rate(x[5m] @ 600)) + 1")
    query.range(PlainStore("x 0+1x90"), 0, (2 * STEPS + 5) * 1000, 1000, budget())
    assert windows == [1]


def test_timestamp_of_a_selector_is_when_the_sample_was_taken():
    store = PlainStore('x{a="1"} 1 2 3')
    assert instant(store, "timestamp(x)", 4) == {"a=1": 120}
    assert instant(store, "timestamp((x))", 4) == {"a=1": 120}
    assert instant(store, "timestamp(-x)", 4) == {"a=1": 240}


def test_a_bare_range_selector_gives_its_samples():
    store = PlainStore('x{a="2"} 0+1x9', 'x{a="1"} 5 stale 7', 'x{a="3"} 1')
    result = promql.compile("x[2m]").instant(store, 2 * MINUTE, budget())
    assert isinstance(result, Matrix)
    assert list(result.labels) == [labels_of('x{a="1"}'), labels_of('x{a="2"}')]
    assert [times.tolist() for times in result.times] == [[120_000], [60_000, 120_000]]
    assert [row.tolist() for row in result.values] == [[7], [1, 2]]


def test_a_bare_subquery_gives_its_points():
    result = promql.compile("(x * 2)[3m:2m] offset 1m").instant(PlainStore("x 0+1x9"), 6 * MINUTE, budget())
    assert isinstance(result, Matrix)
    assert result.times[0].tolist() == [240_000]
    assert result.values[0].tolist() == [8]


# --- subqueries


def test_a_subquery_is_aligned_to_multiples_of_its_step():
    store = PlainStore("x 0+1x60")
    assert instant(store, "sum_over_time(x[10m:3m])", 20) == {"": 12 + 15 + 18}
    assert instant(store, "sum_over_time(x[10m:3m])", 21) == {"": 12 + 15 + 18 + 21}
    assert instant(store, "sum_over_time(x[9m:3m])", 21) == {"": 15 + 18 + 21}


def test_a_subquery_without_a_step_has_the_step_that_is_given():
    store = PlainStore("x 0+1x60")
    assert table(promql.compile("count_over_time(x[10m:])").instant(store, 20 * MINUTE, budget())) == {(): 10}
    query = promql.compile("count_over_time(x[10m:])", subquery_step=15_000)
    assert table(query.instant(store, 20 * MINUTE, budget())) == {(): 40}


def test_subqueries_nest_and_have_offsets_and_fixed_times():
    store = PlainStore("x 0+60x60")
    assert instant(store, "max_over_time(rate(x[2m])[10m:1m])", 20) == {"": 1}
    assert instant(store, "max_over_time(sum_over_time(x[2m:1m])[3m:1m] offset 5m)", 20) == {
        "": 60 * (14 + 15)
    }
    assert values(store, "sum_over_time(x[2m:1m] @ 240)", 10, 11) == {"": [420, 420]}
    assert values(store, "sum_over_time((x @ end())[2m:1m])", 10, 11) == {"": [1320, 1320]}


def test_a_subquery_over_many_steps_reads_only_its_windows():
    store = PlainStore("x 0+1x600")
    query = promql.compile("sum_over_time(x[2m:1m])")
    found = query.range(store, 60 * MINUTE, 600 * MINUTE, 60 * MINUTE, budget(500))
    assert [table(found, step)[()] for step in range(10)] == [2 * minute - 1 for minute in range(60, 601, 60)]


def test_counters_that_fall_and_gaps_count_in_subqueries_as_they_do_in_the_store():
    store = PlainStore("x 1 2 _ _ 5 1 2 NaN 3 4", "y 0 1 stale _ 3 1")
    for function in ("increase", "delta", "resets", "changes", "irate", "last_over_time"):
        for name in ("x", "y"):
            # with a step as long as the samples' and a lookback shorter than it, both see the same
            direct = promql.compile(f"{function}({name}[8m])")
            nested = promql.compile(f"{function}({name}[8m:1m])")
            for minute in range(12):
                one, other = (
                    table(query.instant(store, minute * MINUTE, budget(), lookback=30_000))
                    for query in (direct, nested)
                )
                assert one.keys() == other.keys()
                assert np.allclose(list(one.values()), list(other.values()), equal_nan=True), (
                    function,
                    name,
                    minute,
                )


# --- operators


def test_arithmetic_is_gos():
    def result(expression: str) -> float:
        return number(promql.compile(expression).instant(PlainStore(), 0, budget()))

    assert result("-5 % 3") == -2
    assert result("5 % -3") == 2
    assert result("-2 ^ 2") == -4
    assert result("2 ^ 3 ^ 2") == 512
    assert math.isnan(result("(-8) ^ (1/3)"))
    assert math.isnan(result("5 % 0"))
    assert result("1 / 0") == math.inf
    assert result("-1 / 0") == -math.inf
    assert math.isnan(result("0 / 0"))
    assert result("1 atan2 -1") == pytest.approx(3 * math.pi / 4)
    assert result("NaN == bool NaN") == 0
    assert result("NaN != bool NaN") == 1


PAIR = PlainStore('a{x="1",y="1"} 10', 'a{x="2",y="2"} 20', 'b{x="1"} 1', 'b{x="2"} 2', 'b{x="3"} 3')


def test_one_to_one_matching_keeps_what_matched():
    assert instant(PAIR, "a + on(x) b", 0) == {"x=1": 11, "x=2": 22}
    assert instant(PAIR, "a + ignoring(y) b", 0) == {"x=1": 11, "x=2": 22}
    assert instant(PAIR, "a + b", 0) == {}
    assert instant(PAIR, "a > on(x) b * 10", 0) == {}
    assert instant(PAIR, "a >= on(x) b * 10", 0) == {"x=1": 10, "x=2": 20}
    assert instant(PAIR, "a > ignoring(y) b", 0) == {"__name__=a,x=1": 10, "__name__=a,x=2": 20}
    assert instant(PAIR, "a < bool ignoring(y) b", 0) == {"x=1": 0, "x=2": 0}


def test_many_to_one_matching_keeps_the_many_sides_labels_and_takes_some_of_the_other():
    store = PlainStore('a{x="1",y="1"} 10', 'a{x="1",y="2"} 20', 'i{x="1",v="new",y="0"} 2', 'i{x="2"} 1')
    assert instant(store, "a * on(x) group_left(v) i", 0) == {"v=new,x=1,y=1": 20, "v=new,x=1,y=2": 40}
    assert instant(store, "i * on(x) group_right(v) a", 0) == {"v=new,x=1,y=1": 20, "v=new,x=1,y=2": 40}
    assert instant(store, "i - on(x) group_right a", 0) == {"x=1,y=1": -8, "x=1,y=2": -18}
    assert instant(store, "a > on(x) group_left i", 0) == {"__name__=a,x=1,y=1": 10, "__name__=a,x=1,y=2": 20}
    assert instant(store, "i < on(x) group_right a", 0) == {"__name__=a,x=1,y=1": 2, "__name__=a,x=1,y=2": 2}


def test_matching_that_is_not_unique_is_refused_in_prometheus_words():
    store = PlainStore('a{x="1",y="1"} 1', 'a{x="1",y="2"} 2', 'b{x="1"} 3')
    assert refusal(PlainStore('a{x="1"} 1x9', 'b{x="1",y="2"} 1x9', 'b{x="1",y="1"} 1x9'), "a / on(x) b") == (
        'found duplicate series for the match group {x="1"} on the right hand-side of the operation: '
        '[{__name__="b", x="1", y="1"}, {__name__="b", x="1", y="2"}];'
        "many-to-many matching not allowed: matching labels must be unique on one side"
    )
    store = PlainStore('a{x="1",y="1"} 1x9', 'a{x="1",y="2"} 2x9', 'b{x="1"} 3x9')
    assert "on the left hand-side" in refusal(store, "a + on(x) group_right b")
    assert refusal(store, "a + on(x) b") == (
        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
    )
    store = PlainStore('a{x="1"} 1x9', 'c{x="1"} 2x9', 'b{x="1"} 3x9')
    assert refusal(store, '{__name__=~"a|c"} + on(x) group_left b') == (
        "multiple matches for labels: grouping labels must ensure unique matches"
    )
    assert refusal(store, '-{x="1"}') == "vector cannot contain metrics with the same labelset"


def test_duplicates_are_refused_only_at_steps_where_both_are_there():
    store = PlainStore('a{x="1"} 1x9', 'b{x="1",pid="1"} 1 1 stale', 'b{x="1",pid="2"} _ _ _ 5 5 5')
    assert values(store, "a + on(x) b", 0, 5) == {"x=1": [2, 2, None, 6, 6, 6]}
    store.load('b{x="1",pid="3"} _ _ _ _ 5 5')
    with pytest.raises(QueryError, match="found duplicate series"):
        values(store, "a + on(x) b", 0, 5)


def test_set_operators_look_at_labels_alone():
    store = PlainStore('a{x="1"} 1', 'a{x="2"} 2', 'b{x="2",y="1"} 3', 'b{x="3"} 4')
    assert instant(store, "a and on(x) b", 0) == {"__name__=a,x=2": 2}
    assert instant(store, "a unless on(x) b", 0) == {"__name__=a,x=1": 1}
    assert instant(store, "a or on(x) b", 0) == {
        "__name__=a,x=1": 1,
        "__name__=a,x=2": 2,
        "__name__=b,x=3": 4,
    }
    assert instant(store, "a and on() vector(1)", 0) == {"__name__=a,x=1": 1, "__name__=a,x=2": 2}
    assert instant(store, "nothing or vector(0)", 0) == {"": 0}


def test_or_takes_turns_step_by_step():
    store = PlainStore("a 1 stale 3", "b 7 8 9")
    assert values(store, "sum(a) or sum(b)", 0, 2) == {"": [1, 8, 3]}


# --- aggregators


def test_a_sum_of_terms_that_cancel_is_exact():
    store = PlainStore('x{a="1"} 1e100', 'x{a="2"} 1', 'x{a="3"} -1e100', 'x{a="4"} 0.1')
    assert instant(store, "sum(x)", 0) == {"": 1.1}
    assert instant(store, "avg(x)", 0) == {"": 1.1 / 4}


def test_an_average_of_numbers_too_large_to_sum_is_finite():
    store = PlainStore('x{a="1"} 1e308', 'x{a="2"} 1.5e308')
    assert instant(store, "avg(x)", 0) == {"": 1.25e308}
    assert instant(store, "sum(x)", 0) == {"": math.inf}


def test_the_deviation_of_equal_values_is_none_at_all():
    store = PlainStore(*(f'x{{a="{place}"}} 0.1' for place in range(3)))
    assert instant(store, "stddev(x)", 0) == {"": 0}


def test_min_and_max_pass_over_nan():
    store = PlainStore('x{a="1"} NaN', 'x{a="2"} 2', 'x{a="3"} 1', "y NaN")
    assert instant(store, "max(x)", 0) == {"": 2}
    assert instant(store, "min(x)", 0) == {"": 1}
    assert math.isnan(instant(store, "max(y)", 0)[""])


def test_by_and_without_name_the_groups():
    store = PlainStore('x{a="1",b="1"} 1', 'x{a="1",b="2"} 2', 'x{a="2"} 4')
    assert instant(store, "sum by (a) (x)", 0) == {"a=1": 3, "a=2": 4}
    assert instant(store, "sum without (a) (x)", 0) == {"b=1": 1, "b=2": 2, "": 4}
    assert instant(store, "count by (__name__) (x)", 0) == {"__name__=x": 3}
    assert instant(store, "sum(nothing)", 0) == {}


TOP = PlainStore('x{a="1"} 3', 'x{a="2"} NaN', 'x{a="3"} 5', 'x{a="4",b="1"} 1', 'x{a="5",b="1"} 2')


def test_topk_and_bottomk_come_in_order_and_nan_comes_last():
    assert list(instant(TOP, "topk(2, x)", 0).values()) == [5, 3]
    assert list(instant(TOP, "bottomk(2, x)", 0).values()) == [1, 2]
    assert list(instant(TOP, "topk(9, x)", 0))[-1] == "__name__=x,a=2"
    assert list(instant(TOP, "bottomk(9, x)", 0))[-1] == "__name__=x,a=2"
    assert instant(TOP, "topk by (b) (1, x)", 0) == {"__name__=x,a=3": 5, "__name__=x,a=5,b=1": 2}
    assert instant(TOP, "topk(0.9, x)", 0) == {}
    assert instant(TOP, "topk(-1, x)", 0) == {}


def test_topk_refuses_what_is_no_number_of_series():
    assert refusal(TOP, "topk(1e300, x)") == "Scalar value 1" + "0" * 300 + " overflows int64"
    assert refusal(
        TOP, "topk(scalar(x) + 1 or vector(NaN), x)".replace("scalar(x) + 1 or vector(NaN)", "1e19")
    ).endswith("overflows int64")
    query = promql.compile("topk(scalar(k), x)")
    store = PlainStore('x{a="1"} 1x9', "k 1 1 NaN")
    with pytest.raises(QueryError, match="Parameter value is NaN"):
        query.range(store, 0, 2 * MINUTE, MINUTE, budget())


def test_over_a_range_topk_chooses_at_each_step():
    store = PlainStore('x{a="1"} 1 5', 'x{a="2"} 2 4')
    assert values(store, "topk(1, x)", 0, 1) == {"__name__=x,a=1": [None, 5], "__name__=x,a=2": [2, None]}


def test_a_quantile_lies_between_neighbours():
    store = PlainStore('x{a="1"} 1', 'x{a="2"} 2', 'x{a="3"} 4', 'n{a="1"} NaN', 'n{a="2"} 1')
    assert instant(store, "quantile(0.75, x)", 0) == {"": 3}
    assert instant(store, "quantile(-1, x)", 0) == {"": -math.inf}
    assert instant(store, "quantile(1.1, x)", 0) == {"": math.inf}
    assert math.isnan(instant(store, "quantile(NaN, x)", 0)[""])
    assert instant(store, "quantile(1, n)", 0) == {"": 1}
    assert math.isnan(instant(store, "quantile(0, n)", 0)[""])


def test_count_values_writes_numbers_as_go_does():
    store = PlainStore(
        'x{a="1"} 1e21',
        'x{a="2"} 0.1',
        'x{a="3"} 0.1',
        'x{a="4"} Inf',
        'x{a="5"} NaN',
        'x{a="6"} -0',
        'x{a="7"} 1e-7',
    )
    assert instant(store, 'count_values("v", x)', 0) == {
        "v=1" + "0" * 21: 1,
        "v=0.1": 2,
        "v=+Inf": 1,
        "v=NaN": 1,
        "v=-0": 1,
        "v=0.0000001": 1,
    }
    assert instant(store, 'count_values without () ("a", x < 1)', 0) == {
        "a=0.1": 2,
        "a=-0": 1,
        "a=0.0000001": 1,
    }


# --- queries


def test_a_long_range_is_the_same_whichever_way_it_is_cut(monkeypatch: pytest.MonkeyPatch):
    store = PlainStore('x{a="1"} 0+1x30', 'x{a="2"} _ _ _ _ _ _ _ _ _ _ 0+2x5 stale', 'y{a="3"} 1 stale')
    for expression in (
        "topk(1, x)",
        "sum by (a) (rate(x[5m])) or y",
        "max_over_time(x[3m:1m])",
        "x * 2 > 10",
        "time()",
        "y",
    ):
        query = promql.compile(expression)
        whole = query.range(store, 0, 30 * MINUTE, MINUTE, budget())
        monkeypatch.setattr("exporter.promql.pieces.FEWEST", 1)
        monkeypatch.setattr("exporter.promql.pieces.CELLS", 7)
        parts = query.range(store, 0, 30 * MINUTE, MINUTE, budget())
        monkeypatch.undo()
        if isinstance(whole, Scalar):
            assert isinstance(parts, Scalar)
            assert parts.values.tolist() == whole.values.tolist()
            continue
        for step in range(31):
            assert table(parts, step) == table(whole, step)


def test_labels_stay_the_same_object_while_the_series_do():
    store = PlainStore('x{a="1"} 0+1x30', 'x{a="2"} 0+2x30', 'y{a="1"} 1x30', 'y{a="2"} 1x30')
    for expression in (
        "x",
        "-x",
        "x > 3",
        "sum by (a) (rate(x[5m]))",
        "x * on(a) y",
        "x * on(a) group_left y",
        "x or y",
        "x and y",
        "x unless y",
        "topk(1, x)",
        "quantile by (a) (0.5, x)",
        "abs(x)",
        "max_over_time(x[2m:1m])",
        "x == on(a) y",
        "histogram_quantile(0.9, x)",
        "absent(x)",
        "timestamp(x)",
        "vector(1)",
    ):
        query = promql.compile(expression)
        first, second = (query.instant(store, minute * MINUTE, budget()) for minute in (5, 6))
        assert isinstance(first, Vector)
        assert isinstance(second, Vector)
        assert first.labels is second.labels, expression


def test_a_new_series_is_seen_by_a_query_that_was_used_before():
    store = PlainStore('x{a="1"} 1x9')
    query = promql.compile("sum by (a) (x) + on(a) x")
    assert table(query.instant(store, 0, budget())) == {(("a", "1"),): 2}
    store.load('x{a="2"} 5x9')
    assert table(query.instant(store, 0, budget())) == {(("a", "1"),): 2, (("a", "2"),): 10}


def test_a_query_says_what_it_reads_and_how_far_back():
    def reads(expression: str) -> list[tuple[str, int, bool]]:
        return [
            (read.matchers[0].value, read.back_ms // 1000, read.fixed)
            for read in promql.compile(expression).reads
        ]

    assert promql.compile('x{a=~"1"}').reads[0].matchers == (
        Matcher("__name__", "=", "x"),
        Matcher("a", "=~", "1"),
    )
    assert reads("x") == [("x", 300, False)]
    assert reads("rate(x[1h]) + y offset 1m") == [("x", 3600, False), ("y", 360, False)]
    assert reads("x offset -10m") == [("x", 0, False)]
    assert reads("max_over_time(rate(x[5m] offset 1m)[1h:1m] offset 1d)") == [
        ("x", 86_400 + 3600 + 360, False)
    ]
    assert reads("x @ 100 offset 1m") == [("x", 360, True)]
    assert reads("x @ start()") == [("x", 300, False)]
    assert reads("sum_over_time(x[1h:] @ 100)") == [("x", 3900, True)]
    assert reads("sum_over_time((x @ end())[1h:] @ 100)") == [("x", 300, False)]
    assert reads("1 + time()") == []


def test_a_query_knows_its_kind():
    kinds = {
        "1": "scalar",
        '"a"': "string",
        "x": "vector",
        "x[5m]": "matrix",
        "(x)[5m:]": "matrix",
        "scalar(x)": "scalar",
    }
    assert {expression: promql.compile(expression).kind for expression in kinds} == kinds
    assert text(promql.compile('("a")').instant(PlainStore(), 0, budget())) == "a"


@pytest.mark.parametrize("expression", ["x[5m]", '"a"', "x[5m:]"])
def test_a_range_of_what_has_no_steps_is_refused(expression: str):
    with pytest.raises(QueryError, match="must be Scalar or instant Vector"):
        promql.compile(expression).range(PlainStore("x 1"), 0, MINUTE, MINUTE, budget())


@pytest.mark.parametrize(
    "expression",
    [
        "x",
        "rate(x[5m])",
        "x[5m]",
        "count_over_time(vector(1)[10y:1ms])",
        "x[10y:1s]",
        "sum_over_time(x[1000m:1s])",
        "x * on() x",
    ],
)
def test_what_costs_too_much_is_refused_before_it_is_done(expression: str):
    store = PlainStore(*(f'x{{a="{place}"}} 1x9' for place in range(20)))
    query = promql.compile(expression)
    with pytest.raises(QueryError, match="too many samples"):
        query.instant(store, 5 * MINUTE, budget(19))


def test_a_range_of_too_many_steps_is_refused_before_it_is_done():
    with pytest.raises(QueryError, match="too many samples"):
        promql.compile("1").range(PlainStore(), 0, 10**15, 1, budget(10**6))


def test_a_query_that_takes_too_long_ends():
    now = iter(range(100))
    late = promql.Budget(samples=10**9, timeout=3, clock=lambda: float(next(now)))
    with pytest.raises(QueryError) as refused:
        promql.compile("abs(abs(abs(abs(abs(x)))))").instant(PlainStore("x 1"), 0, late)
    assert refused.value.kind == "timeout"


def test_counting_values_over_many_steps_is_refused_before_it_fills_the_memory() -> None:
    store = PlainStore(*[f'x{{i="{i}"}} {i}+50x200' for i in range(50)])
    query = promql.compile('count_values("v", x)')
    assert isinstance(query.instant(store, 100 * MINUTE, budget(10_000)), Vector)
    with pytest.raises(QueryError, match="too many samples"):
        query.range(store, 0, 199 * MINUTE, MINUTE, budget(100_000))


def test_calls_within_calls_cannot_multiply_a_label_without_end() -> None:
    expression = "vector(1)"
    for level in range(8):
        source = "a" if level else ""
        expression = f'label_replace({expression}, "a", "{"${1}x" * 10}", "{source}", "(.*)")'
    with pytest.raises(QueryError, match="longer than 65536 characters"):
        promql.compile(expression).instant(PlainStore(), 0, budget())
    joined, names = "vector(1)", ", ".join(['"a"'] * 10)
    for _ in range(8):
        joined = f'label_join({joined}, "a", "x", {names})'
    with pytest.raises(QueryError, match="longer than 65536 characters"):
        promql.compile(joined).instant(PlainStore(), 0, budget())


def test_long_labels_of_many_series_cost_as_many_samples_as_they_take_room() -> None:
    store = PlainStore(*[f'x{{i="{i}"}} 1' for i in range(100)])
    expression = f'label_replace(x, "a", "{"y" * 1000}", "", "")'
    with pytest.raises(QueryError, match="too many samples"):
        promql.compile(expression).instant(store, 0, budget(10_000))
