from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_of_rows import StoreOfRows, labels

from exporter.web.api import lookups
from exporter.web.api.model import ApiError
from exporter.web.api.parameters import Form
from exporter.web.api.selectors import matches, read_selectors

STORE = StoreOfRows(
    [1000, 2000],
    {
        labels("up", job="b", instance="1"): [1, 1],
        labels("up", job="a", instance="2"): [1, 0],
        labels("queue.length", job="a", 房间="七"): [3, 4],
    },
)


def form(**fields: Any) -> Form:
    return Form(
        urlencode({key.replace("match", "match[]"): value for key, value in fields.items()}, doseq=True)
    )


def series(**fields: Any) -> tuple[list[dict[str, str]], list[str]]:
    printed, warnings = lookups.series(STORE, form(**fields))
    return json.loads("".join(printed)), warnings


def test_series_are_label_sets() -> None:
    found, warnings = series(match='up{job="a"}')
    assert found == [{"__name__": "up", "instance": "2", "job": "a"}]
    assert warnings == []
    assert series(match='{__name__="queue.length"}')[0][0]["房间"] == "七"


def test_selectors_are_alternatives_and_each_series_comes_once() -> None:
    found, _ = series(match=["up", '{job="a"}', '{job=~"a|b"}'])
    assert len(found) == 3


def test_series_outside_the_time_asked_for_do_not_count() -> None:
    assert series(match="up", start="3", end="9")[0] == []
    assert len(series(match="up", start="2", end="2")[0]) == 2
    assert series(match="up", start="2.001")[0] == []


def test_a_limit_cuts_and_says_so() -> None:
    assert series(match="up", limit="1")[1] == ["results truncated due to limit"]
    assert len(series(match="up", limit="1")[0]) == 1
    assert series(match="up", limit="2")[1] == []
    assert lookups.label_names(STORE, form(limit="1")) == (["__name__"], ["results truncated due to limit"])


def test_label_names_and_values_of_all_series_or_of_some() -> None:
    assert lookups.label_names(STORE, form()) == (["__name__", "instance", "job", "房间"], [])
    assert lookups.label_names(STORE, form(match="up")) == (["__name__", "instance", "job"], [])
    assert lookups.label_values(STORE, "job", form()) == (["a", "b"], [])
    assert lookups.label_values(STORE, "job", form(match=['up{instance="1"}', "nothing"])) == (["b"], [])
    assert lookups.label_values(STORE, "__name__", form()) == (["queue.length", "up"], [])
    assert lookups.label_values(STORE, "U___623f__95f4_", form()) == (["七"], [])


def test_a_label_without_a_name_is_refused() -> None:
    for name in ("", "U__", "\ufffd"):
        with pytest.raises(ApiError, match="invalid label name"):
            lookups.label_values(STORE, name, form())


def test_series_want_a_selector() -> None:
    with pytest.raises(ApiError) as refused:
        series()
    assert str(refused.value) == "no match[] parameter provided"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "match[] must contain at least one non-empty matcher"),
        ('{__name__=~".*"}', "match[] must contain at least one non-empty matcher"),
        ("{ , }", "match[] must contain at least one non-empty matcher"),
        ("up[5m]", "1:1: parse error"),
        ("up offset 5m", "1:1: parse error"),
        ("sum(up)", "1:1: parse error"),
        ("-up", "1:1: parse error"),
        ("up or down", "1:1: parse error"),
        ("up @ 3", "1:1: parse error"),
        ("1", "1:1: parse error"),
        ("", "1:1: parse error"),
        ('{a=~"["}', "parse error: error parsing regexp"),
    ],
)
def test_what_is_no_selector_is_refused(text: str, message: str) -> None:
    with pytest.raises(ApiError) as refused:
        read_selectors([text])
    assert str(refused.value).startswith(message) or message in str(refused.value)
    assert refused.value.kind == "bad_data"


def test_selectors_are_read() -> None:
    (found,) = read_selectors([' up { job = "}\\"{" , a =~ `x.*` } '])
    assert [tuple(matcher) for matcher in found] == [
        ("__name__", "=", "up"),
        ("job", "=", '}"{'),
        ("a", "=~", "x.*"),
    ]
    assert read_selectors(["job:up:sum"])[0][0].value == "job:up:sum"
    (every,) = read_selectors(['{__name__!=""}'])
    assert matches({"__name__": "x"}, every)
    assert not matches({}, every)


def test_too_many_selectors_are_refused() -> None:
    with pytest.raises(ApiError, match="101 selectors"):
        read_selectors(["up"] * 101)


@given(st.text(max_size=40) | st.from_regex(r"[a-z]*\{[^}]*\}", fullmatch=True))
def test_any_text_is_a_selector_or_bad_data(text: str) -> None:
    try:
        read_selectors([text])
    except ApiError as error:
        assert error.kind == "bad_data"
