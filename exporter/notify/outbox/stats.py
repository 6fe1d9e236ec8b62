"""How the outbox's file does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """Counts are since the start of the process."""

    writes: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    """By reason: `slow`, or one of `exporter.storage.archive_file.REASONS`."""
    set_aside: Mapping[str, int] = field(default_factory=dict)
    """By reason: files that were renamed and begun anew."""
    file_bytes: int = 0
    problem: str | None = None
    """Why the last try failed; None while all is well."""
