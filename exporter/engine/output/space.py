"""How much room a folder's file system has: for the output that must not fill it, and for the cause of an end."""

from __future__ import annotations

import os
from pathlib import Path

LEAST_LIMIT = 256 << 10
"""Bytes of output that are kept even on a full disk."""


def free_bytes(folder: Path) -> tuple[int, int] | None:
    """What this user may still write there, and the size of the whole; None when nobody knows."""
    try:
        stat = os.statvfs(folder)
    except OSError:
        return None
    if stat.f_files and not stat.f_ffree:
        return 0, stat.f_blocks * stat.f_frsize
    blocks = stat.f_bavail if os.geteuid() else stat.f_bfree
    return blocks * stat.f_frsize, stat.f_blocks * stat.f_frsize


def is_full(folder: Path) -> bool:
    """Whether practically nothing can be written there: less than 2 % and 1 MiB is free, or less than 64 KiB."""
    space = free_bytes(folder)
    return space is not None and bool(space[1]) and space[0] < max(64 << 10, min(1 << 20, space[1] // 50))


def output_limit(limit: int, free: int) -> int:
    """The bytes of output to keep: `limit`, and a quarter of what is free where that is less than twice the limit.

    Output that is kept and output that is not read yet share the room, so a quarter leaves both some.
    """
    return limit if free >= 2 * limit else max(min(LEAST_LIMIT, limit), min(limit, free // 4))
