"""label_replace and label_join."""

from __future__ import annotations

import pytest
from listed_series import Site, call, labels, steps, table, vector

from exporter.promql.model import QueryError
from exporter.storage.model import Labels

NOW = steps(1000)


def replaced(one: Labels, *arguments: str) -> Labels:
    (got,) = table(call("label_replace", NOW, vector({one: [1.0]}), *arguments))
    return got


X = labels(name="x", src="source-value-10")


@pytest.mark.parametrize(
    ("replacement", "pattern", "result"),
    [
        ("value-$1", "source-value-(.*)", "value-10"),
        ("${1}0", "source-value-(.*)", "100"),
        ("$10", "source-value-(.*)", None),  # there is no group 10
        ("$number.", "source-value-(?P<number>.*)", "10."),
        ("${number}", "source-value-(?P<number>.*)", "10"),
        ("$0", ".*", "source-value-10"),
        ("$$1", ".*", "$1"),
        ("$", ".*", "$"),
        ("${1", "(.*)", "${1"),
        ("$other", ".*", None),
        ("$01", "(.*)", None),  # Go takes it for a name
        ("$2", "(source)|(value)-.*|.*", None),  # a group that took no part
        ("a${1}b", "(.*?)-.*", "asourceb"),
        ("a$1b", "(.*?)-.*", "a"),  # there is no group of the name 1b
        ("plain", ".*", "plain"),
    ],
)
def test_the_target_becomes_the_replacement(replacement: str, pattern: str, result: str | None) -> None:
    assert dict(replaced(X, "dst", replacement, "src", pattern)).get("dst") == result


def test_the_pattern_must_match_the_whole_value() -> None:
    assert replaced(X, "dst", "$1", "src", "value-(.*)") == X
    assert replaced(X, "dst", "$1", "src", "source|value") == X


def test_a_point_matches_a_line_end_too() -> None:
    assert dict(replaced(labels(name="x", src="a\nb"), "dst", "new", "src", "a.b"))["dst"] == "new"


def test_a_label_that_is_not_there_is_empty() -> None:
    assert dict(replaced(X, "dst", "found", "missing", ""))["dst"] == "found"
    assert replaced(X, "dst", "found", "missing", ".+") == X


def test_an_empty_replacement_takes_the_label_away() -> None:
    assert replaced(X, "src", "", "src", ".*") == labels(name="x")


def test_the_name_stays_and_may_be_replaced() -> None:
    assert replaced(X, "__name__", "y", "src", ".*") == labels(name="y", src="source-value-10")


def test_any_text_but_the_empty_one_is_a_label_name() -> None:
    assert dict(replaced(X, "größe.%", "1", "src", ".*"))["größe.%"] == "1"
    with pytest.raises(QueryError, match=r"invalid destination label name in label_replace\(\): $"):
        replaced(X, "", "1", "src", ".*")


def test_a_broken_pattern_is_told() -> None:
    with pytest.raises(QueryError, match=r"invalid regular expression in label_replace\(\): \(\["):
        replaced(X, "dst", "1", "src", "([")
    with pytest.raises(QueryError, match="invalid regular expression"):
        replaced(X, "dst", "1", "src", "(?=look)ahead")


def test_labels_are_joined_in_the_order_given() -> None:
    given = vector({labels(name="x", a="1", b="2"): [1.0], labels(name="x", b="3"): [2.0]})
    got = table(call("label_join", NOW, given, "both", "-", "b", "a", "none"))
    assert got == {
        labels(name="x", a="1", b="2", both="2-1-"): [1.0],
        labels(name="x", b="3", both="3--"): [2.0],
    }


def test_labels_joined_to_nothing_are_taken_away() -> None:
    given = vector({labels(name="x", a="1"): [1.0]})
    assert table(call("label_join", NOW, given, "a", "", "none")) == {labels(name="x"): [1.0]}
    assert table(call("label_join", NOW, given, "a", ",")) == {labels(name="x"): [1.0]}


def test_a_joined_label_needs_names() -> None:
    given = vector({X: [1.0]})
    with pytest.raises(QueryError, match=r"invalid source label name in label_join\(\)"):
        call("label_join", NOW, given, "dst", "-", "")
    with pytest.raises(QueryError, match=r"invalid destination label name in label_join\(\)"):
        call("label_join", NOW, given, "", "-", "src")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("label_replace", ("dst", "$1", "src", "(.*)")), ("label_join", ("dst", "-", "src"))],
)
def test_labels_are_made_once_per_set_of_series(name: str, arguments: tuple[str, ...]) -> None:
    given = vector({X: [1.0]})
    site = Site(name)
    assert site(NOW, given, *arguments).labels is site(NOW, given, *arguments).labels
