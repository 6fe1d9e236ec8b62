"""From text to promql-parser's tree, with what that parser does not do: bounds, places, exact numbers and strings.

Every literal is handed to the parser as its index in a table, and looked up again when the tree is read. So times are
exact to the millisecond (the parser clamps negative `@` and loses long durations), strings are Go's, and what the parser
is given holds nothing but names and small numbers.

The parser recurses over the tree it builds and takes the process down where its stack ends, so depth and length are
bounded before it sees anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import promql_parser

from exporter.promql.functions import REFUSED
from exporter.promql.lexer import MAX_DURATION_S, Token, quoted, tokens
from exporter.promql.model import QueryError

MAX_LENGTH = 100_000
"""Longest expression, in characters."""
MAX_TOKENS = 10_000
MAX_DEPTH = 200
"""Deepest tree. The parser was seen to take 8 KiB of stack a level and less; threads have 8 MiB, on some systems 1."""

RENAMED = {"holt_winters": "double_exponential_smoothing"}
"""Functions' names in Prometheus 2, which the parser does not know."""
EXPERIMENTAL_WORDS = {
    "limitk": "limitk() is an experimental aggregation, which are not supported",
    "limit_ratio": "limit_ratio() is an experimental aggregation, which are not supported",
}
MODIFIERS = ("anchored", "smoothed")
FILLS = ("fill", "fill_left", "fill_right")
_OPERATORS = frozenset("+-*/%^[@<>") | {"==", "!=", "<=", ">="}
_WORD_OPERATORS = frozenset({"and", "or", "unless", "atan2", "offset"})
_OPERAND_ENDS = frozenset({"number", "duration", "string", "name", ")", "}", "]"})
_NUMBER_WORDS = frozenset({"inf", "nan"})


@dataclass(frozen=True, slots=True)
class Parsed:
    """The parser's tree, and the tables that its literals point to."""

    tree: Any
    strings: tuple[str, ...]
    places: tuple[int, ...]
    """Where each string stands."""
    times: tuple[int, ...]
    """Milliseconds, of ranges, offsets and `@`; a subquery's step is 0 where there is none."""


def parse(expression: str) -> Parsed:
    """The expression's tree; QueryError with a place for what is wrong with it."""
    if len(expression) > MAX_LENGTH:
        raise QueryError(
            "bad_data", f"expression of {len(expression)} characters, at most {MAX_LENGTH} are allowed"
        )
    try:
        expression.encode()
    except UnicodeEncodeError as error:
        raise at(expression, error.start, "invalid UTF-8 rune") from error
    try:
        words = tokens(expression)
        if not words:
            raise QueryError("bad_data", "no expression found in input", len(expression))
        _bound(words)
        _refuse(words)
        text, strings, places, times = _rewrite(words)
    except QueryError as error:
        if error.position is None:
            raise
        raise at(expression, error.position, str(error)) from error
    try:
        tree = promql_parser.parse(text)
    except ValueError as error:
        raise _explained(expression, words, strings, times, str(error)) from error
    return Parsed(tree, strings, places, times)


def at(expression: str, position: int, message: str) -> QueryError:
    """A parse error at a place, worded as Prometheus words them: `1:5: parse error: …`."""
    line = expression.count("\n", 0, position) + 1
    column = position - (expression.rfind("\n", 0, position) + 1) + 1
    return QueryError("bad_data", f"{line}:{column}: parse error: {message}", position)


def _bound(words: list[Token]) -> None:
    """QueryError for an expression whose tree could be too deep for the parser, or that has too many words.

    A level is a pair of parentheses, or an operator beside others in the same pair: chains of operators lean to one
    side.
    """
    if len(words) > MAX_TOKENS:
        raise QueryError(
            "bad_data",
            f"expression of {len(words)} words, at most {MAX_TOKENS} are allowed",
            words[MAX_TOKENS].position,
        )
    # per open parenthesis: operators in this argument, deepest part of it, deepest of the arguments before
    levels = [[0, 0, 0]]
    braces = False
    for word in words:
        top = levels[-1]
        if word.kind == "{":
            braces = True
        elif word.kind == "}":
            braces = False
        elif braces:
            continue
        elif word.kind == "(":
            levels.append([0, 0, 0])
        elif word.kind == ")":
            levels.pop()
            inner = max(top[2], top[0] + top[1]) + 1
            top = levels[-1]
            top[1] = max(top[1], inner)
        elif word.kind == ",":
            top[:] = [0, 0, max(top[2], top[0] + top[1])]
        elif word.kind in _OPERATORS or (word.kind == "name" and word.text.lower() in _WORD_OPERATORS):
            top[0] += 1
        if len(levels) + levels[-1][0] + levels[-1][1] > MAX_DEPTH:
            raise QueryError(
                "bad_data",
                f"expression is nested too deeply, or has too many operators in a row: more than {MAX_DEPTH} levels",
                word.position,
            )


def _refuse(words: list[Token]) -> None:
    """QueryError for what Prometheus refuses and the parser lets pass, and for what Prometheus has and we lack."""
    braces = brackets = False
    before = Token("", "", 0)
    for number, word in enumerate(words):
        after = words[number + 1] if number + 1 < len(words) else Token("end", "", 0)
        if word.kind in "{}":
            braces = word.kind == "{"
        elif word.kind in "[]":
            brackets = word.kind == "["
        elif braces:
            if before.kind == "string" and word.kind not in (",", "=", "!=", "=~", "!~"):
                raise unexpected(word, "label matching", '"," or "}"')
        elif brackets and word.kind not in ("number", "duration", ":"):
            raise QueryError(
                "bad_data",
                f"unexpected {described(word)} in duration: duration expressions are experimental and not supported",
                word.position,
            )
        elif (word.kind == "name" and after.kind == "(" and before.kind != ",") or (
            word.kind == "name" and after.kind == "("
        ):
            _refuse_name(word)
        elif word.kind == "name" and before.kind in _OPERAND_ENDS and word.text.lower() in MODIFIERS:
            raise QueryError(
                "bad_data", f"modifier {word.text} is experimental and not supported", word.position
            )
        elif word.kind == "string" and before.kind in "+-" and before.kind:
            raise QueryError(
                "bad_data",
                'unary expression only allowed on expressions of type scalar or instant vector, got "string"',
                before.position,
            )
        before = word


def _refuse_name(word: Token) -> None:
    name = word.text
    if name.lower() in EXPERIMENTAL_WORDS:
        raise QueryError("bad_data", EXPERIMENTAL_WORDS[name.lower()], word.position)
    if name.lower() in FILLS:
        raise QueryError("bad_data", f"modifier {name}() is experimental and not supported", word.position)
    if name in REFUSED:
        raise QueryError(
            "bad_data", f"function {quoted(name)} is not available: {REFUSED[name]}", word.position
        )


def _rewrite(
    words: list[Token],
) -> tuple[str, tuple[str, ...], tuple[int, ...], tuple[int, ...]]:
    """The words as the parser gets them, and the tables of strings, their places, and times."""
    written: list[str] = []
    strings: list[str] = []
    places: list[int] = []
    times = [0]
    braces = brackets = False
    before = two_before = Token("", "", 0)
    for number, word in enumerate(words):
        text = word.text
        if word.kind in "{}":
            braces = word.kind == "{"
        elif word.kind in "[]":
            brackets = word.kind == "["
        elif word.kind == "string":
            text = f'"{len(strings)}"'
            strings.append(unquoted(word.text))
            places.append(word.position)
        elif word.kind in ("number", "duration"):
            time = _time_of(word, before, two_before, brackets)
            if time is None:
                text = repr(word.value)
            else:
                text = str(len(times))
                times.append(time)
                if before.kind == "-" and _is_at(two_before):
                    written.pop()  # the sign is in the table
        elif (
            word.kind == "name"
            and not braces
            and word.text.lower() in _NUMBER_WORDS
            and _timed(before, two_before)
        ):
            raise QueryError("bad_data", f"{word.text} is no time", word.position)
        elif (
            word.text in RENAMED and number + 1 < len(words) and words[number + 1].kind == "(" and not braces
        ):
            text = RENAMED[word.text]
        written.append(text)
        before, two_before = word, before
    return " ".join(written), tuple(strings), tuple(places), tuple(times)


def _is_at(word: Token) -> bool:
    return word.kind == "@"


def _timed(before: Token, two_before: Token) -> bool:
    """Whether the next number says a time: of `@` or of `offset`, with or without a sign."""
    marks = (before, two_before) if before.kind in ("+", "-") else (before,)
    return any(_is_at(mark) or (mark.kind == "name" and mark.text.lower() == "offset") for mark in marks)


def _time_of(word: Token, before: Token, two_before: Token, brackets: bool) -> int | None:
    """The number in milliseconds, if it stands where a time does: Prometheus rounds `@`, and cuts durations."""
    if brackets:
        if word.value <= 0:
            raise QueryError("bad_data", "duration must be greater than 0", word.position)
        return max(_duration(word), 1)
    if not _timed(before, two_before):
        return None
    if _is_at(before) or _is_at(two_before):
        seconds = -word.value if before.kind == "-" else word.value
        if not abs(seconds) < MAX_DURATION_S:
            raise QueryError(
                "bad_data", f"timestamp out of bounds for @ modifier: {seconds:f}", word.position
            )
        return round(seconds * 1000)
    return _duration(word)


def _duration(word: Token) -> int:
    if not word.value < MAX_DURATION_S:
        raise QueryError("bad_data", "duration out of range", word.position)
    return round(word.value * 1e9) // 1_000_000


_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
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
        code = _ESCAPES.get(char.decode(errors="replace"))
        return bytes([code]) if code is not None else bytes(char)

    return _ESCAPE.sub(plain, text[1:-1].encode()).decode(errors="replace")


def described(word: Token) -> str:
    """A token as messages name it."""
    if word.kind == "end":
        return "end of input"
    if word.kind == "name":
        return f"identifier {quoted(word.text)}"
    if word.kind in ("number", "duration"):
        return f"{word.kind} {quoted(word.text)}"
    if word.kind == "string":
        return f"string {word.text}"
    return quoted(word.text)


def unexpected(word: Token, context: str, expected: str = "") -> QueryError:
    """A word where it cannot stand."""
    wanted = f", expected {expected}" if expected else ""
    return QueryError("bad_data", f"unexpected {described(word)} in {context}{wanted}", word.position)


def _explained(
    expression: str, words: list[Token], strings: tuple[str, ...], times: tuple[int, ...], message: str
) -> QueryError:
    """The parser's complaint in Prometheus' words, and where it can be told, with its place."""
    named = re.search(r"unknown function with name '([^']*)'", message)
    if named:
        for word, after in pairwise(words):
            if word.text == named.group(1) and after.kind == "(":
                return at(expression, word.position, f"unknown function with name {quoted(word.text)}")
    return at(expression, 0, message)
