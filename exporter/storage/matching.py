"""Matchers over label values: equality, and regular expressions as RE2 reads them, in time linear in the value."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import re2

from exporter.storage.model import Matcher

_ALTERNATIVES = re.compile(r"[\w:/ ,;=@%-]*(?:\|[\w:/ ,;=@%-]*)*", re.ASCII)
"""A pattern that is nothing but words with bars between: a set of values, no need to look at each."""

_REMEMBERED = 4096
"""Values whose verdict each regular expression remembers."""


class Condition:
    """One matcher, ready to be asked; `values` are all that it can match, where these are few and known."""

    __slots__ = ("accepts", "empty", "negative", "values")

    def __init__(self, matcher: Matcher) -> None:
        self.negative = matcher.op in ("!=", "!~")
        self.values: frozenset[str] | None = None
        self.accepts: Callable[[str], bool]
        """Whether a value fits the pattern, `negative` left aside."""
        if matcher.op in ("=", "!="):
            self.values = frozenset((matcher.value,))
        elif _ALTERNATIVES.fullmatch(matcher.value):
            self.values = frozenset(matcher.value.split("|"))
        self.accepts = _remembering(matcher.value) if self.values is None else self.values.__contains__
        self.empty = self.matches("")
        """Whether a series without the label fits."""

    def matches(self, value: str) -> bool:
        """Whether a series with this value of the label fits."""
        return self.accepts(value) != self.negative


@lru_cache(1024)
def condition_of(matcher: Matcher) -> Condition:
    """The condition that a matcher stands for; ValueError for a bad regular expression."""
    return Condition(matcher)


def _remembering(text: str) -> Callable[[str], bool]:
    """Whether a value matches a regular expression; the same few values are asked for again and again."""
    fullmatch = _pattern(text).fullmatch
    known: dict[str, bool] = {}

    def accepts(value: str) -> bool:
        verdict = known.get(value)
        if verdict is None:
            if len(known) >= _REMEMBERED:
                known.clear()
            verdict = known[value] = fullmatch(value) is not None
        return verdict

    return accepts


def _pattern(text: str) -> re2._Regexp:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(f"(?s:{text})", options)
    except re2.error as error:
        reason = error.args[0]
        reason = reason.decode() if isinstance(reason, bytes) else reason
        raise ValueError(f"bad regular expression {text!r}: {reason}") from error
