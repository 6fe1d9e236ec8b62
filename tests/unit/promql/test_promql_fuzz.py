"""No text makes the compiler or the evaluator raise anything but QueryError."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_promql import expressions
from plain_store import PlainStore, budget

from exporter import promql
from exporter.promql import Matrix, QueryError, Scalar, String, Vector
from exporter.promql.functions import FUNCTIONS

STORE = PlainStore(
    'a{x="1"} 1 2 3 NaN 5 stale _ 8 9',
    'a{x="2",y="1"} 0+1x20',
    'b{x="1"} 5-1x20',
    'b{y="1"} Inf -Inf 3 3 3 3',
    'c_bucket{le="1"} 0+1x20',
    'c_bucket{le="+Inf"} 0+3x20',
)
SETTINGS = settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
WORDS = [
    "a",
    "b",
    "c_bucket",
    "x",
    "y",
    "le",
    "1",
    "2",
    "0.5",
    "5m",
    "1h",
    "1_0",
    "0x1",
    "1e3",
    "NaN",
    "Inf",
    "(",
    ")",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "@",
    "=",
    "!=",
    "=~",
    "!~",
    "==",
    ">",
    "<",
    ">=",
    "<=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "and",
    "or",
    "unless",
    "atan2",
    "bool",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "by",
    "without",
    "offset",
    "start",
    "end",
    "sum",
    "avg",
    "topk",
    "quantile",
    "count_values",
    "stddev",
    '"a"',
    '"(.*)"',
    "''",
    "`x`",
    '"$1"',
    "#",
    "\n",
    "[5m]",
    "[5m:1m]",
    '{x="1"}',
    "rate(",
    "sum(",
    "time()",
    "limitk",
    "fill",
    "anchored",
]
NAMES = sorted(FUNCTIONS)


def run(expression: str) -> None:
    try:
        query = promql.compile(expression)
        for result in (
            query.instant(STORE, 540_000, budget(100_000)),
            query.range(STORE, 0, 900_000, 150_000, budget(100_000))
            if query.kind in ("vector", "scalar")
            else None,
        ):
            assert result is None or isinstance(result, Vector | Scalar | String | Matrix)
            if isinstance(result, Vector):
                assert result.values.shape[0] == len(result.labels) == len(set(result.labels))
                assert result.values.dtype == np.float64
                assert result.present is None or result.present.shape == result.values.shape
    except QueryError as error:
        assert str(error)
        assert error.position is None or 0 <= error.position <= len(expression)


@SETTINGS
@given(st.text(max_size=60))
def test_any_text_is_a_query_or_a_query_error(text: str):
    run(text)


@SETTINGS
@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join))
def test_any_words_are_a_query_or_a_query_error(text: str):
    run(text)


@SETTINGS
@given(
    expressions(3),
    st.integers(0, 400),
    st.sampled_from(["", ")", "(", "[5m]", '"', "{", " by (x)", "=", "0"]),
)
def test_a_broken_expression_is_a_query_or_a_query_error(whole, place: int, junk: str):
    text = whole.text
    place %= len(text) + 1
    run(text[:place] + junk + text[place + len(junk) % 3 :])


@SETTINGS
@given(
    st.sampled_from(NAMES),
    st.lists(
        st.sampled_from(
            [
                "a",
                "b",
                "c_bucket",
                "a[5m]",
                "b[3m:1m]",
                "-1",
                "0",
                "1",
                "0.5",
                "NaN",
                "time()",
                '"x"',
                '"y"',
                '"(.*)"',
                '"$1"',
                '"%"',
            ]
        ),
        max_size=5,
    ),
)
def test_any_function_of_anything_is_a_query_or_a_query_error(name: str, arguments: list[str]):
    run(f"{name}({', '.join(arguments)})")
