"""What a request is called in the log, at the engine and to its client, where the client has not named it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from secrets import token_hex
from typing import Final

ID_LIMIT: Final = 200
"""Longest `X-Request-Id` of a client that is taken over for the log."""


def id_line(name: bytes) -> bytes:
    """The line of a head that tells it."""
    return b"X-Request-Id: %b\r\n" % name


def _random_ids() -> Iterator[list[tuple[str, bytes]]]:
    """128 random bits each, in hexadecimal, and its line; some dozens at a time, for the price of one call of the kernel."""
    while True:
        block = token_hex(16 * 64)
        names = [block[start : start + 32] for start in range(0, len(block), 32)]
        yield [(name, id_line(name.encode())) for name in names]


ids: Final = chain.from_iterable(_random_ids())
