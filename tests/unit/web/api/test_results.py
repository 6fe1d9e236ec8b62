from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from exporter.promql.model import Scalar, String, Vector
from exporter.web.api import results
from exporter.web.api.model import ApiError
from exporter.web.api.results import Line, Printed, in_order, print_instant, print_matrix, print_range

A = (("__name__", "up"), ("job", "a"))
B = (("__name__", "up"), ("job", 'b"\\\n✓'))


def read(printed: Printed) -> dict[str, Any]:
    found: dict[str, Any] = json.loads("".join(printed.pieces))
    return found


def spend(_samples: int) -> None:
    """A budget without end."""


def test_an_instant_vector() -> None:
    value = Vector((B, A), np.array([[1.5], [np.nan]]))
    assert read(print_instant(value, 1_435_781_451_781, limit=0, spend=spend)) == {
        "resultType": "vector",
        "result": [
            {"metric": {"__name__": "up", "job": 'b"\\\n✓'}, "value": [1435781451.781, "1.5"]},
            {"metric": {"__name__": "up", "job": "a"}, "value": [1435781451.781, "NaN"]},
        ],
    }


def test_an_instant_vector_leaves_out_what_is_absent() -> None:
    value = Vector((A, B), np.array([[1.0], [2.0]]), np.array([[False], [True]]))
    found = read(print_instant(value, 1000, limit=0, spend=spend))["result"]
    assert [one["value"] for one in found] == [[1, "2"]]
    empty = Vector((), np.empty((0, 1)))
    assert read(print_instant(empty, 1000, limit=0, spend=spend)) == {"resultType": "vector", "result": []}


def test_scalars_and_strings() -> None:
    assert "".join(print_instant(Scalar(np.array([1e21])), 1500, limit=0, spend=spend).pieces) == (
        '{"resultType":"scalar","result":[1.5,"1000000000000000000000"]}'
    )
    assert read(print_instant(String('a"b'), 1000, limit=0, spend=spend)) == {
        "resultType": "string",
        "result": [1, 'a"b'],
    }


def test_a_matrix_is_sorted_by_labels_and_has_no_empty_series() -> None:
    times = np.array([1000, 2000, 3500])
    value = Vector(
        (B, A, (("z", "z"),)),
        np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]),
        np.array([[True, True, True], [True, False, True], [False, False, False]]),
    )
    found = read(print_range(value, times, limit=0, spend=spend))
    assert found["resultType"] == "matrix"
    assert found["result"] == [
        {"metric": dict(A), "values": [[1, "4"], [3.5, "6"]]},
        {"metric": dict(B), "values": [[1, "1"], [2, "2"], [3.5, "3"]]},
    ]


def test_a_scalar_over_a_range_is_a_series_without_labels() -> None:
    found = read(print_range(Scalar(np.array([1.0, 2.0])), np.array([0, 1000]), limit=0, spend=spend))
    assert found == {"resultType": "matrix", "result": [{"metric": {}, "values": [[0, "1"], [1, "2"]]}]}


def test_long_series_are_printed_whole() -> None:
    times = np.arange(0, 11_001_000, 1000)
    values = np.linspace(0, 1, len(times))
    printed = print_matrix([Line(A, times, values), Line(B, times, values)], limit=0, spend=spend)
    for series in read(printed)["result"]:
        assert [t * 1000 for t, _ in series["values"]] == times.tolist()
        assert [float(text) for _, text in series["values"]] == values.tolist()


def test_a_limit_cuts_series_and_says_so() -> None:
    vector = Vector((A, B), np.array([[1.0], [2.0]]))
    printed = print_instant(vector, 0, limit=1, spend=spend)
    assert printed.truncated
    assert len(read(printed)["result"]) == 1
    assert not print_instant(vector, 0, limit=2, spend=spend).truncated
    lines = [Line(B, np.array([0]), np.array([1.0])), Line(A, np.array([0]), np.array([1.0]))]
    cut = print_matrix(lines, limit=1, spend=spend)
    assert cut.truncated
    assert read(cut)["result"][0]["metric"] == dict(A)


def test_an_answer_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "POINT_LIMIT", 5)
    line = Line(A, np.arange(3), np.zeros(3))
    print_matrix([line], limit=0, spend=spend)
    with pytest.raises(ApiError, match="6 samples, more than the 5"):
        print_matrix([line, line], limit=0, spend=spend)


def test_many_series_come_in_order_too() -> None:
    names = [(("n", str(number * 7919 % 10_007)),) for number in range(10_007)]
    assert in_order(names, lambda one: one) == sorted(names)
    assert in_order([], lambda one: one) == []


def test_the_budget_is_asked_before_each_series() -> None:
    asked: list[int] = []
    line = Line(A, np.arange(3), np.zeros(3))
    print_matrix([line] * 4, limit=0, spend=asked.append)
    assert len(asked) == 4
