"""What is refused before the parser sees it: too long, too deep, or not in our PromQL.

promql-parser recurses over the tree that it builds, and takes the process down where its stack ends; it also accepts a
few things that Prometheus refuses, or runs only behind a feature flag.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporter.promql.functions import REFUSED
from exporter.promql.grammar import described, unexpected
from exporter.promql.lexer import Token, quoted
from exporter.promql.model import QueryError

MAX_LENGTH = 100_000
"""Longest expression, in characters."""
MAX_TOKENS = 10_000
MAX_DEPTH = 200
"""Deepest tree, in levels. The parser was measured to take up to 4 KiB of stack for each, so 200 fit in 1 MiB; threads
have 8, on some systems 1."""

_OPERATORS = frozenset("+-*/%^[@<>") | {"==", "!=", "<=", ">="}
_WORD_OPERATORS = frozenset({"and", "or", "unless", "atan2", "offset"})
_VALUE_ENDS = frozenset({"number", "duration", "string", "name", ")", "}", "]"})
_MODIFIERS = frozenset({"anchored", "smoothed"})
_FILLS = frozenset({"fill", "fill_left", "fill_right"})
_LIMITS = frozenset({"limitk", "limit_ratio"})
_EXPERIMENTAL = "is experimental in Prometheus and not supported"


def check_size(words: Sequence[Token]) -> None:
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
    open_operators = 0  # of all open parentheses
    braces = False
    for word in words:
        top = levels[-1]
        if word.kind in "{}":
            braces = word.kind == "{"
        elif braces:
            continue
        elif word.kind == "(":
            levels.append([0, 0, 0])
        elif word.kind == ")":
            levels.pop()
            open_operators -= top[0]
            inner = max(top[2], top[0] + top[1]) + 1
            top = levels[-1]
            top[1] = max(top[1], inner)
        elif word.kind == ",":
            open_operators -= top[0]
            top[:] = [0, 0, max(top[2], top[0] + top[1])]
        elif word.kind in _OPERATORS or (word.kind == "name" and word.text.lower() in _WORD_OPERATORS):
            top[0] += 1
            open_operators += 1
        if len(levels) + open_operators + top[1] > MAX_DEPTH:
            raise QueryError(
                "bad_data",
                f"expression is nested too deeply, or has too many operators in a row: more than {MAX_DEPTH} levels",
                word.position,
            )


def check_words(words: Sequence[Token]) -> None:
    """QueryError for what Prometheus refuses and the parser lets pass, and for what Prometheus has and we lack."""
    braces = brackets = False
    before = Token("", "", 0)
    for number, word in enumerate(words):
        after = words[number + 1].kind if number + 1 < len(words) else "end"
        name = word.text.lower() if word.kind == "name" else ""
        if word.kind in "{}":
            braces = word.kind == "{"
        elif word.kind in "[]":
            brackets = word.kind == "["
        elif braces:
            if before.kind == "string" and word.kind not in (",", "=", "!=", "=~", "!~"):
                raise unexpected(word, "label matching", '"," or "}"')
        elif brackets:
            if word.kind not in ("number", "duration", ":"):
                raise _no_duration(word)
        elif before.kind == "name" and before.text.lower() == "offset" and (word.kind == "(" or after == "("):
            if number > 1 and words[number - 2].kind in _VALUE_ENDS:
                raise _no_duration(word)
        elif name and after == "(" and before.kind != "@":
            _check_name(word)
        elif name in _MODIFIERS and before.kind in _VALUE_ENDS:
            raise QueryError("bad_data", f"modifier {word.text} {_EXPERIMENTAL}", word.position)
        elif word.kind == "string" and before.kind in ("+", "-"):
            raise QueryError(
                "bad_data",
                'unary expression only allowed on expressions of type scalar or instant vector, got "string"',
                before.position,
            )
        before = word


def _no_duration(word: Token) -> QueryError:
    said = f"unexpected {described(word)} in duration: arithmetic on durations {_EXPERIMENTAL}"
    return QueryError("bad_data", said, word.position)


def _check_name(word: Token) -> None:
    """A name before a parenthesis."""
    name = word.text.lower()
    if name in _LIMITS:
        raise QueryError("bad_data", f"aggregation {word.text}() {_EXPERIMENTAL}", word.position)
    if name in _FILLS:
        raise QueryError("bad_data", f"modifier {word.text}() {_EXPERIMENTAL}", word.position)
    if word.text in REFUSED:
        said = f"function {quoted(word.text)} is not available: {REFUSED[word.text]}"
        raise QueryError("bad_data", said, word.position)
