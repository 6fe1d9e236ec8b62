"""From text to promql-parser's tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import promql_parser

from exporter.promql.bounds import MAX_LENGTH, check_size, check_words
from exporter.promql.explain import explained, in_place
from exporter.promql.lexer import tokens
from exporter.promql.model import QueryError
from exporter.promql.rewriting import Text, rewritten


@dataclass(frozen=True, slots=True)
class Parsed:
    """The parser's tree, and the tables that its literals point to."""

    tree: Any
    strings: tuple[Text, ...]
    times: tuple[int, ...]


def parse(expression: str) -> Parsed:
    """The expression's tree; QueryError with a place for what is wrong with it."""
    if len(expression) > MAX_LENGTH:
        raise QueryError(
            "bad_data", f"expression of {len(expression)} characters, at most {MAX_LENGTH} are allowed"
        )
    try:
        expression.encode()
    except UnicodeEncodeError as error:
        raise in_place(expression, error.start, "invalid UTF-8 rune") from error
    try:
        words = tokens(expression)
        if not words:
            raise QueryError("bad_data", "no expression found in input", len(expression))
        check_size(words)
        check_words(words)
        given = rewritten(words)
    except QueryError as error:
        if error.position is None:
            raise
        raise in_place(expression, error.position, str(error)) from error
    try:
        tree = promql_parser.parse(given.text)
    except ValueError as error:
        raise explained(expression, words, given, str(error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what Rust's panics come as; they are no Exception
            raise
        raise QueryError("bad_data", f"the parser failed on this expression: {error}") from None
    return Parsed(tree, given.strings, given.times)
