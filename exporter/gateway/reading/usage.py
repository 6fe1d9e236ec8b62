"""Token counts as the engine reports them, in the three spellings of `usage` that vLLM has."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from exporter.gateway.model import Exchange

UNREADABLE = (ValueError, RecursionError)
"""What decoding raises where bytes are no JSON, not UTF-8, of other types than expected, or nested beyond reason."""

TAIL_LIMIT = 64 << 10
"""Bytes kept of the end of what is too large to be read: `usage` stands near the end in all of vLLM's answers."""

_USAGE_LIMIT = 8 << 10
"""Longest `usage` that is looked for there."""

_COUNT_LIMIT = 1 << 53


class Usage(msgspec.Struct, gc=False):
    """`usage` of chat, completions, embeddings and scores; of responses; of messages (whose input excludes the cache's)."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None
    cache_read_input_tokens: Any = None
    cache_creation_input_tokens: Any = None


def note(exchange: Exchange, usage: Usage) -> None:
    """Write the counts into the exchange; what is missing or no count leaves it as it was."""
    taken = usage.prompt_tokens
    made = usage.completion_tokens
    if type(taken) is type(made) is int and 0 <= taken < _COUNT_LIMIT and 0 <= made < _COUNT_LIMIT:
        exchange.input_tokens = taken  # as in nearly every answer
        exchange.output_tokens = made
        return
    taken = _count(taken)
    if taken is None and (taken := _count(usage.input_tokens)) is not None:
        taken += _count(usage.cache_read_input_tokens) or 0
        taken += _count(usage.cache_creation_input_tokens) or 0
    if taken is not None:
        exchange.input_tokens = taken
    made = _count(made)
    if made is None:
        made = _count(usage.output_tokens)
    if made is not None:
        exchange.output_tokens = made


def note_from_tail(exchange: Exchange, tail: bytes) -> None:
    """Find the last `"usage": {…}` in the end of a JSON text and write its counts.

    Quotes within a JSON string are escaped, so the key with its quotes never stands in a model's words.
    """
    at = len(tail)
    while (at := tail.rfind(b'"usage"', 0, at)) >= 0:
        rest = tail[at + 7 : at + 7 + _USAGE_LIMIT].lstrip(b" \t\r\n")
        if not rest.startswith(b":"):
            continue
        try:
            value, _ = _SCANNER.raw_decode(rest[1:].lstrip(b" \t\r\n").decode("utf-8", "replace"))
            usage = msgspec.convert(value, Usage | None)
        except UNREADABLE:
            continue
        if usage is not None:
            note(exchange, usage)
            return


_SCANNER = json.JSONDecoder()


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < _COUNT_LIMIT else None
