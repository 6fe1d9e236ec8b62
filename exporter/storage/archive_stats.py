"""How the archive does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ArchiveStats:
    """Times: unix seconds; sizes: bytes. Counts are since the start of the process."""

    flushes: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    """By reason, of archive_file.REASONS: each write, load or compaction that did not come to its end."""
    set_aside: Mapping[str, int] = field(default_factory=dict)
    """By reason: files that were renamed and begun anew."""
    last_flush: float | None = None
    file_bytes: int = 0
    waiting_bytes: int = 0
    """Samples that wait for a file that can be written."""
    lost_samples: int = 0
    """Samples that never came to disk: too many were waiting, the file had too many series, or the archive was closed while it could not be written."""
    damaged_chunks: int = 0
    """Chunks that could not be read back."""
    problem: str | None = None
    """The reason for which the last try failed; None while all is well."""


def one_more(counts: Mapping[str, int], reason: str) -> Mapping[str, int]:
    """The counts with one more of a reason."""
    return {**counts, reason: counts.get(reason, 0) + 1}
