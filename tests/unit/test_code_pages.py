"""Pages of files in our own address space, before and after they were let go."""

from __future__ import annotations

import ctypes
import mmap
import re
import subprocess
import sys
from pathlib import Path

import pytest

from exporter import code_pages

PAGES = 64
SIZE = PAGES * mmap.PAGESIZE

pytestmark = pytest.mark.skipif(not code_pages.SMAPS.exists(), reason="needs Linux' /proc/self/smaps")

PROGRAM = """
import hashlib, pathlib, re, ssl, numpy
from exporter import code_pages

def resident():
    status = pathlib.Path("/proc/self/status").read_text()
    return [int(re.search(rf"Rss{kind}:\\s+(\\d+)", status)[1]) for kind in ("File", "Anon")]

def work():
    return hashlib.sha256(repr((numpy.arange(6.0) @ numpy.ones(6), ssl.OPENSSL_VERSION)).encode()).hexdigest()

before, told = resident(), work()
assert code_pages.let_go() > 0
after = resident()
assert work() == told
print(*before, *after)
"""


def address(mapping: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


def resident_kb(begin: int) -> int:
    smaps = code_pages.SMAPS.read_text()
    found = re.search(rf"^{begin:08x}-.*\n(?:[A-Z].*\n)*?Rss: +(\d+) kB", smaps, re.MULTILINE)
    assert found is not None
    return int(found[1])


def read_only(mapping: mmap.mmap) -> int:
    """Make a mapping one that nobody may write to, as a library's constants are; its address."""
    begin = address(mapping)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(begin), ctypes.c_size_t(SIZE), mmap.PROT_READ) == 0
    return begin


def mapped(path: Path) -> mmap.mmap:
    """A file in memory, each page touched, that changes for nobody else."""
    path.write_bytes(b"as it is in the file" * (SIZE // 20 + 1))
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_COPY)
    assert len(set(mapping[:: mmap.PAGESIZE])) > 1
    return mapping


@pytest.fixture
def mapping(tmp_path: Path) -> mmap.mmap:
    return mapped(tmp_path / "libconstants.so.1")


def test_pages_that_are_as_in_their_file_leave_memory_and_come_back(mapping: mmap.mmap) -> None:
    begin = read_only(mapping)
    assert resident_kb(begin) == SIZE // 1024
    assert code_pages.let_go() >= SIZE
    assert resident_kb(begin) == 0
    assert mapping[:20] == b"as it is in the file"


def test_a_mapping_that_somebody_wrote_into_stays_as_it_is(mapping: mmap.mmap) -> None:
    mapping[:5] = b"moved"  # as a loader does to what it relocates
    begin = read_only(mapping)
    code_pages.let_go()
    assert resident_kb(begin) == SIZE // 1024
    assert mapping[:20] == b"moved is in the file"


def test_what_is_just_being_loaded_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loader maps a library as a whole, and what it writes to then lies where the whole was."""
    begun: list[tuple[mmap.mmap, int]] = []

    def load(seconds: float) -> None:
        assert seconds >= 0.1
        mapping = mapped(tmp_path / "libnew.so")
        begun.append((mapping, read_only(mapping)))

    monkeypatch.setattr(code_pages.time, "sleep", load)
    assert code_pages.let_go() > 0
    assert resident_kb(begun[0][1]) == SIZE // 1024


def test_files_that_are_no_code_are_left_alone(tmp_path: Path) -> None:
    mapping = mapped(tmp_path / "data.bin")
    begin = read_only(mapping)
    code_pages.let_go()
    assert resident_kb(begin) == SIZE // 1024


def test_of_a_program_with_its_libraries_loaded_half_the_pages_of_files_go_and_no_other() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert not done.stderr
    file_before, anonymous_before, file_after, anonymous_after = map(int, done.stdout.split())
    assert file_after < file_before / 2
    assert anonymous_after >= anonymous_before


def test_without_smaps_nothing_happens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(code_pages, "SMAPS", tmp_path / "smaps")
    assert code_pages.let_go() == 0
