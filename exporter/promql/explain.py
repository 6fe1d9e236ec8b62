"""The parser's complaints in Prometheus' words, with their places."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import promql_parser

from exporter.promql.grammar import AGGREGATORS, misplaced
from exporter.promql.lexer import Token, quoted
from exporter.promql.model import QueryError
from exporter.promql.rewriting import LISTS, RENAMED, Rewritten, rewritten

_EFFORT = 5000
"""Most words that are parsed again to find the part at fault."""
_TYPES = {"matrix": "range vector", "vector": "instant vector", "scalar": "scalar", "string": "string"}
_WORDS = (
    (
        re.compile(r"(expected type|, got:?) (matrix|vector)\b(?! instead)"),
        lambda match: f"{match[1]} {_TYPES[match[2]]}",
    ),
    (
        re.compile(r"subquery is only allowed on vector"),
        lambda match: "subquery is only allowed on instant vector",
    ),
    (re.compile(r"only allowed between vectors"), lambda match: "only allowed between instant vectors"),
    (
        re.compile(r"of type scalar or vector, got: (.*)"),
        lambda match: f'of type scalar or instant vector, got "{match[1]}"',
    ),
    (
        re.compile(r"an vector selector or matrix selector or a subquery"),
        lambda match: "an instant vector selector or range vector selector or a subquery",
    ),
    (re.compile(r"'([^']*)'"), lambda match: quoted(match[1])),
)


def in_place(expression: str, position: int, message: str) -> QueryError:
    """A parse error at a place, worded as Prometheus words them: `1:5: parse error: …`."""
    line = expression.count("\n", 0, position) + 1
    column = position - (expression.rfind("\n", 0, position) + 1) + 1
    return QueryError("bad_data", f"{line}:{column}: parse error: {message}", position)


def explained(expression: str, words: Sequence[Token], given: Rewritten, complaint: str) -> QueryError:
    """Why the parser refused an expression."""
    wrong = misplaced(words, len(expression))
    if wrong is not None and wrong.position is not None:
        return in_place(expression, wrong.position, str(wrong))
    named = re.search(r"unknown function with name '([^']*)'", complaint)
    if named:
        for word, after in pairwise(words):
            if word.text == named[1] and after.kind == "(":
                return in_place(expression, word.position, f"unknown function with name {quoted(word.text)}")
    twice = re.search(r"metric name must not be set twice: '([^']*)' or '(\d+)'", complaint)
    if twice:
        other = given.strings[int(twice[2])].value
        complaint = f"metric name must not be set twice: {quoted(twice[1])} or {quoted(other)}"
    return in_place(expression, _blamed(words, complaint if not twice else None), _worded(complaint, words))


def _worded(complaint: str, words: Sequence[Token]) -> str:
    for pattern, better in _WORDS:
        complaint = pattern.sub(better, complaint)
    texts = {word.text for word in words}
    for old, new in RENAMED.items():
        if old in texts and new not in texts:
            complaint = complaint.replace(new, old)
    return complaint


def _blamed(words: Sequence[Token], complaint: str | None) -> int:
    """Where the smallest part starts that draws the same complaint by itself: a call, its arguments, parentheses."""
    effort = 0
    for start, end in _parts(words):
        effort += end - start
        if effort > _EFFORT:
            break
        try:
            promql_parser.parse(rewritten(words[start:end]).text)
        except ValueError as error:
            if complaint is None or str(error) == complaint:
                return words[start].position
        except QueryError:
            continue
    return words[0].position


def _parts(words: Sequence[Token]) -> list[tuple[int, int]]:
    """The parenthesised parts of an expression, from and to which word, innermost and leftmost first."""
    found: list[tuple[int, int]] = []
    opened: list[tuple[int, bool]] = []  # where the part starts, and whether it is a list of labels
    callee: int | None = None  # of an aggregation whose labels come before its parentheses
    for place, word in enumerate(words):
        before = words[place - 1] if place else None
        if word.kind == "(":
            labels = before is not None and before.kind == "name" and before.text.lower() in LISTS
            start = place
            if callee is not None and before is not None and before.kind == ")":
                start = callee
            elif before is not None and before.kind == "name":
                start = place - 1
            opened.append((start, labels))
            if not labels:
                callee = None
        elif word.kind == ")" and opened:
            start, labels = opened.pop()
            if not labels:
                found.append((start, place + 1))
        elif word.kind == "name" and word.text.lower() in AGGREGATORS:
            callee = place
    return found
