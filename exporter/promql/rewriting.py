"""An expression as the parser gets it: every literal is the index of what it says in a table.

So times are exact to the millisecond (the parser clamps negative `@` to 0, loses long durations, and panics on those
that are no durations), strings are Go's, label names are Prometheus 3's, and regular expressions are RE2's alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from exporter.promql.lexer import MAX_DURATION_S, Token
from exporter.promql.model import QueryError

RENAMED = {"holt_winters": "double_exponential_smoothing"}
"""Functions' names in Prometheus 2, which the parser does not know."""
LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
"""Words before a list of label names."""
_NUMBERS = frozenset({"inf", "nan"})
_MATCHES = frozenset({"=", "!=", "=~", "!~"})


class Text(NamedTuple):
    """A string literal, or a label's name in a list of them."""

    value: str
    position: int
    operator: str = ""
    """In a matcher, how the label is compared; the parser sees `=` in its place, and so finds no fault."""


class Rewritten(NamedTuple):
    """What the parser gets, and the tables that its literals point to."""

    text: str
    strings: tuple[Text, ...]
    times: tuple[int, ...]
    """Milliseconds, of ranges, offsets and `@`; index 0 is none."""


_NOTHING = Token("", "", 0)


def rewritten(words: Sequence[Token]) -> Rewritten:
    """The words with their literals replaced; QueryError for a time that is none."""
    written: list[str] = []
    strings: list[Text] = []
    times = [0]
    braces = brackets = listed = False
    before = two_before = _NOTHING
    for number, word in enumerate(words):
        text = word.text
        if word.kind in "{}":
            braces = word.kind == "{"
        elif word.kind in "[]":
            brackets = word.kind == "["
        elif word.kind == "(":
            listed = before.kind == "name" and before.text.lower() in LISTS
        elif word.kind == ")":
            listed = False
        elif word.kind == "string" or (listed and word.kind == "name"):
            operator = before.kind if braces and before.kind in _MATCHES else ""
            if operator:
                written[-1] = "="
            text = f'"{len(strings)}"'
            value = unquoted(word.text) if word.kind == "string" else word.text
            strings.append(Text(value, word.position, operator))
        elif word.kind in ("number", "duration"):
            time = _time(word, before, two_before, brackets)
            if time is None:
                text = repr(word.value)
            else:
                text = str(len(times))
                times.append(time)
                if before.kind == "-" and two_before.kind == "@":
                    written.pop()  # the sign is in the table
        elif word.kind == "name" and not braces:
            if word.text.lower() in _NUMBERS and _timed(before, two_before):
                raise QueryError("bad_data", f"{word.text} is no time", word.position)
            if word.text in RENAMED and words[number + 1 : number + 2] and words[number + 1].kind == "(":
                text = RENAMED[word.text]
        written.append(text)
        before, two_before = word, before
    return Rewritten(" ".join(written), tuple(strings), tuple(times))


def _timed(before: Token, two_before: Token) -> bool:
    """Whether the next number says a time: of `@` or of `offset`, with or without a sign."""
    marks = (before, two_before) if before.kind in ("+", "-") else (before,)
    return any(mark.kind == "@" or (mark.kind == "name" and mark.text.lower() == "offset") for mark in marks)


def _time(word: Token, before: Token, two_before: Token, brackets: bool) -> int | None:
    """The number in milliseconds, if it stands where a time does: Prometheus rounds `@`, and cuts durations."""
    if brackets:
        if word.value <= 0:
            raise QueryError("bad_data", "duration must be greater than 0", word.position)
        return max(_duration(word), 1)
    if not _timed(before, two_before):
        return None
    if "@" in (before.kind, two_before.kind):
        seconds = -word.value if before.kind == "-" else word.value
        if not abs(seconds) < MAX_DURATION_S:
            said = f"timestamp out of bounds for @ modifier: {seconds:g}"
            raise QueryError("bad_data", said, word.position)
        return round(seconds * 1000)
    return _duration(word)


def _duration(word: Token) -> int:
    if not word.value < MAX_DURATION_S:
        raise QueryError("bad_data", "duration out of range", word.position)
    return round(word.value * 1e9) // 1_000_000


_ESCAPES = {b"a": 7, b"b": 8, b"f": 12, b"n": 10, b"r": 13, b"t": 9, b"v": 11}
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))")


def unquoted(text: str) -> str:
    """What a string literal says; bytes that are no UTF-8, as `\\xff`, become U+FFFD."""
    if text[0] == "`":
        return text[1:-1].replace("\r", "")
    if "\\" not in text:
        return text[1:-1]

    def plain(match: re.Match[bytes]) -> bytes:
        byte, short, long, octal, char = match.groups()
        if byte or octal:
            return bytes([int(byte, 16) if byte else int(octal, 8)])
        if short or long:
            return chr(int(short or long, 16)).encode()
        return bytes([_ESCAPES[char]]) if char in _ESCAPES else bytes(char)

    return _ESCAPE.sub(plain, text[1:-1].encode()).decode(errors="replace")
