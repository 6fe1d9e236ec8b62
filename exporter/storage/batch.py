"""Rows on their way between the head and the archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from exporter.storage.model import Labels

if TYPE_CHECKING:
    from exporter.storage.model import F64, I64


class Batch(NamedTuple):
    """Rows of one stream and one retention class, in the order in which they were appended.

    `values` hold STALE_BITS where a series ended and ABSENT_BITS (bits.py) where it had no sample.
    """

    stream: str
    keep: int
    """How long the rows are kept, in milliseconds."""
    labels: Sequence[Labels]
    """The series; the same object in two batches as long as they are the same."""
    counters: Sequence[bool]
    times: I64  # [T], rising
    values: F64  # [n, T]
