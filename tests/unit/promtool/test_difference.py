"""Comparing what was expected with what came, and saying what differs."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from exporter.promtool.difference import (
    alert_differences,
    same_samples,
    same_value,
    sample_differences,
    shown_alerts,
    shown_labels,
    shown_samples,
    shown_value,
)

UP = (("__name__", "up"),)
DOWN = (("__name__", "down"), ("job", 'a"b'))


def test_values_are_equal_or_close_where_that_is_asked_for() -> None:
    assert same_value(3, 3, fuzzy=False)
    assert same_value(math.nan, math.nan, fuzzy=False)
    assert same_value(math.inf, math.inf, fuzzy=True)
    assert not same_value(0.1 + 0.2, 0.3, fuzzy=False)
    assert same_value(0.1 + 0.2, 0.3, fuzzy=True)
    assert same_value(1e9, 1e9 + 999, fuzzy=True)
    assert not same_value(1e9, 1e9 + 1010, fuzzy=True)
    assert not same_value(0, 1e-300, fuzzy=True)
    assert not same_value(math.inf, 1e308, fuzzy=True)
    assert not same_value(math.nan, 1, fuzzy=True)
    assert not same_value(math.inf, -math.inf, fuzzy=True)


def test_samples_differ_by_their_labels_values_and_number() -> None:
    assert same_samples([(UP, 1.0)], [(UP, 1.0)], fuzzy=False)
    assert not same_samples([(UP, 1.0)], [], fuzzy=False)
    assert not same_samples([(UP, 1.0)], [(DOWN, 1.0)], fuzzy=False)
    assert not same_samples([(UP, 1.0)], [(UP, 2.0)], fuzzy=False)


def test_numbers_and_labels_are_shown_as_promtool_shows_them() -> None:
    assert [shown_value(value) for value in (3.0, -0.5, 1234.5, 1e-7, 1e100, 0.1 + 0.2, math.nan, math.inf)] == [
        "3E+00", "-5E-01", "1.2345E+03", "1E-07", "1E+100", "3.0000000000000004E-01", "NaN", "+Inf",
    ]  # fmt: skip
    assert shown_labels(DOWN) == '{__name__="down", job="a\\"b"}'
    assert shown_labels((("my.label", "x"),)) == '{"my.label"="x"}'
    assert shown_samples([]) == "nil"
    assert (
        shown_samples([(UP, 1.0), (DOWN, 2.0)])
        == '{__name__="up"} 1E+00, {__name__="down", job="a\\"b"} 2E+00'
    )
    assert shown_alerts([], " ") == "[]"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_shown_number_is_the_number(value: float) -> None:
    assert float(shown_value(value)) == value


def test_each_sample_that_differs_has_a_line() -> None:
    assert list(sample_differences([(UP, 1.0)], [(UP, 2.0)], fuzzy=False)) == [
        '{__name__="up"}: expected 1.0, got 2.0'
    ]
    assert list(sample_differences([(UP, 1.0)], [(DOWN, 2.0)], fuzzy=False)) == [
        'missing: {__name__="up"} 1E+00',
        'unexpected: {__name__="down", job="a\\"b"} 2E+00',
    ]


def test_an_alert_with_other_words_is_told_apart_from_one_that_is_missing() -> None:
    name = ("alertname", "A")
    expected = [((name, ("host", "a")), (("summary", "x"),)), ((name, ("host", "c")), ())]
    got = [((name, ("host", "a")), (("summary", "y"),)), ((name, ("zone", "b")), ())]
    assert list(alert_differences(expected, got)) == [
        '{alertname="A", host="a"}: annotation summary: expected "x", got "y"',
        'missing: {alertname="A", host="c"}',
        'unexpected: {alertname="A", zone="b"}',
    ]


def test_an_alert_with_another_label_is_compared_with_the_most_alike() -> None:
    name, host = ("alertname", "A"), ("host", "a")
    assert list(alert_differences([((name, host, ("severity", "page")), ())], [((name, host), ())])) == [
        '{alertname="A", host="a"}: label severity: expected "page", got none'
    ]
