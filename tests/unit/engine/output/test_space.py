"""Room on the disk that the engine's output goes to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from exporter.engine.output import space

MIB = 1 << 20
Disk = Callable[..., None]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    def pretend(*, free: int, total: int, inodes: int = 100) -> None:
        shown = SimpleNamespace(
            f_frsize=4096, f_blocks=total // 4096, f_bavail=free // 4096, f_bfree=free // 4096, f_files=1000, f_ffree=inodes
        )  # fmt: skip
        monkeypatch.setattr(os, "statvfs", lambda folder: shown)

    return pretend


@pytest.mark.parametrize(
    ("free", "total", "inodes", "full"),
    [
        (0, 2 * MIB, 100, True),
        (60 << 10, 2 * MIB, 100, True),
        (100 << 10, 2 * MIB, 100, False),
        (900 << 10, 100 << 30, 100, True),
        (2 * MIB, 100 << 30, 100, False),
        (50 << 30, 100 << 30, 0, True),
    ],
)
def test_a_disk_is_full_when_practically_nothing_can_be_written(
    disk: Disk, tmp_path: Path, free: int, total: int, inodes: int, full: bool
) -> None:
    disk(free=free, total=total, inodes=inodes)
    assert space.is_full(tmp_path) is full


def test_a_folder_that_is_not_there_is_not_full(tmp_path: Path) -> None:
    assert not space.is_full(tmp_path / "absent")
    assert space.free_bytes(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("limit", "free", "kept"),
    [
        (64 * MIB, 200 * MIB, 64 * MIB),
        (64 * MIB, 128 * MIB, 64 * MIB),
        (64 * MIB, 100 * MIB, 25 * MIB),
        (64 * MIB, 2 * MIB, MIB // 2),
        (64 * MIB, 0, space.LEAST_LIMIT),
    ],
)
def test_little_room_means_little_output_kept(limit: int, free: int, kept: int) -> None:
    assert space.output_limit(limit, free) == kept
