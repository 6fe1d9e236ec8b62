"""Matchers: both notations, what they fit, and how they are printed."""

from __future__ import annotations

import contextlib
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.notify.matchers import (
    LONGEST,
    MatcherError,
    fits,
    matches,
    ordered,
    parse_matcher,
    parse_matchers,
    show,
    show_all,
)
from exporter.storage.model import Matcher


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("{}", []),
        ('{a="b", c=~"d"}', [("a", "=", "b"), ("c", "=~", "d")]),
        ("a=b", [("a", "=", "b")]),
        ("{a!=b,}", [("a", "!=", "b")]),
        (" a !~ b ", [("a", "!~", "b")]),
        ('a="x,y"', [("a", "=", "x,y")]),
        ('a=""', [("a", "=", "")]),
        ("a=", [("a", "=", "")]),
        ('模型="通义千问"', [("模型", "=", "通义千问")]),
        ('"with space"="b"', [("with space", "=", "b")]),
        (r'"a.b"="\u00e9\t"', [("a.b", "=", "é\t")]),
        (r'a="say \"hi\"\n"', [("a", "=", 'say "hi"\n')]),
    ],
)
def test_matchers_are_read_in_both_notations(text: str, expected: list[tuple[str, str, str]]):
    assert [tuple(one) for one in parse_matchers(text)] == expected


def test_where_the_notations_disagree_the_classic_one_counts_as_in_alertmanager():
    assert parse_matchers(r'a="\d+"') == (Matcher("a", "=", r"\d+"),)
    assert parse_matchers(r'a="\x41"') == (Matcher("a", "=", r"\x41"),)
    assert parse_matchers("a=b c") == (Matcher("a", "=", "b c"),)
    assert parse_matchers("a==b") == (Matcher("a", "=", "=b"),)


@pytest.mark.parametrize(
    "text",
    ["a", "=b", "a=b,,", '{"a b"="c"', '"a b"="c"}', 'a="b', 'a="b"c', 'a=~"["', '"a b"=\'c\'', 'a="\ud800"', 'é="\\q"'],
)  # fmt: skip
def test_what_is_no_matcher_is_refused(text: str):
    with pytest.raises(MatcherError):
        parse_matchers(text)


def test_the_message_says_where_and_what_was_expected():
    with pytest.raises(MatcherError, match=r"column 2: expected one of = != =~ !~, found the end"):
        parse_matchers("a")
    with pytest.raises(MatcherError, match=r"bad regular expression \[a: missing"):
        parse_matchers("a=~[a")


def test_a_filter_is_one_matcher_without_braces_and_its_commas_are_its_own():
    assert parse_matcher("a=b,c") == Matcher("a", "=", "b,c")
    assert parse_matcher('名="b"') == Matcher("名", "=", "b")
    for text in ("{a=b}", "", '名="b",a="c"'):
        with pytest.raises(MatcherError):
            parse_matcher(text)


def test_an_absent_label_counts_as_empty():
    labels = (("a", "b"),)
    assert matches(parse_matchers('c=""'), labels)
    assert matches(parse_matchers('c!="x"'), labels)
    assert matches(parse_matchers('c=~".*"'), labels)
    assert not matches(parse_matchers('c=~".+"'), labels)
    assert not matches(parse_matchers('a=""'), labels)
    assert matches((), labels)


def test_all_matchers_must_fit():
    values = {"alertname": "VLLMEngineDown", "severity": "critical"}
    assert fits(parse_matchers('alertname=~"VLLM.*",severity="critical"'), values)
    assert not fits(parse_matchers('alertname=~"VLLM.*",severity!="critical"'), values)


def test_regular_expressions_are_anchored_and_their_dot_is_no_line_feed():
    assert not matches(parse_matchers('a=~"b"'), (("a", "abc"),))
    assert not matches(parse_matchers('a=~"b|c"'), (("a", "bx"),))
    assert matches(parse_matchers('a!~"b"'), (("a", "abc"),))
    assert not matches(parse_matchers('a=~"b.c"'), (("a", "b\nc"),))
    assert matches(parse_matchers('a=~"(?s)b.c"'), (("a", "b\nc"),))
    assert matches(parse_matchers('a=~".问"'), (("a", "千问"),))


def test_printed_as_alertmanager_prints():
    assert show(Matcher("a", "=~", 'x"\\\n')) == 'a=~"x\\"\\\\\\n"'
    assert show(Matcher("模型", "!=", "千问")) == '模型!="千问"'
    assert show(Matcher("with space", "=", "tab\t")) == '"with space"="tab\\t"'
    assert show_all(parse_matchers("b=1,a!~2")) == '{b="1",a!~"2"}'
    assert show_all(()) == "{}"


def test_ordered_by_name_value_and_operator():
    mixed = parse_matchers('b="1",a=~"2",a="2",a!="1"')
    assert show_all(ordered(mixed)) == '{a!="1",a="2",a=~"2",b="1"}'


@pytest.mark.parametrize(
    "text",
    ['a="' + " " * 60_000 + "x", "a=" + " " * 30_000 + "x" + " " * 30_000 + "x", "a" + " " * 60_000 + "="],
)
@pytest.mark.parametrize("parse", [parse_matcher, parse_matchers])
def test_a_text_of_blanks_takes_no_time(parse: Callable[[str], object], text: str):
    began = time.process_time()
    with contextlib.suppress(MatcherError):
        parse(text)
    assert time.process_time() - began < 1.0  # it took seven seconds once


@pytest.mark.parametrize("parse", [parse_matcher, parse_matchers])
def test_a_text_has_its_limit(parse: Callable[[str], object]):
    parse("a=" + "x" * (LONGEST - 2))
    with pytest.raises(MatcherError, match="longer than 65536 characters: a=xxx"):
        parse("a=" + "x" * (LONGEST - 1))


def test_long_values_are_judged_and_not_remembered():
    matchers = parse_matchers('long=~"x+"')
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(500):
            assert fits(matchers, {"long": "x" * (20_000 + number)})
            assert not fits(matchers, {"long": "x" * (20_000 + number) + "y"})
        assert tracemalloc.get_traced_memory()[0] - before < 1_000_000
    finally:
        tracemalloc.stop()


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.sampled_from(["=", "!="]), texts
        )
    )
)
def test_what_is_printed_is_read_back(given: list[tuple[str, str, str]]):
    matchers = tuple(Matcher(*one) for one in given)  # type: ignore[arg-type]
    assert parse_matchers(show_all(matchers)) == matchers
