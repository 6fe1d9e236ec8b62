"""The families that tell how the store goes, and what fills them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from exporter.exposition.block import Block
from exporter.exposition.model import Family

if TYPE_CHECKING:
    from exporter.storage.archive_stats import ArchiveStats
    from exporter.storage.head import HeadStats

SERIES = Family("vllm_exporter_storage_series", "gauge", "Series in memory.")
SAMPLES = Family("vllm_exporter_storage_samples", "gauge", "Samples in memory.")
BYTES = Family(
    "vllm_exporter_storage_bytes", "gauge", "Memory that the samples in memory take.", unit="bytes"
)
MEMORY_LIMIT = Family(
    "vllm_exporter_storage_memory_limit_bytes",
    "gauge",
    "Memory beyond which the oldest samples are dropped.",
    unit="bytes",
)
OLDEST = Family(
    "vllm_exporter_storage_oldest_timestamp_seconds",
    "gauge",
    "The time of the oldest sample in memory, in seconds since 1970.",
    unit="seconds",
)
RETENTION = Family(
    "vllm_exporter_storage_retention_seconds",
    "gauge",
    "How long every series is kept; what a rule looks back to is kept for longer.",
    unit="seconds",
)
DROPPED = Family(
    "vllm_exporter_storage_samples_dropped_total",
    "counter",
    "Samples that were not taken in, or dropped before their time, by reason.",
    ("reason",),
)
FLUSHES = Family("vllm_exporter_storage_flushes_total", "counter", "Writes of samples to the file.")
FLUSH_FAILURES = Family(
    "vllm_exporter_storage_flush_failures_total",
    "counter",
    "Writes, loads and tidyings of the sample file that failed, by reason.",
    ("reason",),
)
LAST_FLUSH = Family(
    "vllm_exporter_storage_last_flush_timestamp_seconds",
    "gauge",
    "When samples were last written to the file, in seconds since 1970.",
    unit="seconds",
)
SET_ASIDE = Family(
    "vllm_exporter_storage_files_set_aside_total",
    "counter",
    "Sample files that could not be read and were begun anew, by reason.",
    ("reason",),
)
FILE_BYTES = Family(
    "vllm_exporter_storage_file_bytes", "gauge", "Size of the sample file on disk.", unit="bytes"
)
WAITING_BYTES = Family(
    "vllm_exporter_storage_waiting_bytes",
    "gauge",
    "Samples that wait in memory for a file that can be written.",
    unit="bytes",
)
LOST = Family(
    "vllm_exporter_storage_samples_lost_total",
    "counter",
    "Samples that were never written to the file, because too many were waiting or the daemon ended.",
)
DAMAGED = Family(
    "vllm_exporter_storage_chunks_damaged_total",
    "counter",
    "Parts of the sample file that could not be read back.",
)

FAMILIES = (
    SERIES,
    SAMPLES,
    BYTES,
    MEMORY_LIMIT,
    OLDEST,
    RETENTION,
    DROPPED,
    FLUSHES,
    FLUSH_FAILURES,
    LAST_FLUSH,
    SET_ASIDE,
    FILE_BYTES,
    WAITING_BYTES,
    LOST,
    DAMAGED,
)

DROPS = ("clock_step", "duplicate", "memory_limit", "out_of_order")
"""Every value of the `reason` label of `vllm_exporter_storage_samples_dropped_total`."""


class StorageMetrics:
    """Shows the head and its file; what has no file shows nothing about it. Event loop only."""

    def __init__(self, block: Block) -> None:
        self._block = block
        _count(block, DROPPED, {}, DROPS)

    def publish(self, head: HeadStats, archive: ArchiveStats | None) -> None:
        """Write the families."""
        block = self._block
        block.gauge(SERIES).set(head.series)
        block.gauge(SAMPLES).set(head.samples)
        block.gauge(BYTES).set(head.bytes)
        block.gauge(MEMORY_LIMIT).set(head.memory_limit)
        block.gauge(OLDEST).set(None if head.oldest_ms is None else head.oldest_ms / 1000)
        block.gauge(RETENTION).set(head.retention_ms / 1000)
        _count(block, DROPPED, head.dropped, DROPS)
        if archive is None:
            return
        block.counter(FLUSHES).set(archive.flushes)
        _count(block, FLUSH_FAILURES, archive.failures, ("full", "io", "locked", "read_only"))
        block.gauge(LAST_FLUSH).set(archive.last_flush)
        _count(block, SET_ASIDE, archive.set_aside, ("corrupt", "version"))
        block.gauge(FILE_BYTES).set(archive.file_bytes)
        block.gauge(WAITING_BYTES).set(archive.waiting_bytes)
        block.counter(LOST).set(archive.lost_samples)
        block.counter(DAMAGED).set(archive.damaged_chunks)


def _count(block: Block, family: Family, counts: Mapping[str, int], always: Iterable[str]) -> None:
    """One counter by reason; those that are usual show from the start, so that their rise is seen."""
    for reason in {**dict.fromkeys(always, 0), **counts}:
        block.counter(family, reason).set(counts.get(reason, 0))
