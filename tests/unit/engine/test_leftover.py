"""What an engine of an earlier run still has to do."""

from __future__ import annotations

import pytest

from exporter.engine.leftover import demand


def test_running_and_waiting_requests_of_all_ranks_are_demand() -> None:
    page = (
        b"# TYPE vllm:num_requests_running gauge\n"
        b'vllm:num_requests_running{engine="0",model_name="a} b"} 2.0\n'
        b'vllm:num_requests_running{engine="1"} 1.0\n'
        b'vllm:num_requests_waiting{engine="0"} 4.0\n'
        b'vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 4.0\n'
    )
    assert demand(page) == 7.0


def test_a_page_without_such_gauges_shows_no_request() -> None:
    assert demand(b"# HELP x y\nvllm:num_requests_waiting 0\nx 3\n") == 0.0


def test_a_value_that_is_no_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        demand(b"vllm:num_requests_waiting many\n")
