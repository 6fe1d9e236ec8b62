from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import openmetrics
from prometheus_client.openmetrics import parser as _openmetrics_parser  # noqa: F401
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

from exporter.exposition.block import Block
from exporter.exposition.model import Family
from exporter.exposition.text import format_bound, format_value

UP = Family("vllm_exporter_engine_up", "gauge", "Whether the engine can serve.")
STATE = Family("vllm_exporter_engine_state", "gauge", "State.", ("state",))
RESTARTS = Family("vllm_exporter_engine_restarts_total", "counter", "Restarts.", ("reason",))
ENERGY = Family("nvidia_gpu_energy_joules_total", "counter", "Energy.", ("gpu",), unit="joules")
BUILD = Family("vllm_exporter_build_info", "info", "Version.", ("version",))
TTFT = Family("vllm_slo_ttft_seconds", "histogram", "TTFT.", ("model_name",), unit="seconds")


def openmetrics_families(page: bytes) -> list[object]:
    return list(openmetrics.parser.text_string_to_metric_families(page.decode() + "# EOF\n"))


def test_an_empty_block_prints_nothing() -> None:
    block = Block()
    block.gauge(UP)
    assert block.render(openmetrics=False) == b""
    assert block.version == 0


def test_a_gauge_shows_once_it_is_set_and_goes_when_it_is_none() -> None:
    block = Block()
    slot = block.gauge(STATE, "ready")
    slot.set(1)
    assert block.render(openmetrics=False) == (
        b"# HELP vllm_exporter_engine_state State.\n"
        b"# TYPE vllm_exporter_engine_state gauge\n"
        b'vllm_exporter_engine_state{state="ready"} 1\n'
    )
    slot.set(None)
    assert block.render(openmetrics=False) == b""


def test_the_version_rises_with_a_change_and_stands_still_without_one() -> None:
    block = Block()
    slot = block.gauge(UP)
    slot.set(2.0)
    before = block.version
    slot.set(2.0)
    slot.set(2)
    assert block.version == before
    slot.set(3)
    assert block.version > before


def test_asking_twice_gives_the_same_slot() -> None:
    block = Block()
    assert block.counter(RESTARTS, "crash") is block.counter(RESTARTS, "crash")
    assert block.counter(RESTARTS, "crash") is not block.counter(RESTARTS, "hang")
    assert block.histogram(TTFT, (0.1, 1.0), "m") is block.histogram(TTFT, (0.1, 1.0), "m")


def test_an_absent_counter_counts_from_zero() -> None:
    slot = Block().counter(RESTARTS, "crash")
    slot.inc()
    slot.inc(2)
    assert slot.value == 3


def test_a_counter_refuses_to_fall() -> None:
    with pytest.raises(ValueError, match="cannot fall"):
        Block().counter(RESTARTS, "crash").inc(-1)


def test_openmetrics_headers_lose_the_suffix_and_gain_the_unit() -> None:
    block = Block()
    block.counter(ENERGY, "0").set(1.5)
    block.info(BUILD, "1.2")
    assert block.render(openmetrics=True) == (
        b"# HELP nvidia_gpu_energy_joules Energy.\n"
        b"# TYPE nvidia_gpu_energy_joules counter\n"
        b"# UNIT nvidia_gpu_energy_joules joules\n"
        b'nvidia_gpu_energy_joules_total{gpu="0"} 1.5\n'
        b"# HELP vllm_exporter_build Version.\n"
        b"# TYPE vllm_exporter_build info\n"
        b'vllm_exporter_build_info{version="1.2"} 1\n'
    )
    assert b"# TYPE vllm_exporter_build_info gauge\n" in block.render(openmetrics=False)
    assert b"# UNIT" not in block.render(openmetrics=False)


def test_a_histogram_prints_cumulative_buckets_count_and_sum() -> None:
    block = Block()
    slot = block.histogram(TTFT, (0.1, 1.0), "100%")
    for value in (0.1, 0.5, 7.0, math.nan):
        slot.observe(value)
    lines = block.render(openmetrics=False).decode().splitlines()[2:]
    assert lines == [
        'vllm_slo_ttft_seconds_bucket{model_name="100%",le="0.1"} 1',
        'vllm_slo_ttft_seconds_bucket{model_name="100%",le="1.0"} 2',
        'vllm_slo_ttft_seconds_bucket{model_name="100%",le="+Inf"} 3',
        'vllm_slo_ttft_seconds_count{model_name="100%"} 3',
        'vllm_slo_ttft_seconds_sum{model_name="100%"} 7.6',
    ]


def test_a_loaded_histogram_prints_integral_floats_as_integers() -> None:
    block = Block()
    slot = block.histogram(TTFT, (0.1, 1.0), "m")
    slot.load([1.0, 2], 2.0, 1.0)
    assert block.render(openmetrics=False).decode().splitlines()[2:] == [
        'vllm_slo_ttft_seconds_bucket{model_name="m",le="0.1"} 1',
        'vllm_slo_ttft_seconds_bucket{model_name="m",le="1.0"} 2',
        'vllm_slo_ttft_seconds_bucket{model_name="m",le="+Inf"} 2',
        'vllm_slo_ttft_seconds_count{model_name="m"} 2',
        'vllm_slo_ttft_seconds_sum{model_name="m"} 1',
    ]
    with pytest.raises(ValueError, match="expected 2 counts"):
        slot.load([1], 2, 1.0)


def test_a_histogram_goes_on_from_its_saved_state() -> None:
    slot = Block().histogram(TTFT, (0.1, 1.0), "m")
    slot.observe(0.5)
    state = json.loads(json.dumps(slot.state()))
    block = Block()
    again = block.histogram(TTFT, (0.1, 1.0), "m")
    assert again.restore(state)
    again.observe(0.05)
    assert (again.count, again.total) == (2, 0.55)
    other = block.histogram(TTFT, (0.2, 1.0), "other bounds")
    assert not other.restore(state)
    assert other.count is None


def test_a_histogram_that_never_observed_stays_absent_over_a_restore() -> None:
    block = Block()
    slot = block.histogram(TTFT, (0.1,), "m")
    assert slot.restore(slot.state())
    assert block.render(openmetrics=False) == b""


def test_a_removed_series_is_gone_and_its_old_slot_is_mute() -> None:
    block = Block()
    one, two = block.gauge(STATE, "ready"), block.gauge(STATE, "loading")
    one.set(1)
    two.set(1)
    block.remove(one)
    one.set(5)
    page = block.render(openmetrics=False)
    assert b"ready" not in page
    assert b"loading" in page
    fresh = block.gauge(STATE, "ready")
    assert fresh is not one
    assert fresh.value is None
    block.clear(STATE)
    two.set(9)
    assert block.render(openmetrics=False) == b""
    block.clear(UP)


def test_a_family_that_does_not_fit_is_refused_at_once() -> None:
    block = Block()
    with pytest.raises(ValueError, match="_total"):
        block.counter(Family("bad", "counter", "x"))
    with pytest.raises(ValueError, match="_info"):
        block.info(Family("bad", "info", "x"))
    with pytest.raises(ValueError, match="labels"):
        block.gauge(STATE)
    with pytest.raises(ValueError, match="of type gauge"):
        block.counter(UP)
    with pytest.raises(ValueError, match="no metric name"):
        block.gauge(Family("a-b", "gauge", "x"))
    with pytest.raises(ValueError, match="cannot be"):
        block.gauge(Family("a", "gauge", "x", ("le",)))
    with pytest.raises(ValueError, match="rise"):
        block.histogram(TTFT, (1.0, 1.0), "m")
    with pytest.raises(ValueError, match="rise"):
        block.histogram(TTFT, (1.0, math.inf), "m")
    with pytest.raises(ValueError, match="declared twice"):
        block.gauge(UP)
        block.gauge(Family(UP.name, "gauge", "other words"))


@given(
    label=st.text(), help_text=st.text(st.characters(codec="utf-8", exclude_categories=("Zl", "Zp", "Cc")))
)
def test_any_label_and_help_reads_back_in_both_formats(label: str, help_text: str) -> None:
    family = Family("odd_names", "gauge", help_text, ("model_name",))
    block = Block()
    block.gauge(family, label).set(0.5)
    wanted = label.encode("utf-8", "replace").decode()
    (text,) = text_string_to_metric_families(block.render(openmetrics=False).decode())
    assert [(s.name, s.labels, s.value) for s in text.samples] == [("odd_names", {"model_name": wanted}, 0.5)]
    (om,) = openmetrics_families(block.render(openmetrics=True))
    assert om.samples == text.samples  # type: ignore[attr-defined]
    assert om.documentation == help_text.lstrip(" ")  # type: ignore[attr-defined]


def test_every_kind_of_family_passes_the_strict_openmetrics_parser() -> None:
    block = Block()
    block.gauge(UP).set(math.inf)
    block.counter(RESTARTS, 'a"b\\c\nd').inc()
    block.counter(ENERGY, "0").set(12.25)
    block.info(BUILD, "1")
    block.histogram(TTFT, (0.001, 1, 1e6, 2.5e7), "m").observe(0.2)
    families = openmetrics_families(block.render(openmetrics=True))
    assert [f.type for f in families] == ["gauge", "counter", "counter", "info", "histogram"]  # type: ignore[attr-defined]


@given(st.floats())
def test_a_printed_value_reads_back_the_same(value: float) -> None:
    again = float(format_value(value))
    assert again == value or (math.isnan(again) and math.isnan(value))


@given(st.floats(allow_nan=False))
def test_bounds_are_printed_as_prometheus_client_prints_them(value: float) -> None:
    if value >= 0:
        assert format_bound(value) == floatToGoString(value)
    assert float(format_bound(value)) == value


def test_columns_are_every_series_with_its_value_and_none_where_it_is_absent() -> None:
    block = Block()
    up = block.gauge(Family("x_up", "gauge", "Up."))
    seconds = block.histogram(Family("x_seconds", "histogram", "Time.", ("a",)), (0.5, 1.0), "b")
    series, values = block.columns()
    assert [one.name for one in series] == [
        "x_up",
        *["x_seconds_bucket"] * 3,
        "x_seconds_count",
        "x_seconds_sum",
    ]
    assert [one.label("le") for one in series] == ["", "0.5", "1.0", "+Inf", "", ""]
    assert values == [None] * 6
    up.set(1.0)
    seconds.observe(0.7)
    again, values = block.columns()
    assert again is series
    assert values == [1.0, 0, 1, 1, 1, 0.7]


def test_columns_have_another_list_of_series_when_a_slot_comes_or_goes() -> None:
    block = Block()
    family = Family("x_up", "gauge", "Up.", ("a",))
    one = block.gauge(family, "1")
    before, _ = block.columns()
    block.gauge(family, "2").set(2.0)
    more, values = block.columns()
    assert more is not before
    assert values == [None, 2.0]
    block.remove(one)
    assert block.columns()[1] == [2.0]
    block.clear(family)
    assert block.columns() == ((), [])
