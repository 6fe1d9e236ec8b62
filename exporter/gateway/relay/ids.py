"""What a request is called in the log, at the engine and to its client, where the client has not named it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from secrets import token_hex
from typing import Final

ID_LIMIT: Final = 200
"""Longest `X-Request-Id` of a client that is taken over for the log."""


def _random_ids() -> Iterator[list[str]]:
    """128 random bits each, in hexadecimal; some dozens at a time, for the price of one call of the kernel."""
    while True:
        block = token_hex(16 * 64)
        yield [block[start : start + 32] for start in range(0, len(block), 32)]


ids: Final = chain.from_iterable(_random_ids())
