"""Where an expression stops being PromQL: the parser only says that it is none.

This walks the tokens of an expression that was refused, and names the first that cannot stand where it does. It decides
nothing: what it lets pass may still be wrong, and what the parser takes never comes here.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporter.promql.lexer import Token, quoted
from exporter.promql.model import QueryError

AGGREGATORS = frozenset(
    [
        "sum",
        "avg",
        "min",
        "max",
        "count",
        "group",
        "stddev",
        "stdvar",
        "topk",
        "bottomk",
        "quantile",
        "count_values",
        "limitk",
        "limit_ratio",
    ]
)
BINARY_SIGNS = frozenset({"+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", ">=", "<="})
BINARY_WORDS = frozenset({"and", "or", "unless", "atan2"})
_LISTS = frozenset({"on", "ignoring"})
_GROUPS = frozenset({"group_left", "group_right"})
_NOT_METRICS = _LISTS | _GROUPS | {"bool", "atan2"}
_OPERATIONS = {"=", "!=", "=~", "!~"}


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


def unexpected(word: Token, context: str = "", expected: str = "") -> QueryError:
    """A word where it cannot stand."""
    where = f" in {context}" if context else ""
    wanted = f", expected {expected}" if expected else ""
    return QueryError("bad_data", f"unexpected {described(word)}{where}{wanted}", word.position)


def misplaced(words: Sequence[Token], end: int) -> QueryError | None:
    """The first word that is out of place; None where all could stand. `end` is where the expression ends."""
    walk = _Walk(words, end)
    try:
        walk.expression()
    except QueryError as error:
        return error
    return None


class _Walk:
    """One pass over the words, without recursion: open parentheses are a list of what they belong to."""

    def __init__(self, words: Sequence[Token], end: int) -> None:
        self._words = words
        self._place = 0
        self._end = Token("end", "", end)

    def _next(self) -> Token:
        word = self._peek()
        self._place += 1
        return word

    def _peek(self) -> Token:
        return self._words[self._place] if self._place < len(self._words) else self._end

    def _is(self, *names: str) -> bool:
        word = self._peek()
        return word.kind == "name" and word.text.lower() in names

    def expression(self) -> None:
        """QueryError at the first word out of place."""
        opened: list[str] = []
        while True:
            if not self._operand(opened):
                continue
            if self._operators(opened):
                return

    def _operand(self, opened: list[str]) -> bool:
        """A value, or the start of one: False where a parenthesis was opened."""
        while self._peek().kind in ("+", "-"):
            self._next()
        word = self._next()
        if word.kind in ("number", "duration", "string"):
            return True
        if word.kind == "{":
            self._braces()
            return True
        if word.kind == "(":
            opened.append("paren")
            return False
        if word.kind != "name" or word.text.lower() in _NOT_METRICS:
            raise unexpected(word)
        kind = "call"
        if word.text.lower() in AGGREGATORS and self._is("by", "without"):
            self._next()
            self._labels()
            kind = "grouped"
            if self._peek().kind != "(":
                raise unexpected(self._next(), "aggregation", '"("')
        elif word.text.lower() in AGGREGATORS:
            kind = "aggregation"
        if self._peek().kind == "{":
            self._next()
            self._braces()
        elif self._peek().kind == "(":
            self._next()
            opened.append(kind)
            if self._peek().kind != ")":
                return False
        return True

    def _operators(self, opened: list[str]) -> bool:
        """What may follow a value, up to the next operand; True at the end of the expression."""
        while True:
            word = self._next()
            name = word.text.lower() if word.kind == "name" else ""
            if word.kind == "end":
                return True
            if word.kind in BINARY_SIGNS or name in BINARY_WORDS:
                self._modifiers()
                return False
            if word.kind == "[":
                self._brackets()
            elif name == "offset":
                self._time("offset", "number or duration")
            elif word.kind == "@":
                self._at()
            elif word.kind == ")":
                if opened.pop() == "aggregation" and self._is("by", "without"):
                    self._next()
                    self._labels()
            elif word.kind == "," and opened and opened[-1] != "paren":
                if self._peek().kind == ")":
                    raise QueryError(
                        "bad_data", "trailing commas not allowed in function call args", word.position
                    )
                return False
            else:
                raise unexpected(word)

    def _modifiers(self) -> None:
        if self._is("bool"):
            self._next()
        if self._is(*_LISTS):
            self._next()
            self._labels()
            if self._is(*_GROUPS):
                self._next()
                if self._peek().kind == "(":
                    self._labels()

    def _labels(self) -> None:
        word = self._next()
        if word.kind != "(":
            raise unexpected(word, "grouping opts", '"("')
        while (word := self._next()).kind != ")":
            if word.kind not in ("name", "string"):
                raise unexpected(word, "grouping opts", "label")
            if self._peek().kind == ",":
                self._next()
            elif self._peek().kind != ")":
                raise unexpected(self._next(), "grouping opts", '"," or ")"')

    def _braces(self) -> None:
        while (word := self._next()).kind != "}":
            if word.kind not in ("name", "string"):
                raise unexpected(word, "label matching", 'identifier or "}"')
            if self._peek().kind in _OPERATIONS:
                self._next()
                if (value := self._next()).kind != "string":
                    raise unexpected(value, "label matching", "string")
            elif word.kind == "name":
                raise unexpected(self._next(), "label matching", "label matching operator")
            if self._peek().kind == ",":
                self._next()
            elif self._peek().kind != "}":
                raise unexpected(self._next(), "label matching", '"," or "}"')

    def _brackets(self) -> None:
        word = self._next()
        if word.kind not in ("number", "duration"):
            raise unexpected(word, "range", "number or duration")
        if (word := self._next()).kind == ":":
            word = self._next()
            if word.kind in ("number", "duration"):
                word = self._next()
        if word.kind != "]":
            raise unexpected(word, "range", '"]" or ":"')

    def _time(self, context: str, expected: str) -> None:
        if self._peek().kind in ("+", "-"):
            self._next()
        if (word := self._next()).kind not in ("number", "duration"):
            raise unexpected(word, context, expected)

    def _at(self) -> None:
        if not self._is("start", "end"):
            self._time("@", "timestamp")
            return
        self._next()
        for sign in "()":
            if (word := self._next()).kind != sign:
                raise unexpected(word, "@", quoted(sign))
