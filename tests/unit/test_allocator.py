"""glibc's malloc in a process of its own, before and after it was told to give memory back."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys

import pytest

from exporter.allocator import give_back

PROGRAM = """
import ctypes, json, os, sys, threading
from exporter.allocator import LARGE_BYTES, give_back

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info.argtypes = (ctypes.c_int, ctypes.c_void_p)
libc.fclose.argtypes = (ctypes.c_void_p,)

def arenas():
    reader, writer = os.pipe()
    file = libc.fdopen(writer, b"w")
    libc.malloc_info(0, file)
    libc.fclose(file)
    with open(reader) as text:
        return text.read().count("<heap nr=")

def allocate(barrier):
    kept = bytearray(10_000)
    barrier.wait()

def mapped_again():
    bytearray(4 * LARGE_BYTES)  # glibc learns from a block that is freed
    before = libc.mallinfo2().hblks
    kept = bytearray(2 * LARGE_BYTES)
    return libc.mallinfo2().hblks - before

done = give_back() if sys.argv[1] == "told" else False
barrier = threading.Barrier(5)
threads = [threading.Thread(target=allocate, args=(barrier,)) for _ in range(4)]
for thread in threads:
    thread.start()
barrier.wait()
for thread in threads:
    thread.join()
print(json.dumps({"done": done, "arenas": arenas(), "mapped": mapped_again()}))
"""


def has_glibc() -> bool:
    try:
        return hasattr(ctypes.CDLL(None), "mallinfo2")
    except OSError:
        return False


def found(how: str, **environ: str) -> dict[str, object]:
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environ)
    return json.loads(done.stdout)


@pytest.mark.skipif(not has_glibc(), reason="needs glibc 2.33")
def test_threads_share_one_arena_and_a_large_block_is_mapped_by_itself() -> None:
    assert found("told") == {"done": True, "arenas": 1, "mapped": 1}


@pytest.mark.skipif(not has_glibc(), reason="needs glibc 2.33")
def test_glibc_by_itself_gives_each_thread_an_arena_and_keeps_large_blocks() -> None:
    untold = found("untold")
    assert untold["arenas"] > 1  # else the test above shows nothing
    assert untold["mapped"] == 0


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_who_sets_malloc_up_in_the_environment_has_the_last_word(name: str) -> None:
    assert not give_back({name: "2"})


def test_another_libc_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutMallopt:
        def __init__(self, _name: object) -> None:
            pass

    monkeypatch.setattr(ctypes, "CDLL", WithoutMallopt)
    assert not give_back({})
