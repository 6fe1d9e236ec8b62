"""PromQL's tokens with their places, which the parser does not tell.

Follows promql/parser/lex.go in prometheus/prometheus: which characters stand where, how numbers, durations and strings
are written, and what is said of those that are not.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from exporter.promql.model import QueryError


class Token(NamedTuple):
    """One word of an expression; `kind` is number, duration, string, name, or the sign itself."""

    kind: str
    text: str
    position: int
    value: float = 0.0
    """Of a number, or of a duration in seconds."""


_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)+")
_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STRING = re.compile(
    r"""(?:"(?:[^"\\\n]|\\[^\n])*"|'(?:[^'\\\n]|\\[^\n])*'|`[^`]*`)""",
)
_ESCAPE = re.compile(
    r"\\(?:[abfnrtv\\]|[0-7]{3}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|(.))", re.DOTALL
)
_NUMBER = re.compile(
    r"(?:0[xX]_?[0-9a-fA-F](?:_?[0-9a-fA-F])*"
    r"|(?:[0-9](?:_?[0-9])*(?:\.(?:[0-9](?:_?[0-9])*)?)?|\.[0-9](?:_?[0-9])*)(?:[eE][+-]?[0-9](?:_?[0-9])*)?)"
    r"(?![0-9A-Za-z_.])"
)
_DURATION = re.compile(r"[0-9]+(?:ms|[smhdwy])(?:[0-9]+(?:ms|[smhdw]))*(?![0-9A-Za-z_])")
_DURATION_PARTS = re.compile(
    r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?"
)
_UNITS_MS = (31_536_000_000, 604_800_000, 86_400_000, 3_600_000, 60_000, 1000, 1)
_SIGN = re.compile(r"==|!=|<=|>=|=|[-+*/%^<>(),@]")
_BRACE_SIGN = re.compile(r"=~|!~|!=|=|,")
_WORDLIKE = re.compile(r"[0-9A-Za-z_.]+")

MAX_DURATION_S = (1 << 63) / 1e9
"""What Go's time.Duration holds: 292 years."""


def tokens(expression: str) -> list[Token]:
    """The expression's tokens, without space and comments; QueryError at the first that is none."""
    found: list[Token] = []
    place, end = 0, len(expression)
    depth = 0
    within = ""  # "{" or "[" while one is open
    while True:
        space = _SPACE.match(expression, place)
        if space:
            place = space.end()
        if place >= end:
            break
        char = expression[place]
        if char in "\"'`":
            token = _string(expression, place)
        elif within == "{":
            token = _within_braces(expression, place)
        elif char.isascii() and (
            char.isdigit() or (char == "." and expression[place + 1 : place + 2].isdigit())
        ):
            token = _number(expression, place)
        elif char == ":" and within == "[":
            token = Token(":", ":", place)
        elif match := _NAME.match(expression, place):
            token = Token("name", match.group(), place)
        elif match := _SIGN.match(expression, place):
            token = Token(match.group(), match.group(), place)
        elif char in "{}[]":
            token = Token(char, char, place)
        elif char == "!":
            following = expression[place + 1 : place + 2]
            raise _error(place, f"unexpected character after '!': {quoted(following)}")
        else:
            raise _error(place, f"unexpected character: {quoted(char)}")
        if token.kind in "{}[]()":
            within, depth = _bracket(token, within, depth)
        found.append(token)
        place = token.position + len(token.text)
    if within == "{":
        raise _error(end, "unexpected end of input inside braces")
    if depth:
        raise _error(end, "unclosed left parenthesis")
    if within:
        raise _error(end, "unclosed left bracket")
    return found


def _bracket(token: Token, within: str, depth: int) -> tuple[str, int]:
    """Which bracket is open after the token, and how many parentheses."""
    kind = token.kind
    if kind == "(":
        return within, depth + 1
    if kind == ")":
        if depth == 0:
            raise _error(token.position, "unexpected right parenthesis ')'")
        return within, depth - 1
    if kind in "{[":
        if within:
            which = "brace" if kind == "{" else "bracket"
            raise _error(token.position, f"unexpected left {which} '{kind}'")
        return kind, depth
    opening, which = ("{", "brace") if kind == "}" else ("[", "bracket")
    if within != opening:
        raise _error(token.position, f"unexpected right {which} '{kind}'")
    return "", depth


def _within_braces(expression: str, place: int) -> Token:
    char = expression[place]
    if match := _LABEL.match(expression, place):
        return Token("name", match.group(), place)
    if match := _BRACE_SIGN.match(expression, place):
        return Token(match.group(), match.group(), place)
    if char in "{}":
        return Token(char, char, place)
    if char == "!":
        following = expression[place + 1 : place + 2]
        raise _error(place, f"unexpected character after '!' inside braces: {quoted(following)}")
    raise _error(place, f"unexpected character inside braces: {quoted(char)}")


def _string(expression: str, place: int) -> Token:
    match = _STRING.match(expression, place)
    if match is None:
        what = "unterminated raw string" if expression[place] == "`" else "unterminated quoted string"
        raise _error(place, what)
    text = match.group()
    if text[0] != "`":
        for escape in _ESCAPE.finditer(text):
            other, written = escape.group(1), escape.group()
            if other is not None and other != text[0]:
                raise _error(place + escape.start(), f"unknown escape sequence {written}")
            if written[1] in "01234567" and int(written[1:], 8) > 0xFF:
                raise _error(place + escape.start(), "escape sequence is an invalid Unicode code point")
            if written[1] in "uU":
                code = int("0x" + written[2:], 0)
                if code > 0x10FFFF or 0xD800 <= code < 0xE000:
                    raise _error(place + escape.start(), "escape sequence is an invalid Unicode code point")
    return Token("string", text, place)


def _number(expression: str, place: int) -> Token:
    if match := _NUMBER.match(expression, place):
        value = number(match.group())
        if value == math.inf:
            raise _error(place, f"error parsing number: {quoted(match.group())} is out of range")
        return Token("number", match.group(), place, value)
    if match := _DURATION.match(expression, place):
        parts = _DURATION_PARTS.fullmatch(match.group())
        if parts is None:
            raise _error(place, f"not a valid duration string: {quoted(match.group())}")
        milliseconds = sum(
            int(part) * unit for part, unit in zip(parts.groups(), _UNITS_MS, strict=True) if part
        )
        if milliseconds / 1000 > MAX_DURATION_S:
            raise _error(place, "duration out of range")
        return Token("duration", match.group(), place, milliseconds / 1000)
    word = _WORDLIKE.match(expression, place)
    assert word is not None
    raise _error(place, f"bad number or duration syntax: {quoted(word.group())}")


def number(text: str) -> float:
    """A number as Go reads it: `0x1f` and `017` are integers in other bases, `_` stands between digits."""
    plain = text.replace("_", "").lower()
    if plain.startswith("0x"):
        return float(int(plain, 16))
    if plain.isdigit() and plain.startswith("0") and not set(plain) & set("89"):
        return float(int(plain, 8))
    return float(plain)


def quoted(text: str) -> str:
    """Text in double quotes, as messages show it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _error(position: int, message: str) -> QueryError:
    return QueryError("bad_data", message, position)
