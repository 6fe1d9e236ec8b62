"""What a request's body asks for, and the body that also asks for the token counts.

A body is read on the event loop, so what anybody may send is read by a decoder that keeps nothing but the members that matter:
16 MiB take some 25 ms. Python's own `json`, which the engine uses and which takes more than the standard, builds everything, at a
tenth of that pace: it is asked only where the fast decoder fails, and only about small texts.
"""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from exporter.gateway.model import Dialect
from exporter.gateway.reading.usage import UNREADABLE

_WITH_USAGE = b',"stream_options":{"include_usage":true}}'

_PYDANTIC_TRUE = frozenset(("1", "true", "t", "yes", "y", "on"))
"""Words that vLLM's own models take for true: https://docs.pydantic.dev/latest/concepts/conversion_table/"""

_PATIENCE = 256 << 10
"""Longest body that is read by Python's `json`: 25 ms at worst."""
_MEMBER_LIMIT = 4 << 10
"""Longest member that is; real `stream_options` have some fifty bytes."""


_NOTHING: Final = msgspec.Raw()
_CHAT: Final = Dialect.CHAT  # an enum's members cost more to look up than all that is asked of them
_COMPLETION: Final = Dialect.COMPLETION


class Asked(msgspec.Struct, gc=False):
    """What the gateway needs to know of a body."""

    model: str | None = None
    """None where it does not say."""
    stream: bool | None = False
    stream_options: msgspec.Raw = _NOTHING
    """The client's own, as they stand in the body."""

    @property
    def include_usage(self) -> bool:
        """Whether the client itself asks for the counts of a stream: then they are not hidden from it."""
        own = bytes(self.stream_options)
        return len(own) > _MEMBER_LIMIT or (own != b"" and _asks_for_usage(_loads(own)))


UNREAD: Final = Asked()
"""Of a body that is no JSON object, or too odd and too long to be read here."""


class _OddBody(msgspec.Struct, gc=False):
    """The same members, whatever their types."""

    model: msgspec.Raw = msgspec.Raw()
    stream: msgspec.Raw = msgspec.Raw()
    stream_options: msgspec.Raw = msgspec.Raw()


_decode_body = msgspec.json.Decoder(Asked).decode
_decode_odd_body = msgspec.json.Decoder(_OddBody).decode


def read_request(body: bytes) -> Asked:
    """Read what is asked for, by the same rules as the engine (Python's `json`: the last of two equal keys counts).

    `UNREAD` for a body that is no JSON object: the engine refuses it in its own words.
    """
    try:
        asked = _decode_body(body)
    except UNREADABLE:
        return _read_patiently(body)
    if not asked.model:
        asked.model = None
    return asked


def with_usage(body: bytes, asked: Asked, dialect: Dialect) -> bytes | None:
    """The body that asks for `stream_options.include_usage`; None where it is to go on as it is.

    That is so where nothing is streamed, where the counts come anyhow (responses and messages tell them always, vLLM itself
    asks), and where the client's own `stream_options` are not what the engine accepts: it must be told so.
    `continuous_usage_stats` count for nothing without `include_usage`, so they are switched off with it switched on. The
    options stand at the end, where they overrule the client's own.
    """
    if not asked.stream or not (dialect is _CHAT or dialect is _COMPLETION):
        return None
    if asked.stream_options is _NOTHING:
        if body.endswith(b"}") and body.startswith(b'{"'):
            return body[:-1] + _WITH_USAGE  # as nearly all come
        if not _is_wide(body):
            return _with_last(body, b'{"include_usage":true}')
        options = {}
    elif asked.include_usage:
        return None
    else:
        options = _loads(bytes(asked.stream_options))
        if options is None:
            options = {}
    if not isinstance(options, dict) or not _is_switch(options.get("continuous_usage_stats")):
        return None
    options["include_usage"] = True
    if "continuous_usage_stats" in options:
        options["continuous_usage_stats"] = False
    if _is_wide(body):
        loaded = _loads(body)
        return (
            json.dumps({**loaded, "stream_options": options}).encode() if isinstance(loaded, dict) else None
        )
    return _with_last(body, json.dumps(options).encode())


def _with_last(body: bytes, options: bytes) -> bytes:
    """The body with a last member more: of two equal keys the last counts, and nothing else has to be taken apart."""
    inside = body.rstrip(b" \t\r\n")
    return b"".join((inside[:-1], b',"stream_options":', options, b"}", body[len(inside) :]))


def _read_patiently(body: bytes) -> Asked:
    """What the fast decoder rejects and the engine may still take: NaN, UTF-16, a lone surrogate, `"stream": 1`.

    Nothing is known of a large body but what stands in members of odd types: it goes on, less measured.
    """
    members = _loads(body) if len(body) <= _PATIENCE else _odd_members(body)
    if not isinstance(members, dict):
        return UNREAD
    asked = Asked(stream=_is_true(members.get("stream")))
    model = members.get("model")
    if isinstance(model, str) and model:
        asked.model = model.encode("utf-8", "backslashreplace").decode()
    if "stream_options" in members:
        asked.stream_options = msgspec.Raw(json.dumps(members["stream_options"]).encode())
    return asked


def _odd_members(body: bytes) -> dict[str, Any] | None:
    """The members that matter of a large body; None where one of them is large itself."""
    try:
        odd = _decode_odd_body(body)
    except UNREADABLE:
        return None
    raws = {name: bytes(getattr(odd, name)) for name in _OddBody.__struct_fields__}
    if max(map(len, raws.values())) > _MEMBER_LIMIT:
        return None
    return {name: _loads(raw) for name, raw in raws.items() if raw}


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
