"""Rows ↔ bytes, bit for bit: most series hardly change from one row to the next, so changes are what is stored.

A chunk is zlib over: the times as differences, one bit per series that says whether it changes at all, every series'
first value, and for those that change each value XORed with the one before, split into byte planes (all first bytes,
all second bytes, …), because the upper bytes are mostly zero then. The XOR is that of Facebook's Gorilla
(https://www.vldb.org/pvldb/vol8/p1816-teller.pdf); the planes are those of Blosc's shuffle.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from exporter.storage.model import Labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from exporter.storage.model import F64, I64

LEVEL = 1
"""zlib's fastest: a higher one takes four times as long for a tenth less."""


class ChunkError(Exception):
    """Bytes that are no chunk of this size."""


def encode(times: I64, values: F64) -> bytes:
    """The bytes of rows: times [T], values [n, T], T at least 1."""
    bits = np.ascontiguousarray(values, np.float64).view(np.uint64)
    n, _ = bits.shape
    first = bits[:, 0].copy()
    changes = bits[:, 1:] ^ bits[:, :-1]
    moving = changes.any(axis=1)
    packer = zlib.compressobj(LEVEL)
    parts = (
        np.diff(times, prepend=0).astype("<i8").tobytes(),
        np.packbits(moving).tobytes(),
        _planes(first),
        _planes(changes if moving.all() else changes[moving]) if n else b"",
    )
    return b"".join([*map(packer.compress, parts), packer.flush()])


def decode(data: bytes, n: int, rows: int) -> tuple[I64, F64]:
    """Times [rows] and values [n, rows].

    Raises:
        ChunkError: these are not the bytes of so many rows and series.
    """
    try:
        plain = np.frombuffer(zlib.decompress(data), np.uint8)
    except (zlib.error, TypeError, MemoryError) as error:
        raise ChunkError(str(error)) from error
    mask_bytes = (n + 7) // 8
    head = 8 * rows + mask_bytes
    if rows < 1 or plain.size < head + 8 * n:
        raise ChunkError("too short")
    times = np.cumsum(plain[: 8 * rows].view("<i8"), dtype=np.int64)
    if not (times[1:] > times[:-1]).all():
        raise ChunkError("its times do not rise")
    moving = np.unpackbits(plain[8 * rows : head], count=n).astype(np.bool_)
    first = _from_planes(plain[head : head + 8 * n], n)
    moved = int(moving.sum())
    rest = plain[head + 8 * n :]
    if rest.size != 8 * moved * (rows - 1):
        raise ChunkError("too short or too long")
    bits = np.empty((n, rows), np.uint64)
    if moved == n:
        bits[:, 0] = first
        bits[:, 1:] = _from_planes(rest, n * (rows - 1)).reshape(n, rows - 1)
        np.bitwise_xor.accumulate(bits, axis=1, out=bits)
    else:
        bits[:] = first[:, None]
        if moved:
            moves = np.empty((moved, rows), np.uint64)
            moves[:, 0] = first[moving]
            moves[:, 1:] = _from_planes(rest, moved * (rows - 1)).reshape(moved, rows - 1)
            bits[moving] = np.bitwise_xor.accumulate(moves, axis=1, out=moves)
    return times, bits.view(np.float64)


def _planes(bits: NDArray[np.uint64]) -> bytes:
    return bits.astype("<u8", copy=False).reshape(-1).view(np.uint8).reshape(-1, 8).T.tobytes()


def _from_planes(plain: NDArray[np.uint8], count: int) -> NDArray[np.uint64]:
    octets = np.ascontiguousarray(plain.reshape(8, count).T)
    return octets.reshape(-1).view("<u8").astype(np.uint64, copy=False)


def encode_labels(labels: Labels) -> str:
    """A label set as a JSON object; ASCII, so that what is no proper Unicode survives too."""
    return json.dumps(dict(labels), separators=(",", ":"))


def decode_labels(texts: Sequence[str]) -> list[Labels]:
    """The label sets of many texts; equal strings are one object, as most label values occur again and again.

    Raises:
        ChunkError: a text is no label set.
    """
    seen: dict[str, str] = {}
    one = seen.setdefault

    def pairs(found: dict[str, str]) -> Labels:
        return tuple([(one(name, name), one(value, value)) for name, value in found.items()])

    try:
        found = [pairs(one) for one in json.loads(f"[{','.join(texts)}]")]
        if len(found) != len(texts) or not all(isinstance(text, str) for text in seen):
            raise ValueError("not one set of strings each")
        return found
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ChunkError(f"labels: {error}") from error
