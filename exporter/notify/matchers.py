"""Alertmanager's matchers: read from its UTF-8 and its classic notation, asked, and printed as it prints them.

Sources: `matcher/parse/`, `matcher/compat/` and `pkg/labels/` of https://github.com/prometheus/alertmanager
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from exporter.alerting.template.literals import quote_go
from exporter.notify.matcher_syntax import (
    RESERVED,
    MatcherError,
    parse_classic,
    parse_classic_one,
    parse_modern,
    shortened,
)
from exporter.storage.model import Labels, Matcher

__all__ = [
    "MatcherError", "check", "fits", "matches", "ordered", "parse_matcher", "parse_matchers", "show", "show_all",
]  # fmt: skip

LONGEST = 65_536
"""Characters of matchers in a text: whoever asks the API must not keep it busy with longer ones."""
_REMEMBERED = 1024
"""Values whose verdict each regular expression remembers."""
_REMEMBERED_CHARACTERS = 1024
"""Longer values are not remembered: somebody else chooses them, and they would be kept for as long as the expression."""

_ORDER: dict[str, int] = {"=": 0, "!=": 1, "=~": 2, "!~": 3}


def parse_matchers(text: str) -> tuple[Matcher, ...]:
    """The matchers of `{a="b", c=~"d"}`, braces or not, in their order; MatcherError.

    As Alertmanager does it by default: the UTF-8 notation, the classic one where the text is none of that, and also
    where the two understand it differently.
    """
    _check_text(text)
    try:
        return tuple(check(matcher) for matcher in parse_classic(text))
    except MatcherError:
        return tuple(check(matcher) for matcher in parse_modern(text))


def parse_matcher(text: str) -> Matcher:
    """The one matcher of a text without braces, as the API's filters have it; MatcherError."""
    if text.startswith("{") or text.endswith("}"):
        raise MatcherError(f"unexpected open or close brace: {shortened(text)}")
    _check_text(text)
    try:
        return check(parse_classic_one(text))
    except MatcherError:
        found = tuple(check(matcher) for matcher in parse_modern(text))
    if len(found) != 1:
        raise MatcherError(f"expected one matcher, found {len(found)}: {shortened(text)}")
    return found[0]


def matches(matchers: Sequence[Matcher], labels: Labels) -> bool:
    """Whether a label set fits all of the matchers; a label that it lacks counts as empty."""
    return fits(matchers, dict(labels))


def fits(matchers: Sequence[Matcher], values: Mapping[str, str]) -> bool:
    """As `matches`, of labels by name: for whoever asks many about one label set."""
    get = values.get
    for name, accepts in _conditions(tuple(matchers)):  # noqa: SIM110 - all() costs twice as much
        if not accepts(get(name, "")):
            return False
    return True


def check(matcher: Matcher) -> Matcher:
    """The matcher itself; MatcherError where its regular expression is bad."""
    _condition(matcher)
    return matcher


def ordered(matchers: Sequence[Matcher]) -> tuple[Matcher, ...]:
    """In Alertmanager's order, in which it makes keys of them: by name, value and operator."""
    return tuple(sorted(matchers, key=lambda one: (one.name, one.value, _ORDER[one.op])))


def show(matcher: Matcher) -> str:
    """One matcher as Alertmanager prints it: `name="value"`, with the name in quotes where it needs them."""
    name, op, value = matcher
    if not RESERVED.isdisjoint(name):
        return f"{quote_go(name)}{op}{quote_go(value)}"
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f'{name}{op}"{escaped}"'


def show_all(matchers: Sequence[Matcher]) -> str:
    """Matchers in braces; route keys and so group keys are made of it."""
    return "{" + ",".join(map(show, matchers)) + "}"


@lru_cache(1024)
def _conditions(matchers: tuple[Matcher, ...]) -> tuple[tuple[str, Callable[[str], bool]], ...]:
    return tuple((matcher.name, _condition(matcher)) for matcher in matchers)


@lru_cache(1024)
def _condition(matcher: Matcher) -> Callable[[str], bool]:
    value = matcher.value
    if matcher.op == "=":
        return value.__eq__
    if matcher.op == "!=":
        return value.__ne__
    return _remembering(_compiled(value), matcher.op == "!~")


def _compiled(pattern: str) -> Any:
    """Go anchors it thus, and its dot leaves the line feed out (Prometheus' does not)."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(pattern, options)  # a better message than with what is put around it
        return re2.compile(f"^(?:{pattern})$", options)
    except (re2.error, UnicodeEncodeError) as error:
        reason = error.args[0]
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        raise MatcherError(f"bad regular expression {shortened(pattern)}: {reason}") from error


def _remembering(pattern: Any, negative: bool) -> Callable[[str], bool]:
    """Whether a value fits; the same few values are asked for again and again."""
    search = pattern.search
    known: dict[str, bool] = {}

    def accepts(value: str) -> bool:
        verdict = known.get(value)
        if verdict is None:
            verdict = (search(value) is not None) != negative
            if len(value) <= _REMEMBERED_CHARACTERS:
                if len(known) >= _REMEMBERED:
                    known.clear()
                known[value] = verdict
        return verdict

    return accepts


def _check_text(text: str) -> None:
    if len(text) > LONGEST:
        raise MatcherError(f"longer than {LONGEST} characters: {shortened(text)}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise MatcherError("the text is not valid UTF-8")
