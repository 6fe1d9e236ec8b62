"""Code that only the start ran leaves resident memory again.

A third of what is resident after the start are pages of files: the interpreter and the libraries, as far as loading them,
the settings and the rules has touched them, and what the kernel maps around each page besides. Most of it does not run
again. Nothing is lost: a page that is needed once more comes back from the page cache, with 15 others around it, in a
microsecond or so. The kernel would do the same when memory is short; this says beforehand what can go.

| MB resident | all pages | let go at the start |
|---|---|---|
| 15 s after the start | 92 | 75 |
| after three rounds of `bench.gateway` | 107 | 90 |

Letting go takes 8 ms of a thread. What runs from then on comes back within seconds, 5 of the 22 MB, in a few hundred faults.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
import time
from pathlib import Path

SMAPS = Path("/proc/self/smaps")
SETTLED_SECONDS = 0.1
"""A library that another thread is just loading does not look the same for so long: it is mapped as a whole first, and what it
writes to only then, where the whole was."""

_UNTOUCHED = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) r-[x-]p (\S+ \S+ \d+) +/\S*(?:\.so|/python)[^/ ]*\n"  # of code, and not to be written
    rb"(?:[A-Z].*\n)*?Anonymous: +0 kB\n(?:[A-Z].*\n)*?Swap: +0 kB\n",  # nor has it been: no page is a copy of ours
    re.MULTILINE,
)


def let_go() -> int:
    """Take them out of resident memory, which takes `SETTLED_SECONDS`; how many bytes of mappings that were, resident or not.

    Loaders write into some (relocations), and debuggers and probes may: those stay. 0 where the system has no `smaps`.
    """
    if sys.platform != "linux":
        return 0
    try:
        madvise = ctypes.CDLL(None).madvise
        before = set(_UNTOUCHED.findall(SMAPS.read_bytes()))
        time.sleep(SETTLED_SECONDS)
        settled = before.intersection(_UNTOUCHED.findall(SMAPS.read_bytes()))
    except (OSError, AttributeError):
        return 0
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    size = 0
    for start, end, _ in settled:
        begin, length = int(start, 16), int(end, 16) - int(start, 16)
        if madvise(begin, length, mmap.MADV_DONTNEED) == 0:
            size += length
    return size
