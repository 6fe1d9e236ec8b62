"""What the store says of itself."""

from __future__ import annotations

from exporter.exposition.block import Block
from exporter.storage.archive_stats import ArchiveStats
from exporter.storage.head import Head, Layout
from exporter.storage.metrics import DROPS, FAMILIES, StorageMetrics
from exporter.storage.retention import Retention


def page(block: Block) -> dict[str, float]:
    lines = block.render(openmetrics=False).decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}


def filled() -> Head:
    head = Head(retention=Retention(3_600_000), memory_limit=1 << 20)
    layout = Layout([(("__name__", "x"),), (("__name__", "y"),)])
    head.stream("s").append(5000, layout, [1.0, 2.0])
    head.stream("s").append(5000, layout, [1.0, 2.0])
    return head


def test_without_a_file_only_memory_is_told_of() -> None:
    block = Block()
    StorageMetrics(block).publish(filled().stats(), None)
    shown = page(block)
    assert shown["vllm_exporter_storage_series"] == 2
    assert shown["vllm_exporter_storage_samples"] == 2
    assert shown["vllm_exporter_storage_oldest_timestamp_seconds"] == 5
    assert shown["vllm_exporter_storage_retention_seconds"] == 3600
    assert shown["vllm_exporter_storage_memory_limit_bytes"] == 1 << 20
    assert 0 < shown["vllm_exporter_storage_bytes"] < 10_000
    dropped = "vllm_exporter_storage_samples_dropped_total"
    assert {reason: shown[f'{dropped}{{reason="{reason}"}}'] for reason in DROPS} == {
        "clock_step": 0,
        "duplicate": 2,
        "memory_limit": 0,
        "out_of_order": 0,
    }
    assert not any("flush" in name or "file" in name for name in shown)


def test_every_family_shows_once_there_is_a_file() -> None:
    block = Block()
    stats = ArchiveStats(flushes=3, failures={"other": 2}, last_flush=7.5, file_bytes=4096)
    StorageMetrics(block).publish(filled().stats(), stats)
    shown = page(block)
    assert {name.partition("{")[0] for name in shown} == {family.name for family in FAMILIES}
    assert shown["vllm_exporter_storage_flushes_total"] == 3
    assert shown['vllm_exporter_storage_flush_failures_total{reason="other"}'] == 2
    assert shown['vllm_exporter_storage_flush_failures_total{reason="locked"}'] == 0
    assert shown['vllm_exporter_storage_flush_failures_total{reason="full"}'] == 0
    assert shown["vllm_exporter_storage_last_flush_timestamp_seconds"] == 7.5


def test_an_empty_head_has_no_oldest_sample() -> None:
    block = Block()
    StorageMetrics(block).publish(Head(retention=Retention(1), memory_limit=1 << 20).stats(), None)
    assert "vllm_exporter_storage_oldest_timestamp_seconds" not in page(block)
