"""What a request's body asks for, and the body that also asks for the token counts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec

from exporter.gateway.model import Dialect
from exporter.gateway.reading.usage import UNREADABLE

_WITH_STREAM_OPTIONS = frozenset((Dialect.CHAT, Dialect.COMPLETION))
"""Dialects where counts of a stream come only when asked for; responses and messages tell them always, vLLM itself asks."""

_PYDANTIC_TRUE = frozenset(("1", "true", "t", "yes", "y", "on"))
"""Words that vLLM's own models take for true: https://docs.pydantic.dev/latest/concepts/conversion_table/"""


@dataclass(slots=True)
class Asked:
    """What the gateway needs to know of a body; None and False where it does not say, or is no JSON object."""

    model: str | None = None
    stream: bool = False
    include_usage: bool = False
    """Whether the client itself asks for the counts of a stream: then they are not hidden from it."""
    own_stream_options: bytes | None = None
    """The client's `stream_options` as they stand in the body."""
    max_tokens: int | None = None
    """Most tokens it lets the engine answer with."""
    dialect: Dialect = Dialect.OPAQUE


class _Body(msgspec.Struct, gc=False):
    model: str | None = None
    stream: bool | None = False
    stream_options: msgspec.Raw = msgspec.Raw()
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def read_request(body: bytes, dialect: Dialect) -> Asked:
    """Read what is asked for, by the same rules as the engine (Python's `json`: the last of two equal keys counts).

    A body that is no JSON object gives an empty answer: the engine refuses it in its own words.
    """
    try:
        read = _decode_body(body)
    except UNREADABLE:
        return _read_patiently(body, dialect)
    asked = Asked(read.model or None, read.stream is True)
    asked.dialect = dialect
    asked.max_tokens = _limit(read.max_completion_tokens, read.max_tokens, read.max_output_tokens)
    if dialect in _WITH_STREAM_OPTIONS and (own := bytes(read.stream_options)):
        asked.own_stream_options = own
        asked.include_usage = _asks_for_usage(_loads(own))
    return asked


def with_usage(body: bytes, asked: Asked) -> bytes | None:
    """The body that asks for `stream_options.include_usage`; None where it is to go on as it is.

    That is so where nothing is streamed, where the counts come anyhow, and where the client's own `stream_options` are
    not what the engine accepts: it must be told so. `continuous_usage_stats` count for nothing without `include_usage`,
    so they are switched off with it switched on.
    """
    if not asked.stream or asked.include_usage or asked.dialect not in _WITH_STREAM_OPTIONS:
        return None
    own = asked.own_stream_options
    if own is None and not _is_wide(body):
        inside = body.rstrip(b" \t\r\n")
        return b"".join((inside[:-1], b',"stream_options":{"include_usage":true}}', body[len(inside) :]))
    options = _loads(own) if own is not None else None
    if options is None:
        options = {}
    if not isinstance(options, dict) or not _is_switch(options.get("continuous_usage_stats")):
        return None
    options["include_usage"] = True
    if "continuous_usage_stats" in options:
        options["continuous_usage_stats"] = False
    try:
        members = _decode_members(body)
        members["stream_options"] = msgspec.Raw(json.dumps(options).encode())
        return msgspec.json.encode(members)
    except UNREADABLE:
        loaded = _loads(body)
        if not isinstance(loaded, dict):
            return None
        return json.dumps({**loaded, "stream_options": options}).encode()


def _read_patiently(body: bytes, dialect: Dialect) -> Asked:
    """What the fast decoder rejects and the engine may still take: NaN, UTF-16, a lone surrogate, `"stream": 1`."""
    members = _loads(body)
    if not isinstance(members, dict):
        return Asked()
    asked = Asked(dialect=dialect)
    model = members.get("model")
    if isinstance(model, str) and model:
        asked.model = model.encode("utf-8", "backslashreplace").decode()
    asked.stream = _is_true(members.get("stream"))
    asked.max_tokens = _limit(
        members.get("max_completion_tokens"), members.get("max_tokens"), members.get("max_output_tokens")
    )
    if "stream_options" in members and dialect in _WITH_STREAM_OPTIONS:
        asked.own_stream_options = json.dumps(members["stream_options"]).encode()
        asked.include_usage = _asks_for_usage(members["stream_options"])
    return asked


def _is_wide(body: bytes) -> bool:
    """Whether it is UTF-16 or UTF-32, which Python's `json` takes as well."""
    return b"\0" in body[:4] or body.startswith((b"\xff\xfe", b"\xfe\xff"))


def _loads(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _asks_for_usage(options: object) -> bool:
    if not isinstance(options, dict):
        return False
    value = options.get("include_usage")
    return not _is_switch(value) or value is True


def _is_switch(value: object) -> bool:
    return value is None or isinstance(value, bool)


def _is_true(value: object) -> bool:
    if isinstance(value, str):
        return value.lower() in _PYDANTIC_TRUE
    return isinstance(value, bool | int | float) and value == 1


def _limit(*values: object) -> int | None:
    for value in values:
        if type(value) is int and value >= 0:
            return value
    return None
