from __future__ import annotations

import gc
import os
import re
import sys

import prometheus_client
import pytest

from exporter import process_metrics
from exporter.exposition.block import Block
from exporter.process_metrics import FAMILIES, LAG_WINDOW_SECONDS, Lag, ProcessMetrics


def published() -> dict[str, float]:
    block = Block()
    ProcessMetrics(block, lag=Lag(0.0)).publish(now=0.0)
    lines = [line for line in block.render(openmetrics=False).decode().splitlines() if line[0] != "#"]
    return {series: float(value) for series, _, value in (line.rpartition(" ") for line in lines)}


def test_the_values_are_this_processs_own() -> None:
    values = published()
    peer = {
        sample.name: sample.value
        for metric in prometheus_client.ProcessCollector(registry=None).collect()
        for sample in metric.samples
    }
    for name, tolerance in (
        ("cpu_seconds_total", 0.5),
        ("resident_memory_bytes", 50e6),
        ("virtual_memory_bytes", 500e6),
        ("open_fds", 3),
        ("max_fds", 0),
        ("start_time_seconds", 1.5),
    ):
        ours = values[f"vllm_exporter_process_{name}"]
        assert ours == pytest.approx(peer[f"process_{name}"], abs=tolerance), name
    assert values["vllm_exporter_process_threads"] >= 1
    assert (
        values['vllm_exporter_python_gc_collections_total{generation="2"}']
        <= gc.get_stats()[2]["collections"]
    )


def test_the_build_is_named() -> None:
    (build,) = [series for series in published() if series.startswith("vllm_exporter_build_info")]
    assert f'python="{".".join(map(str, sys.version_info[:3]))}"' in build
    assert re.search(r'version="\d+\.\d+', build)


def test_every_declared_family_is_shown_and_no_other() -> None:
    shown = {series.partition("{")[0] for series in published()}
    assert shown == {family.name for family in FAMILIES}


def test_what_cannot_be_read_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_kwargs: object) -> int:
        raise PermissionError

    monkeypatch.setattr(process_metrics.os, "open", refuse)
    monkeypatch.setattr(process_metrics.os, "stat", refuse)
    values = published()
    assert "vllm_exporter_process_resident_memory_bytes" not in values
    assert "vllm_exporter_process_open_fds" not in values
    assert "vllm_exporter_process_cpu_seconds_total" in values


def test_open_descriptors_are_counted_exactly() -> None:
    before = published()["vllm_exporter_process_open_fds"]
    read, write = os.pipe()
    try:
        assert published()["vllm_exporter_process_open_fds"] == before + 2
    finally:
        os.close(read)
        os.close(write)


def test_the_largest_lag_is_remembered_for_a_window_and_then_forgotten() -> None:
    lag = Lag(0.0)
    lag.note(0.7, now=1.0)
    lag.note(0.001, now=LAG_WINDOW_SECONDS + 1)
    assert lag.last == 0.001
    assert lag.largest == 0.7
    lag.note(-0.5, now=2 * LAG_WINDOW_SECONDS + 2)
    assert lag.last == 0.0
    assert lag.largest == 0.001
