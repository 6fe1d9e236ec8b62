"""Every family that any part of the program declares, printed through a block and read by strict judges."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from exporter.docs import all_families
from exporter.exposition.block import Block


def one_series_of_each() -> Block:
    block = Block()
    for family in all_families():
        labels = [f'{label} "a,b}}\\ 🦙\n' for label in family.labels]
        if family.type == "histogram":
            block.histogram(family, (0.001, 0.5, 60.0, 1e6), *labels).observe(0.25)
        elif family.type == "info":
            block.info(family, *labels)
        else:
            (block.counter if family.type == "counter" else block.gauge)(family, *labels).set(1.5)
    return block


def test_names_are_declared_once_and_carry_our_prefixes() -> None:
    names = [family.name for family in all_families()]
    assert len(set(names)) == len(names) > 50
    assert [name for name in names if not name.startswith(("vllm_", "nvidia_gpu_"))] == []


def test_both_formats_are_read_by_prometheus_client() -> None:
    block = one_series_of_each()
    text = list(text_families(block.render(openmetrics=False).decode()))
    openmetrics = list(openmetrics_families(block.render(openmetrics=True).decode() + "# EOF\n"))
    assert len(text) == len(openmetrics) == len(all_families())
    assert [len(one.samples) for one in text] == [len(other.samples) for other in openmetrics]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_has_no_remark() -> None:
    page = one_series_of_each().render(openmetrics=False)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=page, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "", "")
