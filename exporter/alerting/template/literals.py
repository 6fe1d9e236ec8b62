"""Go's literals: strings and characters with their escapes, numbers, and how Go quotes a string.

Source: https://pkg.go.dev/strconv and https://go.dev/ref/spec#String_literals
"""

from __future__ import annotations

import math
import re

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\"}
_NAMED = {character: name for name, character in _ESCAPES.items()}
_ESCAPE = re.compile(
    r"""\\(?:(?P<named>[abfnrtv\\'"])|(?P<octal>[0-7]{3})|x(?P<byte>[0-9a-fA-F]{2})"""
    r"|u(?P<short>[0-9a-fA-F]{4})|U(?P<long>[0-9a-fA-F]{8}))"
)
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_HEX_FLOAT = re.compile(r"[+-]?0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)[pP][+-]?[0-9]+")
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|[1-9][0-9]*|0)")
_SPECIAL = {"inf": math.inf, "infinity": math.inf, "nan": math.nan}


def unquote(literal: str) -> str:
    """The text of a string or character literal with its quotes; ValueError where Go finds it malformed."""
    quote, inner = literal[0], literal[1:-1]
    if quote == "`":
        return inner.replace("\r", "")
    if "\n" in inner:
        raise ValueError("invalid syntax")
    parts: list[bytes] = []
    at = 0
    while at < len(inner):
        if inner[at] != "\\":
            end = inner.find("\\", at)
            end = len(inner) if end < 0 else end
            parts.append(inner[at:end].encode("utf-8", "replace"))
            at = end
            continue
        match = _ESCAPE.match(inner, at)
        if match is None:
            raise ValueError("invalid syntax")
        parts.append(_escaped(match, quote))
        at = match.end()
    return b"".join(parts).decode("utf-8", "replace")


def _escaped(match: re.Match[str], quote: str) -> bytes:
    if named := match["named"]:
        if named in "'\"":
            if named != quote:
                raise ValueError("invalid syntax")
            return named.encode()
        return _ESCAPES[named].encode()
    if match["octal"] or match["byte"]:
        byte = int(match["octal"], 8) if match["octal"] else int(match["byte"], 16)
        if byte > 255:
            raise ValueError("invalid syntax")
        return bytes([byte])
    point = int(match["short"] or match["long"], 16)
    if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
        raise ValueError("invalid syntax")
    return chr(point).encode()


def quote_go(text: str, quote: str = '"', *, ascii_only: bool = False) -> str:
    """A string as Go's `%q` shows it, or `%+q`."""
    return quote + "".join(_shown(character, quote, ascii_only) for character in text) + quote


def _shown(character: str, quote: str, ascii_only: bool) -> str:
    if character in (quote, "\\"):
        return "\\" + character
    if character.isprintable() and (character.isascii() or not ascii_only):
        return character
    if character in _NAMED:
        return "\\" + _NAMED[character]
    point = ord(character)
    if point < 0x20 or point == 0x7F:
        return f"\\x{point:02x}"
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"


def parse_number(text: str) -> int | float:
    """A number as it stands in a template; ValueError in Go's words."""
    if text[0] == "'":
        inner = unquote(text)
        if len(inner) != 1:
            raise ValueError(f"malformed character constant: {text}")
        return ord(inner)
    if text.endswith("i") and not text[:3].lower().startswith(("0x", "+0x", "-0x")):
        raise ValueError(f"complex numbers are not supported: {text}")
    plain = text.replace("_", "")
    if _INTEGER.fullmatch(plain):
        value = _integer(plain)
        if -(2**63) <= value < 2**63:
            return value
        raise ValueError(
            f"{quote_go(text)} overflows int" if value < 2**64 else f"integer overflow: {quote_go(text)}"
        )
    if _HEX_FLOAT.fullmatch(plain):
        return float.fromhex(plain)
    if _FLOAT.fullmatch(plain) and any(mark in plain for mark in ".eE"):
        number = float(plain)
        if math.isfinite(number):
            return number
    raise ValueError(f"illegal number syntax: {quote_go(text)}")


def _integer(plain: str) -> int:
    digits = plain.lstrip("+-")
    sign = -1 if plain[0] == "-" else 1
    if len(digits) > 100:
        return sign * 2**64
    if digits[:2].lower() in ("0x", "0b", "0o"):
        return sign * int(digits, 0)
    return sign * int(digits, 8 if digits[0] == "0" and len(digits) > 1 else 10)


def parse_float(text: str) -> float:
    """As Go's `strconv.ParseFloat`; ValueError in its words."""
    lowered = text.lower()
    if lowered.lstrip("+-") in _SPECIAL and len(lowered) - len(lowered.lstrip("+-")) <= 1:
        value = _SPECIAL[lowered.lstrip("+-")]
        return -value if lowered[0] == "-" else value
    if _FLOAT.fullmatch(text):
        number = float(text)
    elif _HEX_FLOAT.fullmatch(text):
        try:
            number = float.fromhex(text)
        except OverflowError:
            number = math.inf
    else:
        raise ValueError(f"strconv.ParseFloat: parsing {quote_go(text)}: invalid syntax")
    if math.isinf(number):
        raise ValueError(f"strconv.ParseFloat: parsing {quote_go(text)}: value out of range")
    return number
